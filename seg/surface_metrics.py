"""Distances between the surfaces of a predicted and a true mask, computed once for all metrics of them.

The surface of a mask is its voxels with a neighbour across a face that is outside of the mask or the volume,
each counted once however large its faces are: as MONAI without sub-voxels and Metrics Reloaded (Maier-Hein
et al. 2024, https://doi.org/10.1038/s41592-023-02151-z) do. DeepMind's surface-distance weighs pieces of
surface by their area instead.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch

from ..data.volume import Triple

# distances come as float32: one of exactly the tolerance is within it
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class SurfaceDistances:
    """How far each surface voxel of a mask is from the surface of the other, in the unit of the spacing."""

    of_predicted: np.ndarray
    of_true: np.ndarray

    @property
    def hd(self) -> float:
        """Hausdorff distance: the largest of all."""
        return self._larger(100)

    @property
    def hd95(self) -> float:
        """The larger of both directions' 95th percentiles, as in MONAI and Metrics Reloaded.

        Others take the percentile of both directions together (DeepMind takes the larger one too).
        """
        return self._larger(95)

    @property
    def assd(self) -> float:
        """Average symmetric surface distance: the mean over the surface voxels of both masks."""
        return float(np.concatenate([self.of_predicted, self.of_true]).mean(dtype=np.float64))

    def nsd(self, tolerance: float) -> float:
        """Normalised surface Dice: the share of both surfaces' voxels that are within the tolerance.

        Source: Nikolov et al. 2021, https://doi.org/10.2196/26151.
        """
        within = [d <= tolerance * (1 + _ROUNDING) for d in (self.of_predicted, self.of_true)]
        return float(np.concatenate(within).mean())

    def _larger(self, percentile: float) -> float:
        return max(float(np.percentile(d, percentile)) for d in (self.of_predicted, self.of_true))


def surface_distances(predicted: np.ndarray, true: np.ndarray, spacing: Triple) -> SurfaceDistances:
    """Distances between the surfaces of two boolean masks (Z, Y, X), neither empty, by MONAI."""
    from monai.metrics.utils import get_edge_surface_distance  # slow to import, needed for evaluation alone

    box = bounding_box(predicted | true)
    ours, theirs = (torch.from_numpy(np.ascontiguousarray(mask[box])) for mask in (predicted, true))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns of its own deprecated call
        _, found, _ = get_edge_surface_distance(ours, theirs, spacing=spacing, symmetric=True)
    of_predicted, of_true = (distances.numpy() for distances in found)
    return SurfaceDistances(of_predicted=of_predicted, of_true=of_true)


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)
