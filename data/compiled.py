"""Functions compiled for this processor, once, by numba."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., object])


def _writable(folder: Path) -> bool:
    existing = next(f for f in (folder, *folder.parents) if f.exists())
    return os.access(existing, os.W_OK)


def _folder() -> tempfile.TemporaryDirectory | None:
    """A folder for machine code until this process ends, where numba may write to none of those it knows."""
    if "NUMBA_CACHE_DIR" in os.environ:
        return None
    # Path.home() fails where there is no such folder
    home = os.path.expanduser("~")  # noqa: PTH111
    if _writable(Path(__file__).parent / "__pycache__") or _writable(Path(home, ".cache")):
        return None
    folder = tempfile.TemporaryDirectory(prefix="fewvox-")
    os.environ["NUMBA_CACHE_DIR"] = folder.name
    return folder


# kept, as it is removed when nobody holds it
_FOLDER = _folder()

from numba import njit  # noqa: E402 (it looks for the folder when it is imported)


def compiled(function: F) -> F:
    """The function compiled at its first call (seconds); later processes find the machine code.

    It runs without holding up Python's other threads. Sums may be reordered, which changes their last bit;
    NaN and infinity stay what they are.
    """
    made: Any = njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "arcp"})(function)
    return made
