"""Overlap and distance between a predicted and a true mask.

Where a volume is annotated in part, both masks are cut to that part before they come here. Their surfaces
are then those of the cut masks: where a structure runs on beyond what is annotated, both end at its border.

A score without meaning is None, never 0 or 1: Dice and IoU of a class that neither mask has, and HD95 of
one that either lacks.
"""

import warnings

import numpy as np
import torch

from ..data.volume import Triple


def dice(predicted: np.ndarray, true: np.ndarray) -> float | None:
    """Dice coefficient of two boolean masks of one shape: 2|A and B| / (|A| + |B|)."""
    total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(true))
    return 2 * int(np.count_nonzero(predicted & true)) / total if total else None


def iou(predicted: np.ndarray, true: np.ndarray) -> float | None:
    """Intersection over union (Jaccard index) of two boolean masks of one shape."""
    union = int(np.count_nonzero(predicted | true))
    return int(np.count_nonzero(predicted & true)) / union if union else None


def hd95(predicted: np.ndarray, true: np.ndarray, spacing: Triple) -> float | None:
    """95th percentile of the surface distances, the larger of both directions, in the unit of `spacing`.

    Computed by MONAI (`compute_hausdorff_distance`), on the box that holds both masks.
    """
    if not predicted.any() or not true.any():
        return None
    from monai.metrics.hausdorff_distance import (
        compute_hausdorff_distance,
    )  # slow to import, needed for evaluation alone

    box = _bounding_box(predicted | true)
    pair = [torch.from_numpy(mask[box])[None, None] for mask in (predicted, true)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns of its own deprecated call
        distance = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)
    return float(distance)


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around a mask."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)
