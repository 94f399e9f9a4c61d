"""Arrays too large for memory, piece by piece."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .volume import Shape, Voxels

# of one slab as it lies on disk; what is computed is computed of smaller parts of it
SLAB_BYTES = 2**28
_PART_VOXELS = 2**22
Box = tuple[slice, slice, slice]


def slabs(array: Voxels) -> Iterator[slice]:
    """Ranges of the third axis from last that cover an array (..., Z, Y, X), of one channel each.

    They hold up to `SLAB_BYTES` and end where the chunks of a file do, as far as these are small enough.
    """
    *_, extent, y, x = array.shape
    chunk = getattr(array, "chunk", (1, 1, 1))[0]
    fitting = max(1, SLAB_BYTES // max(1, y * x * array.dtype.itemsize))
    depth = fitting // chunk * chunk or fitting
    for start in range(0, extent, depth):
        yield slice(start, min(start + depth, extent))


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """Slices of an array (C, Z, Y, X) in memory, numbered as in the whole.

    `shape` is that of the whole; what is held begins at slice `first` and at row `first_row`.
    """

    shape: tuple[int, ...]
    first: int
    slices: np.ndarray
    first_row: int = 0

    @classmethod
    def of(cls, array: Voxels, z: slice, y: slice | None = None) -> "Held":
        """Reads these slices, and of them these rows or all."""
        if y is None:
            return cls(shape=array.shape, first=z.start, slices=array[:, z])
        return cls(shape=array.shape, first=z.start, slices=array[:, z, y], first_row=y.start)

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels."""
        return self.slices.dtype

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        """The part that the slices name, which lies in what is held."""
        c, z, *plane = key
        if plane and self.first_row:
            plane[0] = slice(plane[0].start - self.first_row, plane[0].stop - self.first_row)
        return self.slices[(c, slice(z.start - self.first, z.stop - self.first), *plane)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Channel:
    """One channel of an array (C, Z, Y, X), as (1, Z, Y, X)."""

    whole: Voxels
    number: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent of the channel."""
        return (1, *self.whole.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels."""
        return self.whole.dtype

    @property
    def chunk(self) -> tuple[int, int, int]:
        """Extent (z, y, x) of the pieces that the file is stored in."""
        return getattr(self.whole, "chunk", (1, 1, 1))

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        """The part that the slices name; the first stands for the one channel."""
        return self.whole[(slice(self.number, self.number + 1), *key[1:])]


def parts(array: Voxels) -> Iterator[tuple[slice, np.ndarray]]:
    """All of (C, Z, Y, X) in parts of some million voxels, with their ranges of Z; slabs are read once."""
    for z in slabs(array):
        held = Held.of(array, z)
        for part in thin(z, array.shape):
            yield part, held[:, part]


def thin(z: slice, shape: tuple[int, ...]) -> Iterator[slice]:
    """A range of Z in ranges of some million voxels."""
    depth = max(1, _PART_VOXELS // max(1, math.prod(shape[2:])))
    for start in range(z.start, z.stop, depth):
        yield slice(start, min(start + depth, z.stop))


def boxes(shape: Shape, size: Shape) -> Iterator[Box]:
    """Boxes of up to `size` (z, y, x) that cover `shape`, z slowest."""
    steps = [range(0, extent, edge) for extent, edge in zip(shape, size, strict=True)]
    for z in steps[0]:
        for y in steps[1]:
            for x in steps[2]:
                starts = (z, y, x)
                a, b, c = (
                    slice(start, min(start + edge, extent))
                    for start, edge, extent in zip(starts, size, shape, strict=True)
                )
                yield a, b, c
