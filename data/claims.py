"""One process at a time at a task."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from .atomic import write_text
from .errors import UserError


def claim_file(folder: Path) -> Path:
    """Where the process that works in `folder` notes itself."""
    return folder.with_name(f".{folder.name}.process")


@contextmanager
def claimed(folder: Path, task: str) -> Iterator[None]:
    """Notes beside `folder` that this process does `task` in it while the block runs.

    What a killed process left behind is taken over. Raises UserError where another process is at it.
    """
    file = claim_file(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    owner = _owner(file)
    if owner is not None and owner.pid != os.getpid():
        raise UserError(
            folder,
            found=f"process {owner.pid} ({_name(owner)}) is at work there",
            rule=f"One process at a time {task}",
            remedy="Wait for it, stop it, or choose another folder",
        )
    write_text(file, f"{os.getpid()} {psutil.Process().create_time()}")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _owner(file: Path) -> psutil.Process | None:
    """The process that wrote a claim, if it still runs: numbers of processes are given anew."""
    with suppress(OSError, ValueError, psutil.Error):
        pid, created = file.read_text(encoding="utf-8").split()
        process = psutil.Process(int(pid))
        if process.create_time() == float(created):
            return process
    return None


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return process.name()
    return "ended just now"
