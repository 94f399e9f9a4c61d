"""Noise, blur, brightness, contrast and gamma of z-scored patches."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..settings import Probability, settings
from .draws import Draws
from .moments import centre, restore
from .operations import PositiveRange, Range


@settings
class Noise:
    """Gaussian noise of a standard deviation drawn from `deviation`, the same in all channels."""

    op: Literal["noise"] = "noise"
    probability: Probability = 0.1
    deviation: Range = (0.0, 0.1)

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image with noise."""
        return image.add_(draws.normal(image), alpha=draws.within(self.deviation))


@settings
class Blur:
    """Gaussian blur; each channel with `channel_probability` and a draw of its own.

    `sigma` is in voxels, drawn for each axis.
    """

    op: Literal["blur"] = "blur"
    probability: Probability = 0.2
    channel_probability: Probability = 1.0
    sigma: PositiveRange = (0.5, 1.0)

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image with its channels blurred."""
        for channel in image:
            sigmas = draws.within(self.sigma), draws.within(self.sigma), draws.within(self.sigma)
            if draws.chance(self.channel_probability):
                gaussian_blur(channel, sigmas)
        return image


@settings
class Brightness:
    """Every channel times a factor of its own."""

    op: Literal["brightness"] = "brightness"
    probability: Probability = 0.15
    factor: PositiveRange = (0.75, 1.25)

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image with its channels multiplied."""
        for channel in image:
            channel.mul_(draws.factor(self.factor))
        return image


@settings
class Contrast:
    """Every channel spread around its mean by a factor of its own.

    `channel_probability` is how often a channel is changed; `keeps_range` cuts off what leaves the range that
    the channel had.
    """

    op: Literal["contrast"] = "contrast"
    probability: Probability = 0.15
    channel_probability: Probability = 1.0
    factor: PositiveRange = (0.75, 1.25)
    keeps_range: bool = True

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image with its channels spread."""
        for channel in image:
            factor = draws.factor(self.factor)
            if draws.chance(self.channel_probability):
                change_contrast(channel, factor, keeps_range=self.keeps_range)
        return image


@settings
class Gamma:
    """Every channel raised to a power of its own within its range; mean and deviation are kept.

    `inverted` turns the grey values round first, so that the bright end is bent.
    """

    op: Literal["gamma"] = "gamma"
    probability: Probability = 0.3
    gamma: PositiveRange = (0.7, 1.5)
    inverted: bool = False

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image with its channels bent."""
        for channel in image:
            change_gamma(channel, draws.factor(self.gamma), inverted=self.inverted)
        return image


def gaussian_blur(image: Tensor, sigmas: tuple[float, float, float]) -> Tensor:
    """(Z, Y, X) itself, blurred by so many voxels along each axis, cut off at three times as many.

    Borders are continued by their edge values (nnU-Net mirrors them).
    """
    # shifted sums: on a CPU four times as fast as torch's convolutions of one channel
    spare = torch.empty_like(image)
    _blur_axis(image, 0, sigmas[0], out=spare)
    _blur_axis(spare, 1, sigmas[1], out=image)
    _blur_axis(image, 2, sigmas[2], out=spare)
    return image.copy_(spare)


def _blur_axis(image: Tensor, axis: int, sigma: float, out: Tensor) -> None:
    radius, n = max(1, round(3 * sigma)), image.shape[axis]
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    weights /= 2 * weights.sum() - weights[0]
    torch.mul(image, float(weights[0]), out=out)
    first, last = image.narrow(axis, 0, 1), image.narrow(axis, n - 1, 1)
    for shift, weight in enumerate(weights[1:].tolist(), start=1):
        k = min(shift, n)
        out.narrow(axis, 0, n - k).add_(image.narrow(axis, k, n - k), alpha=weight)
        out.narrow(axis, k, n - k).add_(image.narrow(axis, 0, n - k), alpha=weight)
        out.narrow(axis, 0, k).add_(first, alpha=weight)
        out.narrow(axis, n - k, k).add_(last, alpha=weight)


def change_contrast(image: Tensor, factor: float, *, keeps_range: bool = True) -> Tensor:
    """(Z, Y, X) itself, spread around its mean by `factor`, cut to the range it had if `keeps_range`."""
    mean = image.mean()
    low, high = image.aminmax()
    image.mul_(factor).add_(mean * (1 - factor))
    if keeps_range:
        # ten times as fast as clamp_ with tensors, and nothing waits for a GPU
        torch.maximum(image, low, out=image)
        torch.minimum(image, high, out=image)
    return image


def change_gamma(image: Tensor, gamma: float, *, inverted: bool = False) -> Tensor:
    """(Z, Y, X) itself, raised to `gamma` within its own range; mean and standard deviation are kept."""
    sign = -1.0 if inverted else 1.0
    low, high = image.aminmax()
    mean, deviation = centre(image)
    # the dark end comes to 0, or the bright end where inverted; rounding may not lead below
    image.sub_((high if inverted else low) - mean).mul_(sign / (high - low).clamp_min(1e-7)).clamp_(0, 1)
    # a power, at a quarter of the time of `pow`
    image.log2_().mul_(gamma).exp2_()
    restore(image, mean, sign * deviation)
    return image
