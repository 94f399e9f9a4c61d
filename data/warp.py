"""A patch cut from a box by one map, everything spatial in a single pass."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .volume import Shape


def warp(
    box: Tensor, affine: np.ndarray, shape: Shape, *, outside: float = 0.0, displacement: Tensor | None = None
) -> Tensor:
    """The patch (C, *shape) of a box (C, z, y, x): linear interpolation, `outside` beyond the border.

    Args:
        box: float32, on any device.
        affine: (3, 4), from indices (z, y, x, 1) of the patch's voxels to those of the box's, whose centres
            are whole numbers.
        shape: of the patch.
        outside: what lies beyond the border; within one voxel of it both are mixed.
        displacement: (3, *shape), in voxels of the box, added to where the map leads.
    """
    return _sampled(box, _places(affine, shape, box.device, displacement), outside, "bilinear")


def warp_labels(
    box: Tensor, affine: np.ndarray, shape: Shape, *, outside: int = 0, displacement: Tensor | None = None
) -> Tensor:
    """The same of whole numbers (C, z, y, x): each voxel takes the nearest."""
    places = _places(affine, shape, box.device, displacement)
    return _sampled(box.float(), places, outside, "nearest").to(box.dtype)


def _places(affine: np.ndarray, shape: Shape, device: torch.device, displacement: Tensor | None) -> Tensor:
    """Where in the box (voxels) the patch's voxels lie: (*shape, 3)."""
    axes = [torch.arange(n, dtype=torch.float64, device=device) for n in shape]
    indices = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    matrix = torch.from_numpy(affine).to(device)
    places = indices @ matrix[:, :3].T + matrix[:, 3]
    return places if displacement is None else places + displacement.permute(1, 2, 3, 0)


def _sampled(box: Tensor, places: Tensor, outside: float, mode: str) -> Tensor:
    extent = torch.tensor(box.shape[1:], dtype=torch.float64, device=box.device)
    # grid_sample's coordinates: x first, -1 to 1 between outer edges
    grid = ((places * 2 + 1) / extent - 1).flip(-1).to(box)
    return F.grid_sample((box - outside)[None], grid[None], mode=mode, align_corners=False)[0] + outside
