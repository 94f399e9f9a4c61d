"""What to do where the memory was not enough for a step: a smaller one that would fit."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from ...data.errors import UserError
from ...data.volume import Shape
from ..networks.network import Network
from .estimate import training_bytes

# how torch says it on a CPU and on a GPU
_LACK = ("out of memory", "can't allocate memory", "not enough memory")


class OutOfMemory(UserError):
    """A training step that takes more memory than there is."""


@contextmanager
def told_out_of_memory(
    network: Network, batch: int, patch: Shape, *, views: int = 1, least: int = 1
) -> Iterator[None]:
    """Lack of memory within the block is told in words, with a batch and patch that would fit; no retry.

    Args:
        network: what is trained.
        batch, patch: what was tried.
        views: how many times the network reads a batch.
        least: the smallest batch that the task can do with.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_lack(error):
            raise
        raise _told(network, batch, patch, views, least) from error


@contextmanager
def told_in_validation(case: str) -> Iterator[None]:
    """Lack of memory while a validation case is predicted is told as such."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_lack(error):
            raise
        raise OutOfMemory(
            f"validation case {case}",
            found="out of memory while it was predicted whole",
            rule="Validation volumes are predicted whole, in memory",
            remedy="End other programs and continue with --resume, or start another run in which smaller "
            "volumes validate (--cases FILE)",
        ) from error


def _is_lack(error: MemoryError | RuntimeError) -> bool:
    return isinstance(error, MemoryError) or any(text in str(error) for text in _LACK)


def _told(network: Network, batch: int, patch: Shape, views: int, least: int) -> OutOfMemory:
    channels, free = next(network.parameters()).shape[1], free_bytes(next(network.parameters()).device)
    tried = training_bytes(network, views * batch, channels, patch)
    smaller = fitting(network, batch, patch, free, views=views, least=least)
    try_this = (
        f"set batch={smaller[0]} and patch={list(smaller[1])}, which take about {_gib(smaller[2])}, "
        "in another run (accumulate=N makes up for a smaller batch; checkpointing=true saves memory too)"
        if smaller
        else "set a smaller width in another run: no patch fits"
    )
    return OutOfMemory(
        f"batch {batch}, patch {patch}",
        found="out of memory in a training step",
        rule=f"It takes about {_gib(tried)}; {_gib(free)} are there for it",
        remedy=f"If other programs took it, end them and continue with --resume; else {try_this}",
    )


def fitting(
    network: Network, batch: int, patch: Shape, free: int, *, views: int = 1, least: int = 1
) -> tuple[int, Shape, int] | None:
    """The largest smaller batch and patch of which a step takes at most `free` bytes, and these bytes.

    None where there is none.
    """
    channels = next(network.parameters()).shape[1]
    for fewer, shape in _smaller(batch, patch, network.multiple, least):
        taken = training_bytes(network, views * fewer, channels, shape)
        if taken <= free:
            return fewer, shape, taken
    return None


def _smaller(batch: int, patch: Shape, multiple: tuple[int, ...], least: int) -> Iterator[tuple[int, Shape]]:
    """First half the batch, again and again, then a quarter less of the longest axis."""
    while batch > least:
        batch = max(batch // 2, least)
        yield batch, patch
    extent = list(patch)
    while any(n > m for n, m in zip(extent, multiple, strict=True)):
        axis = max(range(3), key=lambda a: (extent[a] > multiple[a], extent[a]))
        extent[axis] = max(multiple[axis], extent[axis] * 3 // 4 // multiple[axis] * multiple[axis])
        z, y, x = extent
        yield batch, (z, y, x)


def free_bytes(device: torch.device) -> int:
    """Memory that a training on this device may take: what is free, and what this program holds already."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss


def _gib(size: int) -> str:
    return f"{size / 2**30:.2g} GiB"
