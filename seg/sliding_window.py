"""Predicting a volume larger than the patch, window by window.

Source: nnU-Net (Isensee et al. 2021): windows overlap by half, each weighted by a Gaussian of an eighth
of its extent, because a network is surest in the middle of what it sees.
"""

# Shapes: C = channels, K = classes.

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from ..data.volume import Shape


def stitch(
    predict: Callable[[Tensor], Tensor], image: Tensor, patch: Shape, *, overlap: float = 0.5
) -> Tensor:
    """`predict` applied to windows of `image` and averaged, (K, Z, Y, X) float32 on the CPU.

    Args:
        predict: from (1, C, *patch) to (1, K, *patch).
        image: (C, Z, Y, X); padded with 0 (the mean after z-scoring) where it is smaller than the patch.
        patch: extent of a window (z, y, x).
        overlap: least share of a window's extent that lies in the next one, in [0, 1).
    """
    padded, inner = _padded(image, patch)
    weight = gaussian(patch)
    total, weights = torch.zeros(0), torch.zeros(padded.shape[1:])
    for window in windows(tuple(padded.shape[1:]), patch, overlap):
        out = predict(padded[(slice(None), *window)][None])[0].float().cpu()
        if not total.numel():
            total = torch.zeros((out.shape[0], *padded.shape[1:]))
        total[(slice(None), *window)] += out * weight
        weights[window] += weight
    return (total / weights)[(slice(None), *inner)]


def windows(shape: tuple[int, ...], patch: Shape, overlap: float) -> Iterator[tuple[slice, ...]]:
    """Windows that cover `shape`, evenly spread; each axis must be at least as long as the patch."""
    starts = [_starts(n, p, overlap) for n, p in zip(shape, patch, strict=True)]
    for corner in product(*starts):
        yield tuple(slice(s, s + p) for s, p in zip(corner, patch, strict=True))


def _starts(extent: int, patch: int, overlap: float) -> list[int]:
    if extent == patch:
        return [0]
    step = max(1, int(patch * (1 - overlap)))
    count = -(-(extent - patch) // step) + 1
    return [round(i * (extent - patch) / (count - 1)) for i in range(count)]


def gaussian(patch: Shape) -> Tensor:
    """Weights (Z, Y, X) of nnU-Net's windows, never 0 so that every voxel is counted.

    They are nnU-Net's to the last digit, which has them in half precision with 10 at voxel n // 2: where
    windows disagree, other weights would give other masks than it does with the same network.
    """
    axes = []
    for n in patch:
        peak = np.zeros(n)
        peak[n // 2] = 1
        bell = gaussian_filter1d(peak, n / 8, mode="constant")
        axes.append(torch.from_numpy(bell / bell.max()))
    z, y, x = axes
    weight = (10 * z[:, None, None] * y[None, :, None] * x[None, None, :]).half()
    return torch.where(weight > 0, weight, weight[weight > 0].min()).float()


def _padded(image: Tensor, patch: Shape) -> tuple[Tensor, tuple[slice, ...]]:
    """The image at least as large as the patch, and where it lies in that."""
    missing = [max(0, p - n) for p, n in zip(patch, image.shape[1:], strict=True)]
    before = [m // 2 for m in missing]
    inner = tuple(slice(b, b + n) for b, n in zip(before, image.shape[1:], strict=True))
    if not any(missing):
        return image, inner
    padding = [p for b, m in zip(reversed(before), reversed(missing), strict=True) for p in (b, m - b)]
    return torch.nn.functional.pad(image, padding), inner
