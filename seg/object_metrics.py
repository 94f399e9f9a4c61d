"""Objects found: predicted instances matched with true ones by their IoU.

Sources: counts, F1 and AP as in StarDist (Schmidt et al. 2018, https://arxiv.org/abs/1806.03535, section 3)
and the 2018 Data Science Bowl; panoptic quality and what is unannotated as in Kirillov et al. 2019,
https://arxiv.org/abs/1801.00868, section 4. Differs: an IoU of exactly the threshold is a match, as in
StarDist, where Kirillov asks for more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from ..data.settings import settings
from .metrics import ratio

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
# an unmatched object of which more than this share is unannotated is nobody's mistake
_MOSTLY = 0.5
_COUNTS = ("true_positives", "false_positives", "false_negatives")


@settings
class MatchScore:
    """Matches at one IoU threshold; None where a score has no meaning.

    `ap` is TP / (TP + FP + FN), which StarDist calls average precision. `panoptic_quality` is F1 times the
    mean IoU of the matched objects, `matched_iou`.
    """

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    precision: float | None
    recall: float | None
    f1: float | None
    ap: float | None
    matched_iou: float | None
    panoptic_quality: float | None


@settings
class ObjectScores:
    """Objects of one case, or of several together; `count_error` is predicted minus true.

    `predicted` are those that count at the lowest threshold; the means are over the thresholds.
    """

    predicted: int
    true: int
    count_error: int
    mean_f1: float | None
    mean_ap: float | None
    matches: tuple[MatchScore, ...]


def score_objects(
    predicted: np.ndarray,
    true: np.ndarray,
    annotated: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> ObjectScores:
    """Scores of instance maps (Z, Y, X), objects numbered from 1, 0 for none; thresholds rise from 0.5.

    Both are cut to `annotated` (bool) before they are compared. A predicted object without match, more than
    half of which is outside, is not counted; nor is one that is outside altogether.
    """
    whole = np.bincount(predicted.ravel())[1:]
    if annotated is not None:
        predicted, true = np.where(annotated, predicted, 0), np.where(annotated, true, 0)
    inside = np.bincount(predicted.ravel(), minlength=len(whole) + 1)[1:]
    expected = np.bincount(true.ravel())[1:]
    objects = Objects(
        iou=_overlaps(predicted, true, inside, expected),
        counted=inside > 0,
        excused=(whole - inside) > _MOSTLY * whole,
        true=int(np.count_nonzero(expected)),
    )
    return _summary([_matches(objects, threshold) for threshold in thresholds])


def together(cases: Sequence[ObjectScores]) -> ObjectScores:
    """The scores of all objects of several cases as if they were one: each object counts alike."""
    summed = []
    for same in zip(*(case.matches for case in cases), strict=True):
        hits, false, missed = (sum(getattr(m, kind) for m in same) for kind in _COUNTS)
        iou_sum = sum((m.matched_iou or 0.0) * m.true_positives for m in same)
        summed.append(_match_score(same[0].threshold, hits, false, missed, iou_sum))
    return _summary(summed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Objects:
    """IoU of predicted (rows) with true objects, and which predicted ones count, or only where matched."""

    iou: coo_array
    counted: np.ndarray
    excused: np.ndarray
    true: int


def _overlaps(predicted: np.ndarray, true: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> coo_array:
    """IoU of every pair of objects that meet, by the sizes of both."""
    meet = (predicted > 0) & (true > 0)
    pairs = (predicted[meet].astype(np.int64) - 1) * len(theirs) + true[meet] - 1
    found, both = np.unique(pairs, return_counts=True)
    rows, columns = np.divmod(found, max(1, len(theirs)))
    iou = both / (ours[rows] + theirs[columns] - both)
    return coo_array((iou, (rows, columns)), shape=(len(ours), len(theirs)))


def _matches(objects: Objects, threshold: float) -> MatchScore:
    """The most matches that there can be, each object in one.

    From a threshold of 0.5 on they also have the largest sum of IoU, as a linear assignment would find: an
    object has a choice only between two of IoU 0.5 exactly.
    """
    iou, (rows, columns) = objects.iou.data, objects.iou.coords
    near = iou >= threshold
    graph = coo_array((iou[near], (rows[near], columns[near])), shape=objects.iou.shape).tocsr()
    partner = maximum_bipartite_matching(graph, perm_type="column")
    matched = partner >= 0
    iou_sum = float(iou[near][partner[rows[near]] == columns[near]].sum())
    hits = int(np.count_nonzero(matched))
    false = int(np.count_nonzero(objects.counted & ~matched & ~objects.excused))
    return _match_score(threshold, hits, false, objects.true - hits, iou_sum)


def _match_score(threshold: float, hits: int, false: int, missed: int, iou_sum: float) -> MatchScore:
    return MatchScore(
        threshold=threshold,
        true_positives=hits,
        false_positives=false,
        false_negatives=missed,
        precision=ratio(hits, hits + false),
        recall=ratio(hits, hits + missed),
        f1=ratio(2 * hits, 2 * hits + false + missed),
        ap=ratio(hits, hits + false + missed),
        matched_iou=ratio(iou_sum, hits),
        panoptic_quality=ratio(2 * iou_sum, 2 * hits + false + missed),
    )


def _summary(matches: Sequence[MatchScore]) -> ObjectScores:
    first = matches[0]
    predicted, true = (
        first.true_positives + others for others in (first.false_positives, first.false_negatives)
    )
    return ObjectScores(
        predicted=predicted,
        true=true,
        count_error=predicted - true,
        mean_f1=_mean([m.f1 for m in matches]),
        mean_ap=_mean([m.ap for m in matches]),
        matches=tuple(matches),
    )


def _mean(scores: Sequence[float | None]) -> float | None:
    defined = [score for score in scores if score is not None]
    return sum(defined) / len(defined) if defined else None
