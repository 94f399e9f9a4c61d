"""Random rotation, scaling and flips, composed into one map per patch."""

# Shapes: B = batch, C = channels, K = margin-enlarged extent of the read box.

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..settings import Probability, settings
from ..volume import Shape, Triple


@settings
class SpatialConfig:
    """How patches are turned; defaults follow nnU-Net (Isensee et al. 2021, supplement 4).

    nnU-Net rotates by up to 30 degrees with probability 0.2 and scales by 0.7 to 1.4 with probability
    0.2; the scale is drawn log-uniformly here, so that shrinking and growing are as likely. It flips every
    axis with probability 0.5; None here leaves the choice to the training (see `training.flip_probability`).
    """

    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 30.0
    rotation_probability: Probability = 0.2
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.7, 1.4)
    scale_probability: Probability = 0.2
    flip_probability: Probability | None = None


# beyond this ratio of voxel sizes, or of a patch's extents (nnU-Net), only turns within the plane are made:
# others would mix slices that are far apart, or turn a thin patch out of what was read
_ANISOTROPIC = 3.0
# a patch turned by 30 degrees reaches over its own box by up to this factor
_TURNED = 1.37


def read_size(patch: Shape, config: SpatialConfig) -> Shape:
    """Extent (z, y, x) to read for a patch, so that a turned or a shrunk one finds voxels in its corners.

    One that is both shrunk and turned may still reach out of it, where it becomes 0. The difference is an
    even number of voxels, which keeps voxel centres on voxel centres where nothing turns.
    """
    factor = 1.0
    if config.rotation_probability > 0:
        factor = _TURNED
    if config.scale_probability > 0:
        factor = max(factor, 1 / config.scale[0])
    z, y, x = (n if n == 1 else n + 2 * math.ceil(n * (factor - 1) / 2) for n in patch)
    return z, y, x


def random_maps(
    batch: int, patch: Shape, spacing: Triple | None, config: SpatialConfig, generator: torch.Generator
) -> Tensor:
    """Maps (B, 3, 3) from voxel offsets in the patch to voxel offsets in the box, around the centres.

    Turns happen in physical space, so that an anisotropic volume is not sheared.
    """
    size = torch.tensor(spacing or (1.0, 1.0, 1.0), dtype=torch.float64)
    axis = _only_axis(patch, size)
    maps = [_random_map(size, axis, config, generator) for _ in range(batch)]
    return torch.stack(maps)


def _only_axis(patch: Shape, size: Tensor) -> int | None:
    """The one axis to turn around, where the patch or its voxels are too anisotropic for the others."""
    if size.max() / size.min() > _ANISOTROPIC:
        return int(size.argmax())
    return patch.index(min(patch)) if max(patch) / min(patch) > _ANISOTROPIC else None


def _random_map(size: Tensor, axis: int | None, config: SpatialConfig, generator: torch.Generator) -> Tensor:
    # every number is drawn whether used or not: one probability then never shifts the others' draws
    chance = torch.rand(5, generator=generator, dtype=torch.float64)
    angles = torch.rand(3, generator=generator, dtype=torch.float64) * 2 - 1
    share = torch.rand(1, generator=generator, dtype=torch.float64).item()
    turn = torch.eye(3, dtype=torch.float64)
    if chance[0] < config.rotation_probability:
        turn = _rotation(angles * math.radians(config.rotation_degrees), size, axis)
    zoom = 1.0
    if chance[1] < config.scale_probability:
        low, high = (math.log(s) for s in config.scale)
        zoom = math.exp(low + share * (high - low))
    flips = torch.where(chance[2:] < (config.flip_probability or 0.0), -1.0, 1.0).double()
    return turn @ torch.diag(flips) / zoom


def _rotation(angles: Tensor, size: Tensor, axis: int | None) -> Tensor:
    turn = torch.eye(3, dtype=torch.float64)
    for a in range(3):
        if axis is not None and a != axis:
            continue
        i, j = (k for k in range(3) if k != a)
        c, s = math.cos(angles[a]), math.sin(angles[a])
        one = torch.eye(3, dtype=torch.float64)
        one[i, i], one[i, j], one[j, i], one[j, j] = c, -s, s, c
        turn = one @ turn
    return torch.diag(1 / size) @ turn @ torch.diag(size)


def apply_maps(
    box: Tensor, maps: Tensor, patch: Shape, *, shifts: Tensor | None = None, nearest: bool = False
) -> Tensor:
    """The patches (B, C, *patch) that `maps` cut from boxes (B, C, K, K, K); 0 outside the box.

    `shifts` (B, 3), in voxels of the box, are the places of the patches' centres from the boxes' centres.
    """
    grid = _grid(maps, tuple(box.shape[2:]), patch, shifts).to(box)
    mode = "nearest" if nearest else "bilinear"
    return F.grid_sample(box, grid, mode=mode, padding_mode="zeros", align_corners=False)


def _grid(maps: Tensor, box: tuple[int, ...], patch: Shape, shifts: Tensor | None) -> Tensor:
    """Sampling places (B, *patch, 3) in grid_sample's coordinates: x first, -1 to 1 between outer edges."""
    axes = [torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in patch]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    places = torch.einsum("bij,zyxj->bzyxi", maps, offsets)
    if shifts is not None:
        places = places + shifts.view(-1, 1, 1, 1, 3)
    extent = torch.tensor(box, dtype=torch.float64)
    return (places * 2 / extent).flip(-1)
