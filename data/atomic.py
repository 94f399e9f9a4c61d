"""Files and folders that appear whole or not at all."""

import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from .errors import UserError


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path` when the block ends well, and vanishes otherwise.

    What killed processes left of earlier tries is taken away first. Raises UserError when `path` exists.
    """
    if path.exists():
        raise UserError(
            path,
            found="it exists already",
            rule="Finished results are never written over",
            remedy="Choose another folder, or delete this one",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name)
    partial = _partial(path)
    partial.mkdir()
    try:
        yield partial
        settle(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def settle(partial: Path, path: Path) -> None:
    """Gives a finished folder its name, when the disk has all that is in it."""
    sync_below(partial)
    partial.rename(path)
    _sync_folder(path.parent)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, hidden and ending alike, that replaces it when the block ends well."""
    remove_leftovers(path.parent, path.name)
    partial = _partial(path)
    try:
        yield partial
        _sync_file(partial)
        partial.replace(path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that replaces whatever has that name when the block ends well."""
    remove_leftovers(path.parent, path.name)
    partial, old = _partial(path), _partial(path)
    partial.mkdir()
    try:
        yield partial
        sync_below(partial)
        if path.exists():
            path.rename(old)
        try:
            partial.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        _sync_folder(path.parent)
    finally:
        _remove(partial)
    _remove(old)


def write_text(path: Path, text: str) -> None:
    """Replaces a file's content in one step: readers see the old or the new, never a part."""
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sync_below(folder: Path) -> None:
    """Makes the disk keep every file below a folder before its name says that it is whole."""
    for path in folder.rglob("*"):
        if path.is_file():
            _sync_file(path)
    for path in [*(p for p in folder.rglob("*") if p.is_dir()), folder]:
        _sync_folder(path)


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial(path: Path) -> Path:
    """A hidden name beside `path` that ends as it does and tells which process uses it."""
    return path.with_name(f".partial-{os.getpid()}-{uuid.uuid4().hex[:6]}.{path.name}")


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Takes away what killed processes left of things in `folder`, or of the one called `name`."""
    for partial in folder.glob(f".partial-*.{'*' if name is None else glob.escape(name)}"):
        owner = partial.name.split("-")[1]
        if not owner.isdigit() or psutil.pid_exists(int(owner)):
            continue
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
