"""Random noise, blur, brightness, contrast and gamma on z-scored patches."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..settings import Probability, settings

Range = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]


@settings
class IntensityConfig:
    """Ranges and probabilities per patch; defaults follow nnU-Net (Isensee et al. 2021, supplement 4)."""

    noise_variance: Range = (0.0, 0.1)
    noise_probability: Probability = 0.1
    blur_sigma: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.5, 1.0)
    blur_probability: Probability = 0.2
    brightness: Range = (0.75, 1.25)
    brightness_probability: Probability = 0.15
    contrast: Range = (0.75, 1.25)
    contrast_probability: Probability = 0.15
    gamma: Range = (0.7, 1.5)
    gamma_probability: Probability = 0.3
    inverted_gamma_probability: Probability = 0.1


def change_intensity(images: Tensor, config: IntensityConfig, generator: torch.Generator) -> Tensor:
    """The patches (B, C, Z, Y, X) with each one's intensities changed by its own draw."""
    # a generator for each: what is done to one patch never shifts the draws of the next
    seeds = torch.randint(2**62, (len(images),), generator=generator).tolist()
    own = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([_change(image, config, g) for image, g in zip(images, own, strict=True)])


def _change(image: Tensor, config: IntensityConfig, generator: torch.Generator) -> Tensor:
    # every number is drawn whether used or not: one probability then never shifts the others' draws
    chance = torch.rand(6, generator=generator).tolist()
    share = torch.rand(6, generator=generator).tolist()
    if chance[0] < config.noise_probability:
        std = _within(config.noise_variance, share[0]) ** 0.5
        image = image + std * torch.randn(image.shape, generator=generator).to(image)
    if chance[1] < config.blur_probability:
        image = gaussian_blur(image, _within(config.blur_sigma, share[1]))
    if chance[2] < config.brightness_probability:
        image = image * _within(config.brightness, share[2])
    if chance[3] < config.contrast_probability:
        image = change_contrast(image, _within(config.contrast, share[3]))
    if chance[4] < config.inverted_gamma_probability:
        image = -change_gamma(-image, _within(config.gamma, share[4]))
    if chance[5] < config.gamma_probability:
        image = change_gamma(image, _within(config.gamma, share[5]))
    return image


def _within(limits: tuple[float, float], share: float) -> float:
    return limits[0] + share * (limits[1] - limits[0])


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
