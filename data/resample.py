"""Resampling volumes to another voxel size, box by box.

The corners of the volume stay where they are and voxel centres shift accordingly, which is the convention
of nnU-Net, of scipy's `grid_mode` and of `align_corners=False`. Each axis has a matrix that makes output
samples of input samples, so that a box of the result needs but a box of the source, and whatever the boxes
the result is the same.
"""

from typing import Literal

import numpy as np

from .labels import IGNORED
from .slabs import Box, boxes
from .volume import Shape, Triple, Voxels

Order = Literal[0, 1]
Orders = tuple[Order, Order, Order]
LINEAR: Orders = (1, 1, 1)
# edge of the boxes in which whole volumes are resampled: matrices stay small, and pieces in the cache
_EDGE = 96


def resampled_shape(shape: Shape, spacing: Triple, target: Triple, tolerance: float) -> Shape:
    """Shape at the `target` spacing; `shape` itself where all axes agree within `tolerance` (relative)."""
    if np.allclose(spacing, target, rtol=tolerance, atol=0):
        return shape
    z, y, x = (max(1, round(n * s / t)) for n, s, t in zip(shape, spacing, target, strict=True))
    return z, y, x


def resample(array: np.ndarray, shape: Shape, orders: Orders = LINEAR) -> np.ndarray:
    """An image (C, Z, Y, X) at `shape` (z, y, x) voxels, float32.

    Order 1 interpolates linearly, 0 takes the nearest sample. An axis that shrinks is smoothed first, by a
    Gaussian of half the excess factor, against aliasing (not with order 0).
    """
    if array.shape[1:] == shape:
        return np.asarray(array, dtype=np.float32)
    out = np.empty((array.shape[0], *shape), dtype=np.float32)
    for box in boxes(shape, (_EDGE, _EDGE, _EDGE)):
        out[(slice(None), *box)] = resample_box(array, shape, box, orders)
    return out


def resample_box(source: Voxels, shape: Shape, box: Box, orders: Orders = LINEAR) -> np.ndarray:
    """The `box` of what `resample` makes of (C, Z, Y, X) at `shape`; only what it needs is read."""
    reads, matrices = _plan_box(source.shape[1:], shape, box, orders)
    return _mixed(np.asarray(source[(slice(None), *reads)], dtype=np.float32), matrices)


def resample_part(
    source: Voxels, shape: Shape, z: slice, y: slice, out: np.ndarray, orders: Orders = LINEAR
) -> None:
    """Fills `out` (C, z, y, X) with these slices and rows of what `resample` makes at `shape`."""
    extent = (z.stop - z.start, y.stop - y.start, shape[2])
    for box in boxes(extent, (_EDGE, _EDGE, _EDGE)):
        there = tuple(slice(b.start + s, b.stop + s) for b, s in zip(box, (z.start, y.start, 0), strict=True))
        out[(slice(None), *box)] = resample_box(source, shape, (there[0], there[1], there[2]), orders)


def needed(old: int, new: int, part: slice) -> slice:
    """The samples of an axis of `old` that `part` of the same axis at `new` samples is made of."""
    return part if old == new else _axis(old, new, part, 1)[0]


def resample_labels(labels: np.ndarray, shape: Shape) -> np.ndarray:
    """Class numbers (Z, Y, X) at `shape`: the class with the largest linearly interpolated share wins."""
    if labels.shape == shape:
        return labels
    out = np.empty(shape, dtype=labels.dtype)
    for box in boxes(shape, (_EDGE, _EDGE, _EDGE)):
        out[box] = resample_labels_box(labels[None], shape, box)[0]
    return out


def resample_labels_box(source: Voxels, shape: Shape, box: Box, *, overlapping: bool = False) -> np.ndarray:
    """A box of class numbers (C, Z, Y, X) at `shape`; only what it needs is read.

    Per channel the class with the largest linearly interpolated share wins, the lower one of two alike.
    With `overlapping` the channels hold 0 and 1, and a share of a half is a 1.
    """
    reads, matrices = _plan_box(source.shape[1:], shape, box, LINEAR)
    labels = source[(slice(None), *reads)]
    if all(matrix is None for matrix in matrices):
        return labels
    return np.stack([_largest_share(channel, matrices, overlapping=overlapping) for channel in labels])


Matrices = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]


def _largest_share(labels: np.ndarray, matrices: Matrices, *, overlapping: bool) -> np.ndarray:
    # the unannotated come last: a border between them and a class is that class's
    classes = sorted(np.unique(labels), key=lambda c: (c == IGNORED, -c if overlapping else c))
    best = np.full(_extent(labels.shape, matrices), classes[0], dtype=labels.dtype)
    if len(classes) == 1:
        return best
    most = np.zeros(best.shape, dtype=np.float32)
    for c in classes:
        share = _mixed((labels == c).astype(np.float32)[None], matrices)[0]
        # equal shares differ by rounding, which depends on the box that is read
        wins = share > most + 1e-5
        best[wins], most[wins] = c, share[wins]
    return best


