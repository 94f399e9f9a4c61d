"""What a person sees while a command works: a bar with time left, or a line now and then in a log file."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..seg.engine.launch import launched

# of several processes that train together the first one tells
console = Console(quiet=launched().rank > 0)
errors = Console(stderr=True)
if not console.is_terminal:
    console = Console(width=160, quiet=console.quiet)  # a log file has room for whole names
# without a terminal a line this often shows that work goes on
_LINE_SECONDS = 10.0


def bytes_text(count: float) -> str:
    """A number of bytes as a person reads it: "12 MiB", "1.4 GiB"."""
    if count < 2**30:
        return f"{max(1, round(count / 2**20))} MiB"
    return f"{count / 2**30:.1f} GiB"


class Meter:
    """Shows how much of a task is done; on a terminal as a bar, otherwise as lines."""

    def __init__(self, title: str, bar: Progress | None) -> None:
        self.title, self.bar, self.note = title, bar, ""
        self.task = bar.add_task(title, total=None) if bar else None
        self.begun = self.told = 0.0
        self.first: int | None = None

    def update(self, done: int, total: int) -> None:
        """`done` of `total` are finished."""
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=done, total=total, description=f"{self.title} {self.note}")
            return
        now = time.monotonic()
        # a resumed training begins in the middle: the pace is that of what was done here
        if self.first is None:
            self.first, self.begun, self.told = done, now, now
        if now - self.told >= _LINE_SECONDS or done == total:
            self.told = now
            left = (now - self.begun) / max(1, done - self.first) * (total - done)
            console.print(f"{self.title} {done}/{total} {self.note} ({left:.0f} s left)", highlight=False)


@contextmanager
def meter(title: str) -> Iterator[Meter]:
    """A Meter that is on screen while the block runs."""
    if not console.is_terminal:
        yield Meter(title, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield Meter(title, bar)


class TrainingDisplay:
    """Shows a training: steps, loss, time left, and each validation on a line of its own."""

    def __init__(self, shown: Meter, scores: str = "validation") -> None:
        self.shown, self.scores = shown, scores

    def step(self, done: int, steps: int, loss: float) -> None:
        """A step of so many is done."""
        self.shown.note = f"loss {loss:.3f}"
        self.shown.update(done, steps)

    def validated(self, done: int, scores: dict[str, float]) -> None:
        """A validation is done."""
        told = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        console.print(f"step {done}: {self.scores} {told}", highlight=False)
