"""KoLeo: points that spread over the sphere, by the distance of each to its nearest other one.

Source: Sablayrolles et al. 2019, "Spreading vectors for similarity search",
https://arxiv.org/abs/1806.03198: the differential entropy, as Kozachenko and Leonenko estimate it. We
differ from it in that 1e-6 is added to squared distances, so that value and gradient stay finite where
points coincide.
"""

# Shapes: N = points, D = embedding size.

import math

import torch
from torch import Tensor

# of points that are nearer than about a third of that, float32 cannot tell from cosines which is the nearest
APART = 1e-3


def koleo_loss(points_ND: Tensor) -> Tensor:
    """The mean of -log of the distance of each unit vector to its nearest other one, shape ().

    It is 0 for a single point, which has no other, and at most -log(1e-3). Points that coincide have no
    direction to part in: there the gradient is 0.
    """
    points_ND = points_ND.float()
    if len(points_ND) < 2:
        return 0 * points_ND.sum()
    with torch.no_grad(), torch.autocast(points_ND.device.type, enabled=False):
        nearest_N = (points_ND @ points_ND.T).fill_diagonal_(-math.inf).argmax(dim=1)
    squared_N = (points_ND - points_ND[nearest_N]).square().sum(dim=1)
    return -0.5 * (squared_N + APART**2).log().mean()
