"""What a second worker brings."""

import statistics
import time
from collections.abc import Callable, Generator
from itertools import islice

from .figure import Figure

# until nothing is left of what was made while workers started
_FIRST = 8


def worker_figure(supply: Callable[[int, int], Generator[object]], batches: int, runs: int) -> Figure:
    """The time of a batch that two workers bring, and one: a program that only waits for the next one.

    `supply(workers, count)` brings so many batches from so many workers. It is begun anew for each run; the
    first batches, and the workers' start, do not count. Only as many workers live as are measured.
    """
    seconds: dict[int, list[float]] = {2: [], 1: []}
    for _ in range(runs):
        for workers, of_workers in seconds.items():
            of_workers.append(_seconds(supply(workers, _FIRST + batches), batches))
    return Figure(
        what="supply",
        work="a batch from two workers",
        ours=statistics.median(seconds[2]),
        peer="from one worker",
        theirs=statistics.median(seconds[1]),
        key="workers_2_vs_1",
    )


def _seconds(supply: Generator[object], batches: int) -> float:
    """Of each batch after the first ones."""
    for _ in islice(supply, _FIRST):
        pass
    start = time.perf_counter()
    for _ in islice(supply, batches):
        pass
    took = time.perf_counter() - start
    supply.close()
    return took / batches
