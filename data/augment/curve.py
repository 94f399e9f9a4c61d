"""Grey values mapped through a random smooth curve."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..settings import Probability, settings
from .draws import Draws

# straight pieces that a curve is made of
_PIECES = 4096


@settings
class Curve:
    """Every channel's range mapped onto itself by a Bezier curve of its own, as Models Genesis does.

    Source: Zhou et al. 2021, https://doi.org/10.1016/j.media.2020.101840, section 3.1: a cubic curve from
    (0, 0) to (1, 1) with two control points anywhere between. Such a curve never falls; with
    `inversion_probability` it is mirrored and never rises. Differs from it: the range is the channel's
    smallest to largest value (there, CT values cut to 0 to 1).
    """

    op: Literal["curve"] = "curve"
    probability: Probability = 0.9
    inversion_probability: Probability = 0.5

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image with its channels mapped."""
        for channel in image:
            controls = draws.numbers.random((2, 2))
            table = bezier(controls)
            bend(channel, table[::-1] if draws.chance(self.inversion_probability) else table)
        return image


def bezier(controls: np.ndarray) -> np.ndarray:
    """The heights, at evenly spaced places from 0 to 1, of the curve with two control points (2, 2: x, y)."""
    # t close to both ends, where a curve can be upright
    t = (1 - np.cos(np.linspace(0, np.pi, 2 * _PIECES)))[:, None] / 2
    points = 3 * (1 - t) ** 2 * t * controls[0] + 3 * (1 - t) * t**2 * controls[1] + t**3
    return np.interp(np.linspace(0, 1, _PIECES + 1), points[:, 0], points[:, 1]).astype(np.float32)


def bend(image: Tensor, table: np.ndarray) -> Tensor:
    """(Z, Y, X) itself, its range mapped onto itself by straight pieces between the heights (from 0 to 1)."""
    low, high = image.aminmax()
    heights = torch.from_numpy(np.ascontiguousarray(table)).to(image.device)
    heights = heights * (high - low) + low
    # no step follows the last height
    steps, pieces = torch.cat([heights.diff(), torch.zeros_like(heights[:1])]), len(table) - 1
    place = image.sub_(low).mul_(pieces / (high - low).clamp_min(1e-7)).clamp_(0, pieces).flatten()
    # index_select by int32 takes a third of the time of other ways to look up
    piece = place.int()
    bent = steps.index_select(0, piece).mul_(place.frac_()).add_(heights.index_select(0, piece))
    return image.copy_(bent.view_as(image))
