"""One measured piece of work beside a peer's."""

import statistics
import time
from collections.abc import Callable
from typing import Literal

from ...data.settings import settings

RUNS = 7
Work = Callable[[int], object]


@settings
class Figure:
    """Median seconds of one piece of work, the bytes of its result, or its peak of memory, ours and a peer's.

    `key` names the ratio in the JSON; `missing` tells how to install a peer that was not there to measure.
    """

    what: str
    work: str
    ours: float
    peer: str | None = None
    theirs: float | None = None
    unit: Literal["s", "bytes", "peak bytes"] = "s"
    key: str | None = None
    missing: str | None = None

    @property
    def ratio(self) -> float | None:
        """Seconds or peak of the peer over ours, but our bytes over the peer's; None without a peer."""
        if self.theirs is None:
            return None
        return self.ours / self.theirs if self.unit == "bytes" else self.theirs / self.ours


def measured(
    what: str,
    work: str,
    ours: Work,
    peer: str | None,
    theirs: Work | None,
    runs: int,
    *,
    items: int = 1,
    their_items: int = 1,
    key: str | None = None,
    missing: str | None = None,
) -> Figure:
    """Ours and the peer's in turn, after one run each to warm up; a run of ours makes `items`."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for k in range(runs + 1):
        for name, made in (("ours", ours), ("theirs", theirs)):
            if made is None:
                continue
            start = time.perf_counter()
            made(k)
            seconds[name].append(time.perf_counter() - start)
    return Figure(
        what=what,
        work=work,
        ours=statistics.median(seconds["ours"][1:]) / items,
        peer=peer,
        theirs=statistics.median(seconds["theirs"][1:]) / their_items if theirs is not None else None,
        key=key,
        missing=missing,
    )
