"""Arrays in the axis order of their file, seen as (C, Z, Y, X)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import VolumeError
from ..volume import OpenVolume, Volume
from . import lazy
from .choices import ReadChoices
from .lazy import Box, LazyArray

Key = tuple[slice | int, ...]
Reader = Callable[[Key], np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """An array as its file orders it.

    `axes` names every axis of `shape` by one of the letters T, C, Z, Y, X, each once, Y and X among them;
    `flipped` are those that run backwards. `read` takes a slice or an index for each axis and returns that
    part. `chunk` is the extent of the pieces that the file is stored in, axis by axis.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    axes: str
    chunk: tuple[int, ...]
    read: Reader
    time: int = 0
    flipped: str = ""

    def canonical(self) -> LazyArray:
        """The array as (C, Z, Y, X) at its time point, in native byte order; absent axes have extent 1."""
        extents, chunks = (dict(zip(self.axes, shape, strict=True)) for shape in (self.shape, self.chunk))
        c, z, y, x = (extents.get(axis, 1) for axis in "CZYX")
        return LazyArray(
            shape=(c, z, y, x),
            dtype=_native(self.dtype),
            chunk=(chunks.get("Z", 1), chunks["Y"], chunks["X"]),
            read=self._read_box,
        )

    def opened(self) -> np.ndarray | LazyArray:
        """The canonical array: in memory where it is small enough, else on disk."""
        array = self.canonical()
        large = math.prod(array.shape) * array.dtype.itemsize > lazy.WHOLE_BYTES
        return array if large else array[:]

    def _read_box(self, box: Box) -> np.ndarray:
        if any(asked.stop <= asked.start for asked in box):
            return np.zeros([max(0, asked.stop - asked.start) for asked in box], _native(self.dtype))
        wanted = dict(zip("CZYX", box, strict=True))
        extents = dict(zip(self.axes, self.shape, strict=True))
        for axis in self.flipped:
            asked, n = wanted[axis], extents[axis]
            wanted[axis] = slice(n - asked.stop, n - asked.start)
        part = self.read(tuple(wanted.get(axis, self.time) for axis in self.axes))
        kept = self.axes.replace("T", "")
        part = np.flip(part, tuple(kept.index(axis) for axis in self.flipped))
        part = part.transpose([kept.index(axis) for axis in "CZYX" if axis in kept])
        for place, axis in enumerate("CZ"):
            if axis not in kept:
                part = np.expand_dims(part, place)[(slice(None),) * place + (box[place],)]
        return np.ascontiguousarray(part, dtype=_native(part.dtype))


def _native(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


def volume_of(array: np.ndarray | LazyArray, **fields: Any) -> OpenVolume:
    """A Volume where the array is in memory, an OpenVolume where it is on disk; `fields` are the others."""
    if isinstance(array, np.ndarray):
        return Volume(array=array, **fields)
    return OpenVolume(array=array, **fields)


def declared_axes(path: Path, axes: str, shape: tuple[int, ...], stored: str) -> str:
    """The axes that the user names for an array of this shape; raises VolumeError where they do not fit it.

    `stored` says in words what is in the file.
    """
    if len(axes) == len(shape) and len(set(axes)) == len(axes) and {"Y", "X"} <= set(axes):
        return axes
    raise VolumeError(
        path,
        found=f"{stored}, for the declared axes {axes}",
        rule="declared axes (--axes) name each stored axis once, in its order, Y and X among them",
        remedy=f"declare {len(shape)} axes with the letters T, C, Z, Y, X, or leave --axes out",
    )


def time_point(path: Path, choices: ReadChoices, count: int, stored: str) -> int:
    """Which of `count` time points to read; raises VolumeError where nobody says, or there is none such."""
    if choices.time is None and count > 1:
        raise VolumeError(
            path,
            found=f"{count} time points ({stored})",
            rule="a volume is one time point, and which one is for you to say",
            remedy="choose one with --time N (from 0), name the stored axes with --axes if it is no time "
            "(the depth is Z), or save each time point as a file of its own",
        )
    chosen = choices.time or 0
    if chosen >= count:
        raise VolumeError(
            path,
            found=f"{count} time point{'s' * (count > 1)} ({stored}), and --time {chosen}",
            rule="time points are counted from 0",
            remedy=f"choose one from 0 to {count - 1}, or leave --time out for files without time",
        )
    return chosen
