"""A patch cut from a box by one map, everything spatial in a single pass.

On the CPU by compiled code that reads only what it needs, on other devices by torch's `grid_sample`. Both
agree with scipy.ndimage.map_coordinates (order 1 or 0, mode "grid-constant").
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .volume import Shape

_NO_DISPLACEMENT = np.empty((3, 0, 0, 0), np.float32)


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
        displacement: (3, *shape) float32, in voxels of the box, added to where the map leads.

    Raises ValueError for a map that is not finite.
    """
    _check(affine)
    whole = _whole_voxels(box, affine, shape) if displacement is None else None
    if whole is not None:
        return whole
    if not _on_cpu(box):
        places = _places(affine, shape, box.device, displacement)
        return _sampled(box, places, outside, "bilinear")
    # numba takes half a second to import
    from . import warp_compiled

    out = np.empty((len(box), *shape), np.float32)
    if box.shape[1] == 1 and not affine[0].any():
        # a single slice takes the fast way when it has a neighbour
        box = box.expand(-1, 2, -1, -1)
    voxels = np.ascontiguousarray(box.numpy())
    if displacement is None:
        warp_compiled.linear(voxels, affine, np.float32(outside), out)
    else:
        warp_compiled.linear_displaced(voxels, affine, displacement.numpy(), np.float32(outside), out)
    return torch.from_numpy(out)


def warp_labels(
    box: Tensor,
    affine: np.ndarray,
    shape: Shape,
    *,
    outside: int = 0,
    displacement: Tensor | None = None,
    by_share: bool = False,
) -> Tensor:
    """The same of whole numbers (C, z, y, x): each voxel takes the nearest.

    With `by_share` it takes the number with the largest linearly interpolated share (one-hot), of two alike
    the lower one.
    """
    _check(affine)
    whole = _whole_voxels(box, affine, shape) if displacement is None else None
    if whole is not None:
        return whole
    if not _on_cpu(box):
        places = _places(affine, shape, box.device, displacement)
        return _shares(box, places, outside) if by_share else _nearest(box, places, outside)
    from . import warp_compiled

    fill = warp_compiled.largest_share if by_share else warp_compiled.nearest
    moved = _NO_DISPLACEMENT if displacement is None else displacement.numpy()
    out = np.empty((len(box), *shape), box.numpy().dtype)
    fill(np.ascontiguousarray(box.numpy()), affine, moved, outside, out)
    return torch.from_numpy(out)


def _check(affine: np.ndarray) -> None:
    # compiled code does not look where it reads
    if not np.isfinite(affine).all():
        raise ValueError(f"no patch can be cut by a map that is not finite: {affine.tolist()}")


def _on_cpu(box: Tensor) -> bool:
    return box.device.type == "cpu"


def on_voxels(affine: np.ndarray) -> bool:
    """Whether a map (3, 4) leads from voxels to voxels as they follow one another, flipped or not."""
    signs = np.diagonal(affine).round()
    plain = np.column_stack([np.diag(signs), affine[:, 3].round()])
    return bool((np.abs(signs) == 1).all() and np.abs(affine - plain).max() <= 1e-9)


def _whole_voxels(box: Tensor, affine: np.ndarray, shape: Shape) -> Tensor | None:
    """The patch where it is a piece of the box, flipped or not, and nothing is interpolated."""
    if not on_voxels(affine):
        return None
    signs, shift = np.diagonal(affine).round(), affine[:, 3].round()
    last = shift + signs * (np.array(shape) - 1)
    low, high = np.minimum(shift, last).astype(int), np.maximum(shift, last).astype(int) + 1
    if (low < 0).any() or (high > box.shape[1:]).any():
        return None
    piece = box[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    flipped = [axis + 1 for axis in range(3) if signs[axis] < 0]
    return piece.flip(flipped) if flipped else piece.clone(memory_format=torch.contiguous_format)


def _places(affine: np.ndarray, shape: Shape, device: torch.device, displacement: Tensor | None) -> Tensor:
    """Where in the box (voxels) the patch's voxels lie: (*shape, 3)."""
    axes = [torch.arange(n, dtype=torch.float64, device=device) for n in shape]
    indices = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    matrix = torch.from_numpy(affine).to(device)
    places = indices @ matrix[:, :3].T + matrix[:, 3]
    return places if displacement is None else places + displacement.permute(1, 2, 3, 0)


def _sampled(box: Tensor, places: Tensor, outside: float, mode: str) -> Tensor:
    # in float32, a place at the border may come to lie a millionth of a voxel beyond it
    extent = torch.tensor(box.shape[1:], dtype=torch.float64, device=box.device)
    # grid_sample's coordinates: x first, -1 to 1 between outer edges
    grid = ((places * 2 + 1) / extent - 1).flip(-1).to(box)
    return F.grid_sample((box - outside)[None], grid[None], mode=mode, align_corners=False)[0] + outside


def _nearest(box: Tensor, places: Tensor, outside: int) -> Tensor:
    """Of each place (..., 3) the nearest voxel (C, ...)."""
    indices = (places + 0.5).floor().long()
    extent = torch.tensor(box.shape[1:], device=box.device)
    inside = ((indices >= 0) & (indices < extent)).all(dim=-1)
    z, y, x = indices.clamp(min=torch.zeros_like(extent), max=extent - 1).unbind(-1)
    return torch.where(inside, box[:, z, y, x], outside)


def _shares(box: Tensor, places: Tensor, outside: int) -> Tensor:
    values = torch.unique(torch.cat([box.flatten(), box.new_tensor([outside])]))
    shares = torch.stack(
        [_sampled((box == value).float(), places, float(value == outside), "bilinear") for value in values]
    )
    # of two that differ by rounding alone the first
    return values[(shares > shares.amax(dim=0) - 1e-6).int().argmax(dim=0)]
