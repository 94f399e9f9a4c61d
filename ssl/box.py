"""Boxes in a volume: how much they share, and where one may be put."""

from dataclasses import dataclass

import numpy as np

from ..data.volume import Shape

_TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box in a volume: `start` and `size` (z, y, x), in voxels; voxel i reaches from i to i + 1.

    It lies inside the volume; along an axis on which it is larger, the volume lies inside it. `cut` tells
    that it was to be larger and was cut to what fits.
    """

    start: np.ndarray
    size: np.ndarray
    cut: bool = False

    def shares(self, other: "Box") -> np.ndarray:
        """Along each axis, the share of the smaller box that lies in the other: (3,), 0 to 1."""
        low = np.maximum(self.start, other.start)
        high = np.minimum(self.start + self.size, other.start + other.size)
        return np.maximum(high - low, 0) / smaller(self.size, other.size)

    def overlap(self, other: "Box") -> float:
        """Share of the smaller box's volume that lies in the other."""
        return float(self.shares(other).prod())

    def outside(self, extent: Shape) -> float:
        """Share of its volume that lies outside a volume of `extent`."""
        return 1 - float(np.minimum(1, extent / self.size).prod())


def smaller(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of two sizes (3,) the one that has less volume."""
    return one if one.prod() <= other.prod() else other


def allowed(extent: Shape, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last start (3,) of a box of `size`, so that it lies in the volume or the volume in it."""
    slack = extent - size
    return np.minimum(slack, 0), np.maximum(slack, 0)


def placed(extent: Shape, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The start (3,) of a box whose middle is drawn evenly from the volume, then moved so far that it fits.

    Along an axis at least twice as long as the box, a place x voxels from the border is covered x/size + 1/2
    times as often as one in the middle where x < size, thus half to one and a half times as often, and as
    often beyond. With starts drawn evenly it would be x/size times: the outermost voxel next to never.
    """
    middle = rng.uniform(0, extent)
    return np.clip(middle - size / 2, *allowed(extent, size))


def placed_overlapping(
    extent: Shape, first: Box, size: np.ndarray, share: float, rng: np.random.Generator, *, per_axis: bool
) -> np.ndarray:
    """The start (3,) of a box of `size` that overlaps `first` by `share` at least, without trying again.

    `share` is of the smaller box's volume or, with `per_axis`, of its edge along each axis. Axes come in
    random order: along each, the place is drawn evenly from all whose share is what is still needed, given
    what the axes before gave and the most that those after can give. Where no place has as much, as for a
    box that fits neither into the other nor around it, the overlap is the largest there is.
    """
    low, high = allowed(extent, size)
    edges = smaller(first.size, size)
    nearest = np.clip(np.minimum(first.start, first.start + first.size - size), low, high)
    most = first.shares(Box(start=nearest, size=size))
    start, given = nearest.copy(), float(most.prod())
    for axis in rng.permutation(3):
        needed = share if per_axis else share * most[axis] / max(given, share, _TINY)
        least = min(needed, most[axis]) * edges[axis]
        ends = low[axis], high[axis]
        if least > 0:
            ends = np.clip(
                (first.start[axis] + least - size[axis], first.start[axis] + first.size[axis] - least), *ends
            )
        start[axis] = rng.uniform(min(ends), max(ends))
        given = first.overlap(Box(start=start, size=size))
    return start
