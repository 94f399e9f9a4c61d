"""Probabilities of a volume, region by region: a volume larger than memory is as good as any other.

A region is a range of rows of the volume, with all its slices and columns. A network's windows go through its
slices once, and what they find is resampled to the volume's own voxels as soon as it is known. Windows that
touch two regions are predicted for each, and whatever the regions, the result is the same.
"""

# Shapes: C = channels, K = classes.

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.preprocess import Prepared
from ..data.resample import needed, resample_part
from ..data.slabs import Held
from ..data.volume import Shape
from .tiles import Tiles


class Stream:
    """Slabs (K, z, Y, X) that come one after another, of which what is still needed is kept."""

    def __init__(self, slabs: Iterator[np.ndarray]) -> None:
        self._slabs, self._kept, self._first, self._stop = slabs, list[np.ndarray](), 0, 0

    def take(self, z: slice) -> np.ndarray:
        """These slices; no later range begins before them."""
        while self._kept and self._first + self._kept[0].shape[1] <= z.start:
            self._first += self._kept.pop(0).shape[1]
        while self._stop < z.stop:
            slab = next(self._slabs)
            self._stop += slab.shape[1]
            if self._stop <= z.start:
                self._first = self._stop
            else:
                self._kept.append(slab)
        kept = self._kept[0] if len(self._kept) == 1 else np.concatenate(self._kept, axis=1)
        return kept[:, z.start - self._first : z.stop - self._first]


class Rolling:
    """The slices of a prepared image that windows over some of its rows see, padded.

    Each is computed once and then moved up.
    """

    def __init__(self, image: Prepared, tiles: Tiles, rows: slice) -> None:
        self._image, self._tiles, self._stop = image, tiles, 0
        top, left = tiles.before[1:]
        starts = tiles.touching(slice(rows.start + top, rows.stop + top))
        height = starts[-1] - starts[0] + tiles.patch[1]
        self._rows = slice(max(0, starts[0] - top), min(tiles.shape[1], starts[0] - top + height))
        down = self._rows.start - (starts[0] - top)
        self._inner = (
            slice(down, down + self._rows.stop - self._rows.start),
            slice(left, left + tiles.shape[2]),
        )
        extent = len(image.how.channels), tiles.patch[0], height, tiles.padded[2]
        self._slices = np.zeros(extent, np.float32)

    def __call__(self, start: int) -> Tensor:
        """Slices (C, z, Y, X) of the padded image from `start` on; starts rise."""
        depth, before = self._tiles.patch[0], self._tiles.before[0]
        known = max(0, self._stop - start) if self._stop else 0
        for k in range(known):  # slice by slice: numpy would copy what overlaps
            self._slices[:, k] = self._slices[:, k + depth - known]
        first, stop = max(0, start + known - before), min(self._tiles.shape[0], start + depth - before)
        place = slice(first + before - start, stop + before - start)
        self._image.fill(self._slices[(slice(None), place, *self._inner)], slice(first, stop), self._rows)
        self._stop = start + depth
        return torch.from_numpy(self._slices)


def on_own_voxels(
    slabs: Callable[[slice], Iterator[np.ndarray]],
    image: Prepared,
    shape: Shape,
    rows: slice,
    ranges: Sequence[slice],
) -> Iterator[np.ndarray]:
    """The same on a volume's own voxels, of its `shape`: for each range of its slices (K, z, y, X).

    `slabs` gives those of rows of the prepared image.
    """
    reads = needed(image.shape[1], shape[1], rows)
    stream = Stream(slabs(reads))
    for z in ranges:
        found = stream.take(depth := needed(image.shape[0], shape[0], z))
        if image.shape != shape:
            held = Held(
                shape=(len(found), *image.shape), first=depth.start, slices=found, first_row=reads.start
            )
            found = np.empty((len(found), z.stop - z.start, rows.stop - rows.start, shape[2]), np.float32)
            resample_part(held, shape, z, rows, found)
        yield found
