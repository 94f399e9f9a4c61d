"""All scores of a mask against plain loops and SimpleITK."""

import itertools
from dataclasses import fields

import numpy as np
import pytest
import SimpleITK as sitk
from fewvox.seg.metrics import MaskScores, dice, score_mask

EMPTY = np.zeros((4, 5, 6), dtype=bool)
SPACING = (2.0, 0.5, 1.0)


def blob(seed, share=0.15):
    return np.random.default_rng(seed).random((6, 7, 8)) < share


@pytest.mark.parametrize("seed", range(3))
def test_overlap_is_that_of_plain_loops(seed):
    a, b = blob(seed), blob(seed + 100, share=0.3)
    places = list(itertools.product(*map(range, a.shape)))
    both = sum(bool(a[p] and b[p]) for p in places)
    either = sum(bool(a[p] or b[p]) for p in places)
    found = score_mask(a, b, SPACING)
    assert found.dice == dice(a, b) == pytest.approx(2 * both / (a.sum() + b.sum()))
    assert found.iou == pytest.approx(both / either)
    assert found.precision == pytest.approx(both / a.sum())
    assert found.recall == pytest.approx(both / b.sum())
    assert found.relative_volume_difference == pytest.approx(a.sum() / b.sum() - 1)
    assert found.absolute_volume_difference == pytest.approx(abs(a.sum() - b.sum()) * 1.0)


def test_overlap_is_that_of_simpleitk():
    a, b = blob(1, 0.4), blob(2, 0.3)
    known = sitk.LabelOverlapMeasuresImageFilter()
    known.Execute(*(sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (a, b)))
    found = score_mask(a, b, SPACING)
    assert found.dice == pytest.approx(known.GetDiceCoefficient(1))
    assert found.iou == pytest.approx(known.GetJaccardCoefficient(1))
    # of SimpleITK's two masks the first is the source, the second the target
    assert found.recall == pytest.approx(1 - known.GetFalseNegativeError(1))
    assert found.precision == pytest.approx(1 - known.GetFalseDiscoveryRate(1))


def test_a_volume_difference_has_a_sign_and_a_size_in_cubed_units():
    true = ~EMPTY
    half = true.copy()
    half[:, :, :3] = False
    lost, gained = score_mask(half, true, (2.0, 3.0, 1.0)), score_mask(true, half, (2.0, 3.0, 1.0))
    assert (lost.relative_volume_difference, gained.relative_volume_difference) == (-0.5, 1)
    assert (lost.absolute_volume_difference, gained.absolute_volume_difference) == (360, 360)


@pytest.mark.parametrize(("tolerance", "within"), [(None, 1), (2.0, 1), (1.9, 0.25), (0.0, 0.25)])
def test_the_tolerance_is_the_coarsest_spacing_unless_it_is_told(tolerance, within):
    a, b = np.zeros((2, 9, 4, 4), bool)
    a[2:4], b[3:5] = True, True
    found = score_mask(a, b, (2.0, 9.0, 9.0) if tolerance else (2.0, 1.0, 1.0), tolerance)
    assert found.nsd == pytest.approx(within, abs=0.26)
    assert (found.nsd == 1) == (within == 1)


def test_equal_masks_are_perfect():
    found = score_mask(blob(0), blob(0), (1.0, 2.0, 3.0))
    assert (found.dice, found.iou, found.nsd, found.precision, found.recall) == (1, 1, 1, 1, 1)
    assert (found.hd, found.hd95, found.assd) == (0, 0, 0)
    assert (found.relative_volume_difference, found.absolute_volume_difference) == (0, 0)


def test_masks_that_do_not_meet_score_zero():
    a, b = EMPTY.copy(), EMPTY.copy()
    a[0], b[3] = True, True
    found = score_mask(a, b, (1.0, 1.0, 1.0))
    assert (found.dice, found.iou, found.nsd, found.precision, found.recall) == (0, 0, 0, 0, 0)
    assert found.hd == 3


OF_MISSED = {"dice": 0, "iou": 0, "nsd": 0, "recall": 0, "relative_volume_difference": -1}
OF_INVENTED = {"dice": 0, "iou": 0, "nsd": 0, "precision": 0}


@pytest.mark.parametrize(
    ("predicted", "true", "numbers"),
    [
        (EMPTY, EMPTY, {}),
        (EMPTY, ~EMPTY, {**OF_MISSED, "absolute_volume_difference": 120}),
        (~EMPTY, EMPTY, {**OF_INVENTED, "absolute_volume_difference": 120}),
    ],
)
def test_a_score_without_meaning_is_none_and_never_a_number(predicted, true, numbers):
    found = score_mask(predicted, true, SPACING)
    assert vars(found) == {f.name: numbers.get(f.name) for f in fields(MaskScores)}
