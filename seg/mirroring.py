"""Test-time augmentation by mirroring.

Source: nnU-Net (Isensee et al. 2021): the output is the mean over all flips. nnU-Net flips the axes that its
training flipped; here all three are flipped or none, as a training tells of no axes.
"""

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

_AXES = (2, 3, 4)
FLIPS = tuple(axes for count in range(4) for axes in combinations(_AXES, count))


def mirrored(predict: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`predict`, from (B, C, Z, Y, X) to (B, K, Z, Y, X), averaged over the eight flips of its input."""

    def mean(images: Tensor) -> Tensor:
        total = predict(images).clone()
        for axes in FLIPS[1:]:
            total += torch.flip(predict(torch.flip(images, axes)), axes)
        return total.div_(len(FLIPS))

    return mean
