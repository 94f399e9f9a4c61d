"""How much each voxel of a window counts.

Source: nnU-Net (Isensee et al. 2021): a Gaussian of an eighth of the window's extent, because a network is
surest in the middle of what it sees.
"""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from ..data.volume import Shape


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
