"""An image as if it had been taken with larger voxels."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor

from ..settings import Probability, settings
from ..volume import Shape
from .draws import Draws
from .operations import ascending

# beyond this ratio of a patch's extents its slices lie far apart (nnU-Net's threshold for anisotropy)
_THIN = 3.0
Scale = Annotated[float, Field(gt=0, le=1)]


@settings
class LowResolution:
    """Channels shrunk by taking the nearest voxels, and brought back to their size linearly.

    Source: the SimulateLowResolutionTransform of nnU-Net 2 (batchgeneratorsv2), and with `axes: one`, which
    draws a single axis, TorchIO's RandomAnisotropy. `scale` is what is left of the number of voxels along an
    axis. `keeps_thin` leaves out the axes along which a patch has less than a third of its largest extent:
    their slices lie far apart already.
    """

    op: Literal["low_resolution"] = "low_resolution"
    probability: Probability = 0.25
    channel_probability: Probability = 0.5
    scale: Annotated[tuple[Scale, Scale], AfterValidator(ascending)] = (0.5, 1.0)
    axes: Literal["all", "one"] = "all"
    keeps_thin: bool = True

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image with its channels made coarser."""
        z, y, x = image.shape[1:]
        axes = [a for a, n in enumerate((z, y, x)) if not self.keeps_thin or _THIN * n >= max(z, y, x)]
        for channel in image:
            scale = draws.within(self.scale)
            one = axes[draws.integer(0, len(axes) - 1)]
            chosen = axes if self.axes == "all" else [one]
            if draws.chance(self.channel_probability):
                size = [max(1, round(n * scale)) if a in chosen else n for a, n in enumerate((z, y, x))]
                channel.copy_(coarsened(channel, (size[0], size[1], size[2])))
        return image


def coarsened(image: Tensor, size: Shape) -> Tensor:
    """(Z, Y, X) as it is after being brought to `size` (nearest) and back (linear, axis by axis)."""
    result = F.interpolate(image[None, None], size, mode="nearest-exact")[0, 0]
    if size[2] != image.shape[2]:
        result = F.interpolate(result, image.shape[2], mode="linear")
    for axis in (1, 0):
        if size[axis] != image.shape[axis]:
            result = _stretched(result, axis, image.shape[axis])
    return result


def _stretched(image: Tensor, axis: int, n: int) -> Tensor:
    """Linear interpolation along one axis to `n` voxels: whole rows at once, thrice as fast as torch's."""
    m, middles = image.shape[axis], torch.arange(n, device=image.device) + 0.5
    place = (middles * (m / n) - 0.5).clamp(0, m - 1)
    before = place.int()
    shape = [1, 1, 1]
    shape[axis] = n
    share = (place - before).to(image).view(shape)
    following = image.index_select(axis, (before + 1).clamp_max(m - 1))
    return image.index_select(axis, before).mul_(1 - share).addcmul_(following, share)
