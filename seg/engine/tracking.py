"""The numbers of a run: JSON lines for programs, TensorBoard events for eyes."""

import json
from os import SEEK_END
from pathlib import Path
from typing import Any, BinaryIO

from torch.utils.tensorboard import SummaryWriter

from ...data.atomic import write_text

METRICS_FILE = "metrics.jsonl"
# bytes that are read at once from the end of it
_BLOCK = 1 << 15


class Tracker:
    """Writes named numbers of a step; a resumed run continues after its restored step."""

    def __init__(self, run: Path, resume_at: int) -> None:
        _truncate(run / METRICS_FILE, resume_at)
        self._lines = (run / METRICS_FILE).open("a", encoding="utf-8")
        self._events = SummaryWriter(str(run / "tensorboard"), purge_step=resume_at)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Records numbers of a step (from 0)."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes out what is buffered."""
        self._lines.close()
        self._events.close()


class Untracked:
    """What a process has that writes nothing: another one does."""

    def log(self, step: int, values: dict[str, float]) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


def read_metrics(run: Path, last: int | None = None) -> list[dict[str, Any]]:
    """All recorded lines of a run, or the last ones; one that a killed run left incomplete is left out."""
    with (run / METRICS_FILE).open("rb") as file:
        if last is not None:
            _seek_lines(file, last + 1)
        lines = file.read().decode("utf-8").split("\n")[:-1]
    return [json.loads(line) for line in (lines if last is None else lines[-last:])]


def _seek_lines(file: BinaryIO, lines: int) -> None:
    """Goes to the beginning of a line that so many follow, or to the beginning of the file."""
    place, seen = file.seek(0, SEEK_END), 0
    while place and seen <= lines:
        before, place = place, max(0, place - _BLOCK)
        file.seek(place)
        seen += file.read(before - place).count(b"\n")
    file.seek(place)
    if place:
        file.readline()


def _truncate(path: Path, resume_at: int) -> None:
    """Drops what was recorded from step `resume_at` on: those steps will be made again."""
    if not path.exists():
        return
    kept = [line for line in read_metrics(path.parent) if line["step"] < resume_at]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
