"""Overlap, surfaces and volumes of a predicted and a true mask.

Where a volume is annotated in part, both masks are cut to that part before they come here. Their surfaces
are then those of the cut masks: where a structure runs on beyond what is annotated, both end at its border.

A score without meaning is None, never 0 or 1:

    class in                                neither   truth alone   prediction alone
    dice, iou, nsd                          None      0             0
    precision                               None      None          0
    recall                                  None      0             None
    hd, hd95, assd                          None      None          None
    relative_volume_difference              None      -1            None
    absolute_volume_difference              None      true volume   predicted volume

Metrics Reloaded gives a mask that is missing the worst distance there can be; here it has none, and is
counted as undefined, since a worst distance depends on the size of the image. NSD tells of it with 0.
"""

import math

import numpy as np

from ..data.settings import settings
from ..data.volume import Triple
from .surface_metrics import surface_distances


@settings
class MaskScores:
    """All scores of a mask; lengths in the unit of the spacing, the absolute volume difference in its cube.

    The relative volume difference is (predicted - true) / true. None where a score has no meaning, and for
    the later ones also where an earlier version did not measure them.
    """

    dice: float | None
    iou: float | None
    hd95: float | None
    nsd: float | None = None
    precision: float | None = None
    recall: float | None = None
    hd: float | None = None
    assd: float | None = None
    relative_volume_difference: float | None = None
    absolute_volume_difference: float | None = None


METRICS = tuple(MaskScores.__dataclass_fields__)


def score_mask(
    predicted: np.ndarray, true: np.ndarray, spacing: Triple, tolerance: float | None = None
) -> MaskScores:
    """All scores of a predicted mask against the true one, both boolean of one shape (Z, Y, X).

    `tolerance` is that of NSD, in the unit of `spacing`; when None the coarsest spacing: a surface is right
    where it is off by a voxel at most, where slices are thick by several in the plane. Its papers ask for how
    much two raters differ, which only the user can know.
    """
    both = int(np.count_nonzero(predicted & true))
    ours, theirs = int(np.count_nonzero(predicted)), int(np.count_nonzero(true))
    distances = surface_distances(predicted, true, spacing) if ours and theirs else None
    nsd = 0.0 if ours or theirs else None
    if distances is not None:
        nsd = distances.nsd(max(spacing) if tolerance is None else tolerance)
    return MaskScores(
        dice=ratio(2 * both, ours + theirs),
        iou=ratio(both, ours + theirs - both),
        hd95=distances and distances.hd95,
        nsd=nsd,
        precision=ratio(both, ours),
        recall=ratio(both, theirs),
        hd=distances and distances.hd,
        assd=distances and distances.assd,
        relative_volume_difference=ratio(ours - theirs, theirs),
        absolute_volume_difference=abs(ours - theirs) * math.prod(spacing) if ours or theirs else None,
    )


def dice(predicted: np.ndarray, true: np.ndarray) -> float | None:
    """Dice coefficient of two boolean masks of one shape: 2|A and B| / (|A| + |B|)."""
    total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(true))
    return ratio(2 * int(np.count_nonzero(predicted & true)), total)


def ratio(part: float, whole: float) -> float | None:
    """A part of a whole; None where there is nothing of either."""
    return part / whole if whole else None
