"""Memory that a process keeps between the steps of a training, or windows of a prediction.

glibc maps a large block when it is asked for and gives it back when it is freed, so that every step of a
training on the CPU begins with pages that the kernel first has to clear; in a small step that can be most of
the time. Kept, they cost some resident memory. Whether it helps a training differs between networks and
machines, so it is tried. A prediction, whose windows are all alike, took three quarters of the time with it,
and no more memory (docs/results/prediction.md).
"""

import ctypes
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

# numbers of mallopt's parameters, from malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER, _LARGEST = -1, 2**31 - 1
# where glibc's thresholds come to by themselves in a process that frees large blocks (mallopt(3))
_USUAL_MMAP, _USUAL_TRIM, _USUAL_NUMBER = 32 * 2**20, 64 * 2**20, 65536
# how many blocks of `kept_memory` are open in this process, and what guards their number
_open, _lock = 0, Lock()
# a step has to be this much faster: less is noise
_WORTH = 0.95


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Seconds of a step with memory given back and with memory kept."""

    given_back: float
    kept: float

    @property
    def helps(self) -> bool:
        """Whether keeping makes a step faster by more than noise would."""
        return self.kept < _WORTH * self.given_back

    @property
    def best(self) -> float:
        """Seconds of a step as they will be."""
        return self.kept if self.helps else self.given_back

    def line(self) -> str:
        """What was found, as a person reads it."""
        ratio = f"a step took {self.kept / self.given_back:.2f} times as long with memory kept between steps"
        return f"{ratio}: {'kept' if self.helps else 'not kept'} (keep_memory sets it)"


def can_keep() -> bool:
    """Whether memory can be kept here: by glibc alone."""
    return platform.libc_ver()[0] == "glibc"


@contextmanager
def kept_memory(keep: bool = True) -> Iterator[None]:
    """While it is open, what the process frees stays with it; does nothing where `keep` is False.

    The thresholds are the process's own: after the last such block they are glibc's usual ones, and what is
    free is given back. Does nothing where the C library is another one.
    """
    if not keep or not can_keep():
        yield
        return
    _count(+1)
    try:
        yield
    finally:
        _count(-1)


def _count(change: int) -> None:
    """Opens or closes a block; the first keeps memory, the last gives it back."""
    global _open
    with _lock:
        before, _open = _open, _open + change
        if before == 0:
            _keep(ctypes.CDLL(None))
        elif _open == 0:
            _give_back(ctypes.CDLL(None))


def _keep(library: ctypes.CDLL) -> None:
    if not library.mallopt(_MMAP_THRESHOLD, _LARGEST):
        # an older glibc takes no such threshold, but lets no block be mapped
        library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)


def _give_back(library: ctypes.CDLL) -> None:
    library.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
    library.mallopt(_MMAP_MAX, _USUAL_NUMBER)
    library.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
    library.malloc_trim(0)


def tried(seconds_per_step: Callable[[], float]) -> Trial:
    """How long a step takes either way; it is called once for each."""
    given_back = seconds_per_step()
    with kept_memory():
        return Trial(given_back=given_back, kept=seconds_per_step())
