"""One process at a time at a task."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .errors import UserError


def claim_file(folder: Path) -> Path:
    """Where the process that works in `folder` notes itself."""
    return folder.with_name(f".{folder.name}.process")


@contextmanager
def claimed(folder: Path, task: str) -> Iterator[None]:
    """Holds a lock beside `folder` while the block runs; it ends with the process, however that ends.

    Raises UserError where another process holds it, doing `task`.
    """
    path = claim_file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _locked(path)
    if file is None:
        raise UserError(
            folder,
            found=f"process {_owner(path)} is at work there",
            rule=f"One process at a time {task}",
            remedy="Wait for it, stop it, or choose another folder",
        )
    with file:
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # Windows keeps a file that is open
                path.unlink()


def _locked(path: Path) -> IO[str] | None:
    """The file, locked and empty; None where another process has it."""
    while True:
        file = path.open("a+", encoding="utf-8")
        if not _lock(file):
            file.close()
            return None
        # its last owner may have taken the name away between opening and locking
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                return file
        file.close()


def _lock(file: IO[str]) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _owner(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8").strip() or "(just begun)"
    return "(ended just now)"
