"""Brightness that varies slowly over an image, as a receive coil of an MRI makes it."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..settings import Probability, settings
from .draws import Draws
from .moments import centre, restore


@settings
class BiasField:
    """Channels times the exponential of a random polynomial in z, y and x, all channels times the same.

    Source: Van Leemput et al. 1999, https://doi.org/10.1109/42.811268, as TorchIO's RandomBiasField: each
    coefficient is drawn evenly between -`coefficient` and `coefficient`, and coordinates reach from -1 to 1.
    Differs from it: grey values here have a mean of 0, and a field would darken what is below it where it
    brightens the rest. So it is applied to the distance from each channel's smallest value, its darkest
    place, and (`keeps_moments`) the channel's mean and deviation are restored.
    """

    op: Literal["bias_field"] = "bias_field"
    probability: Probability = 0.15
    order: Annotated[int, Field(ge=0, le=8)] = 3
    coefficient: Annotated[float, Field(ge=0, le=2)] = 0.5
    keeps_moments: bool = True

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image with its channels shaded."""
        coefficients = draws.numbers.uniform(-self.coefficient, self.coefficient, _terms(self.order))
        field = bias_field(image[0], coefficients, self.order)
        for channel in image:
            shade(channel, field, keeps_moments=self.keeps_moments)
        return image


def _terms(order: int) -> int:
    return math.comb(order + 3, 3)


def bias_field(like: Tensor, coefficients: Sequence[float] | np.ndarray, order: int) -> Tensor:
    """The field (Z, Y, X) on the device of a tensor of that shape.

    Coefficients are those of z^a y^b x^c with a + b + c up to `order`, in the order of a, then b, then c.
    """
    n = order + 1
    cube = np.zeros((n, n, n))
    cube[np.indices(cube.shape).sum(0) <= order] = coefficients
    z, y, x = (np.vander(_coordinates(extent), n, increasing=True) for extent in like.shape)
    planes = (y @ (z @ cube.reshape(n, n * n) / math.log(2)).reshape(-1, n, n)).astype(np.float32)
    rows = torch.from_numpy(x.T.astype(np.float32)).to(like.device)
    return (torch.from_numpy(planes).to(like.device) @ rows).exp2_()


def _coordinates(n: int) -> np.ndarray:
    """The middles of `n` voxels, the outer ones at -1 and 1; 0 where there is but one."""
    return (2 * np.arange(n) - (n - 1)) / max(1, n - 1)


def shade(image: Tensor, field: Tensor, *, keeps_moments: bool = True) -> Tensor:
    """(Z, Y, X) itself, its distance from its smallest value multiplied by the field."""
    low = image.amin()
    if not keeps_moments:
        return image.sub_(low).mul_(field).add_(low)
    mean, deviation = centre(image)
    image.sub_(low - mean).mul_(field)
    restore(image, mean, deviation)
    return image
