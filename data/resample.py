"""Resampling whole volumes to another voxel size.

The corners of the volume stay where they are and voxel centres shift accordingly (`grid_mode`), which is
the convention of nnU-Net and of `align_corners=False`.
"""

import numpy as np
from scipy import ndimage

from .volume import Shape, Triple


def resampled_shape(shape: Shape, spacing: Triple, target: Triple, tolerance: float) -> Shape:
    """Shape at the `target` spacing; `shape` itself where all axes agree within `tolerance` (relative)."""
    if np.allclose(spacing, target, rtol=tolerance, atol=0):
        return shape
    z, y, x = (max(1, round(n * s / t)) for n, s, t in zip(shape, spacing, target, strict=True))
    return z, y, x


def resample(array: np.ndarray, shape: Shape, order: int = 1) -> np.ndarray:
    """An image (C, Z, Y, X) at `shape` (z, y, x) voxels, float32, by splines of `order`.

    An axis that shrinks is smoothed first, by a Gaussian of half the excess factor, against aliasing.
    """
    array = np.asarray(array, dtype=np.float32)
    if array.shape[1:] == shape:
        return array
    zoom = [new / old for new, old in zip(shape, array.shape[1:], strict=True)]
    sigma = [max(0.0, (1 / z - 1) / 2) for z in zoom]
    out = np.empty((array.shape[0], *shape), dtype=np.float32)
    for c, channel in enumerate(array):
        smooth = ndimage.gaussian_filter(channel, sigma, mode="nearest") if any(sigma) else channel
        ndimage.zoom(smooth, zoom, output=out[c], order=order, mode="nearest", grid_mode=True)
    return out


def resample_labels(labels: np.ndarray, shape: Shape, classes: int) -> np.ndarray:
    """Class numbers (Z, Y, X) at `shape`: the class with the largest linearly interpolated share wins."""
    if labels.shape == shape:
        return labels
    zoom = [new / old for new, old in zip(shape, labels.shape, strict=True)]
    best = np.zeros(shape, dtype=labels.dtype)
    share, most = np.empty(shape, dtype=np.float32), np.full(shape, -1.0, dtype=np.float32)
    for c in range(classes):
        is_class = (labels == c).astype(np.float32)
        ndimage.zoom(is_class, zoom, output=share, order=1, mode="nearest", grid_mode=True)
        wins = share > most
        best[wins], most[wins] = c, share[wins]
    return best


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
    for axis, f in enumerate(factors, start=1):
        if f == 1:
            continue
        starts = np.arange(0, out.shape[axis], f)
        counts = np.diff(np.append(starts, out.shape[axis])).astype(np.float32)
        sums = np.add.reduceat(out, starts, axis=axis)
        out = sums / counts.reshape([-1 if a == axis else 1 for a in range(4)])
    return out


def coarsen_labels(labels: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """(Z, Y, X) class numbers, every second voxel where the factor is 2 (nearest, no class is invented)."""
    z, y, x = factors
    return np.ascontiguousarray(labels[::z, ::y, ::x])