def _extent(shape: tuple[int, ...], matrices: Matrices) -> tuple[int, ...]:
    return tuple(n if matrix is None else len(matrix) for n, matrix in zip(shape[-3:], matrices, strict=True))


def _plan_box(old: tuple[int, ...], new: Shape, box: Box, orders: Orders) -> tuple[Box, Matrices]:
    """What of the source a box needs, and the matrix of each axis; None where samples stay as they are."""
    reads, matrices = [], []
    for axis, part in enumerate(box):
        if old[axis] == new[axis]:
            reads.append(part)
            matrices.append(None)
            continue
        read, matrix = _axis(old[axis], new[axis], part, orders[axis])
        reads.append(read)
        matrices.append(matrix)
    return (reads[0], reads[1], reads[2]), (matrices[0], matrices[1], matrices[2])


def _axis(old: int, new: int, part: slice, order: Order) -> tuple[slice, np.ndarray]:
    """The input range that output samples `part` of an axis need, and the matrix (outputs, inputs)."""
    centres = (np.arange(part.start, part.stop) + 0.5) * old / new - 0.5
    if order == 0:
        nearest = np.clip(np.floor(centres + 0.5).astype(int), 0, old - 1)
        return _matrix(nearest[:, None], np.ones((len(nearest), 1)))
    centres = np.clip(centres, 0, old - 1)
    low = np.minimum(np.floor(centres).astype(int), max(0, old - 2))
    weight = centres - low
    offsets, bell = _gaussian(max(0.0, (old / new - 1) / 2))
    below, above = low[:, None] + offsets, low[:, None] + 1 + offsets
    indices = np.clip(np.concatenate([below, above], axis=1), 0, old - 1)
    weights = np.concatenate([np.outer(1 - weight, bell), np.outer(weight, bell)], axis=1)
    return _matrix(indices, weights)


def _gaussian(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and weights of a Gaussian cut at four standard deviations, as scipy's is."""
    reach = int(4 * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    bell = np.exp(-0.5 * (offsets / sigma) ** 2) if reach else np.ones(1)
    return offsets, bell / bell.sum()


def _matrix(indices: np.ndarray, weights: np.ndarray) -> tuple[slice, np.ndarray]:
    first, last = int(indices.min()), int(indices.max())
    matrix = np.zeros((len(indices), last - first + 1))
    np.add.at(matrix, (np.arange(len(indices))[:, None], indices - first), weights)
    return slice(first, last + 1), matrix.astype(np.float32)


def _mixed(array: np.ndarray, matrices: Matrices) -> np.ndarray:
    """(C, z, y, x) with each axis's samples mixed by its matrix."""
    z, y, x = matrices
    if z is not None:
        c, _, *plane = array.shape
        array = (z @ array.reshape(c, array.shape[1], -1)).reshape(c, len(z), *plane)
    if y is not None:
        array = y @ array
    if x is not None:
        array = array @ x.T
    return array


def coarser_factors(shape: Shape, spacing: Triple | None) -> tuple[int, int, int]:
    """Factors (1 or 2 per axis) to the next coarser level; all 1 when the volume is small enough.

    An axis that is already coarse (over 1.5 times the finest spacing) waits for the others; axes of up
    to 16 voxels are left.
    """
    size = spacing or (1.0, 1.0, 1.0)
    finest = min((s for s, n in zip(size, shape, strict=True) if n > 16), default=0.0)
    z, y, x = (2 if n > 16 and s <= 1.5 * finest else 1 for s, n in zip(size, shape, strict=True))
    return z, y, x


def pyramid(shape: Shape, spacing: Triple | None) -> list[tuple[Shape, Shape]]:
    """The levels of a store, finest first: factor (z, y, x) against the finest, and shape."""
    levels = [((1, 1, 1), shape)]
    size = np.array(spacing or (1.0, 1.0, 1.0))
    while True:
        factor, extent = levels[-1]
        z, y, x = size * factor
        step = coarser_factors(extent, (z, y, x))
        if step == (1, 1, 1):
            return levels
        z, y, x = (-(-n // s) for n, s in zip(extent, step, strict=True))
        fz, fy, fx = (f * s for f, s in zip(factor, step, strict=True))
        levels.append(((fz, fy, fx), (z, y, x)))


def coarsen_image(array: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """(C, Z, Y, X) averaged over blocks; the last block of an odd axis is averaged over what it has."""
    out = np.asarray(array, dtype=np.float32)
    for axis, factor in enumerate(factors, start=1):
        if factor == 2:
            out = _halved(out, axis)
    return out


def _halved(array: np.ndarray, axis: int) -> np.ndarray:
    """Means of neighbours along an axis; a last one without neighbour stays."""
    before = (slice(None),) * axis
    pairs = array.shape[axis] // 2
    first, second = (array[(*before, slice(start, 2 * pairs, 2))] for start in (0, 1))
    means = np.add(first, second)
    means *= 0.5
    return (
        means
        if array.shape[axis] == 2 * pairs
        else np.concatenate([means, array[(*before, slice(-1, None))]], axis)
    )
