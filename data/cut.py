"""Cutting patches and views from a store: only what a map needs is read, at the level that is fine enough."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .boxes import read_box
from .store import Store
from .volume import Shape, Voxels
from .warp import on_voxels, warp, warp_labels


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What was read for one patch: a box (C, z, y, x), and the map (3, 4) from the patch's voxels to its own.

    `outside` is what lies beyond the border of the volume. A displacement (3, *shape) is in voxels of the
    patch, and comes before the map.
    """

    box: Tensor
    affine: np.ndarray
    shape: Shape
    outside: int = 0

    def to(self, device: torch.device) -> "Cut":
        """The same on another device."""
        return replace(self, box=self.box.to(device, non_blocking=True))

    def image(self, displacement: Tensor | None = None) -> Tensor:
        """The patch (C, *shape), float32, interpolated once."""
        moved = self._in_box(displacement)
        return warp(self.box, self.affine, self.shape, outside=self.outside, displacement=moved)

    def labels(self, displacement: Tensor | None = None, *, by_share: bool = False) -> Tensor:
        """The patch (C, *shape) of whole numbers: each voxel's nearest, or (`by_share`) its largest share."""
        return warp_labels(
            self.box,
            self.affine,
            self.shape,
            outside=self.outside,
            displacement=self._in_box(displacement),
            by_share=by_share,
        )

    def _in_box(self, displacement: Tensor | None) -> Tensor | None:
        if displacement is None:
            return None
        linear = torch.from_numpy(self.affine[:, :3]).to(displacement)
        return torch.einsum("ij,jzyx->izyx", linear, displacement)


def cut_image(
    store: Store, case: str, affine: np.ndarray, shape: Shape, *, reach: np.ndarray | float = 0.0
) -> Cut:
    """What the patch of `shape` needs that the map (3, 4) leads to; read at the coarsest level that will do.

    Args:
        store, case: which image.
        affine: from indices (z, y, x, 1) of the patch's voxels to those of the finest level's, whose centres
            are whole numbers.
        shape: of the patch.
        reach: how far at most a displacement moves a voxel of the patch along each axis, in such voxels.
    """
    levels = store.cases[case].levels
    level = max(i for i, factor in enumerate(levels) if _as_fine(factor, affine[:, :3], shape))
    factor = np.array(levels[level], dtype=float)
    at_level = affine / factor[:, None]
    # voxel i of a level reaches from i * factor to (i + 1) * factor
    at_level[:, 3] += (0.5 / factor) - 0.5
    return _cut(store.image(case, level), at_level, shape, reach, 0)


def cut_labels(
    store: Store,
    case: str,
    affine: np.ndarray,
    shape: Shape,
    outside: int = 0,
    *,
    reach: np.ndarray | float = 0.0,
) -> Cut:
    """The same of the class numbers, which are there at the finest level alone."""
    return _cut(store.label(case), affine.copy(), shape, reach, outside)


def _cut(stored: Voxels, affine: np.ndarray, shape: Shape, reach: np.ndarray | float, outside: int) -> Cut:
    half = (np.array(shape) - 1) / 2
    # where the middle of the patch lies, and how far from it its outermost voxels may
    middle = affine[:, :3] @ half + affine[:, 3]
    away = np.abs(affine[:, :3]) @ (half + reach)
    # a single slice has one place: off it, its grey values would be mixed with what is outside
    single = (np.array(stored.shape[-3:]) == 1) & (away == 0)
    affine[single, 3] -= middle[single]
    middle = np.where(single, 0.0, middle)
    low, high = np.floor(middle - away).astype(int), np.ceil(middle + away).astype(int)
    if not on_voxels(affine):
        # warping fills in what is outside
        last = np.array(stored.shape[-3:]) - 1
        low, high = np.clip(low, 0, last), np.clip(high, 0, last)
    affine[:, 3] -= low
    z, y, x = (high - low + 1).tolist()
    read = read_box(stored, low, (z, y, x), outside)
    return Cut(
        box=torch.from_numpy(read.reshape(-1, *read.shape[-3:])), affine=affine, shape=shape, outside=outside
    )


def _as_fine(factor: tuple[int, int, int], linear: np.ndarray, shape: Shape) -> bool:
    """Whether a level's voxels are no larger than the patch's steps, or than those of the finest level.

    Neither along the axes of the volume, whichever way the patch lies, nor along those of the patch.
    """
    coarse = np.array(factor)
    along_volume = np.linalg.norm(linear, axis=1) / coarse
    at_finest, at_level = (np.linalg.norm(m, axis=0) for m in (linear, linear / coarse[:, None]))
    fine = np.where(coarse > 1, along_volume >= 1 - 1e-6, True)
    kept = at_level >= np.minimum(1, at_finest) - 1e-6
    return bool(fine.all() and kept[np.greater(shape, 1)].all())
