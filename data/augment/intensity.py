"""Noise, blur, brightness, contrast, gamma and lost resolution, on z-scored patches."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings import Probability, settings
from .draws import Draws
from .operations import PositiveRange, Range


@settings
class Noise:
    """Gaussian noise of a variance drawn from `variance`, the same in all channels."""

    op: Literal["noise"] = "noise"
    probability: Probability = 0.1
    variance: Range = (0.0, 0.1)

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image with noise."""
        return image.add_(draws.normal(image), alpha=draws.within(self.variance) ** 0.5)


@settings
class Blur:
    """Gaussian blur by `sigma` voxels; each channel with `channel_probability` and a draw of its own."""

    op: Literal["blur"] = "blur"
    probability: Probability = 0.2
    channel_probability: Probability = 1.0
    sigma: PositiveRange = (0.5, 1.0)

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image with its channels blurred."""
        for channel in image:
            sigma = draws.within(self.sigma)
            if draws.chance(self.channel_probability):
                channel[:] = gaussian_blur(channel[None], sigma)[0]
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
    """Every channel spread around its mean by a factor of its own, within the range it had."""

    op: Literal["contrast"] = "contrast"
    probability: Probability = 0.15
    factor: PositiveRange = (0.75, 1.25)

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image with its channels spread."""
        for channel in image:
            channel[:] = change_contrast(channel[None], draws.factor(self.factor))[0]
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
            gamma = draws.factor(self.gamma)
            bent = (
                -change_gamma(-channel[None], gamma) if self.inverted else change_gamma(channel[None], gamma)
            )
            channel[:] = bent[0]
        return image


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """(C, Z, Y, X) blurred by `sigma` voxels along each axis, borders continued by their edge values."""
    radius = max(1, round(3 * sigma))
    x = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    out = image[:, None]
    for axis in range(3):
        shape, pad = [1, 1, 1, 1, 1], [0] * 6
        shape[2 + axis] = len(kernel)
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = radius
        out = F.conv3d(F.pad(out, pad, mode="replicate"), kernel.view(shape))
    return out[:, 0]


def change_contrast(image: Tensor, factor: float) -> Tensor:
    """(C, Z, Y, X) spread around its mean by `factor`, kept within the range it had."""
    dims = (1, 2, 3)
    mean = image.mean(dims, keepdim=True)
    low, high = image.amin(dims, keepdim=True), image.amax(dims, keepdim=True)
    return ((image - mean) * factor + mean).clamp(low, high)


def change_gamma(image: Tensor, gamma: float) -> Tensor:
    """(C, Z, Y, X) raised to `gamma` within its own range; mean and standard deviation are kept."""
    dims = (1, 2, 3)
    mean, std = image.mean(dims, keepdim=True), image.std(dims, keepdim=True, correction=0)
    low = image.amin(dims, keepdim=True)
    extent = (image.amax(dims, keepdim=True) - low).clamp_min(1e-7)
    out = ((image - low) / extent) ** gamma
    spread = out.std(dims, keepdim=True, correction=0).clamp_min(1e-7)
    return (out - out.mean(dims, keepdim=True)) / spread * std + mean
