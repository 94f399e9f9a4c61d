"""The supply of batches in advance: by a thread, or by processes; for a GPU they are finished there."""

import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import is_dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from .handover import pageable
from .making import making
from .workers import Workers

T = TypeVar("T")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)
CPU = torch.device("cpu")
# what a GPU is fed by; more take memory and files from others on the machine
_MOST_WORKERS = 8


class Sampler(Protocol[R, T_co]):
    """What batches come from, each a function of its step.

    A batch is made in two parts, the second on whichever device that is which was read: a tuple of what has
    a method `to(device)`.
    """

    def batch(self, step: int) -> T_co: ...  # noqa: D102

    def read(self, step: int) -> R: ...  # noqa: D102

    def finish(self, read: R, /) -> T_co: ...  # noqa: D102

    def cases_of(self, step: int) -> tuple[str, ...]: ...  # noqa: D102


def supplied(
    sampler: Sampler[Any, T], first: int, last: int, *, workers: int = 0, device: torch.device = CPU
) -> Generator[T, None, None]:
    """The batches of steps `first` to `last` - 1 in advance of their use, the same whatever `workers` is.

    Args:
        sampler: makes them; with workers it is pickled.
        first, last: steps.
        workers: how many processes make them; none: a thread of this one.
        device: where they will be used. For a GPU, workers or the thread only read, and the batches are
            finished on the GPU while another is used.

    Raises:
        UserError: a batch could not be made; it names file or case.
    """
    if first >= last:
        return
    on_gpu = device.type != "cpu"
    make, cases_of = sampler.read if on_gpu else sampler.batch, sampler.cases_of
    finish = finishing(sampler, device) if on_gpu else _finished_already
    if workers == 0:
        here = _naming(make, cases_of)
        yield from prefetched(lambda step: finish(step, here(step)), first, last)
    else:
        pool = Workers(make, cases_of, first, last, workers, pinned if on_gpu else pageable)
        yield from prefetched(lambda step: finish(step, pool.receive(step)), first, last, pool)


def prefetched(
    make: Callable[[int], T], first: int, last: int, source: AbstractContextManager[Any] | None = None
) -> Generator[T, None, None]:
    """`make(step)` for `first` to `last` - 1, the next one made in a thread while one is used.

    `source`, which `make` takes from, ends before the thread does: nobody waits for what is not wanted.
    """
    with ThreadPoolExecutor(1) as thread, source or nullcontext():
        following = thread.submit(make, first)
        for step in range(first, last):
            current = following.result()
            if step + 1 < last:
                following = thread.submit(make, step + 1)
            yield current


def default_workers(device: torch.device, processes: int = 1) -> int:
    """How many workers where nobody said: none on the CPU, whose cores the network needs; for a GPU half.

    Of several `processes` on a machine each has its share of the cores.
    """
    if device.type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores // (2 * processes)))


def pinned(size: int) -> np.ndarray:
    """An array of bytes (size,) that a GPU copies from while it computes."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()


def finishing(sampler: Sampler[Any, T], device: torch.device) -> Callable[[int, Any], T]:
    """A function (step, what was read) that gives the batch, made on a GPU beside what that computes."""
    used_on, own = torch.cuda.current_stream(device), torch.cuda.Stream(device)

    def finish(step: int, read: Any) -> T:
        with making(sampler.cases_of(step)), torch.cuda.stream(own):
            batch = sampler.finish(tuple(part.to(device) for part in read))
            own.synchronize()
        for tensor in _tensors(batch):
            # or the memory would be used again while it is still read
            tensor.record_stream(used_on)
        return batch

    return finish


def _finished_already(_: int, batch: T) -> T:
    return batch


def _naming(make: Callable[[int], T], cases_of: Callable[[int], tuple[str, ...]]) -> Callable[[int], T]:
    def named(step: int) -> T:
        with making(cases_of(step)):
            return make(step)

    return named


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in a batch."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for part in vars(value).values():
            yield from _tensors(part)
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)
