"""Objects matched by IoU, against every matching there is."""

import itertools

import numpy as np
import pytest
from fewvox.seg.object_metrics import THRESHOLDS, score_objects, together
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

maps = arrays(np.int32, (1, 3, 4), elements=st.integers(0, 3))


def line(*numbers):
    return np.array(numbers, np.int32)[None, None]


def best_by_trying(predicted, true, threshold):
    """Most matches, then the largest sum of IoU, over all pairings of objects."""
    ours, theirs = (
        [predicted == n for n in np.unique(predicted) if n],
        [true == n for n in np.unique(true) if n],
    )
    wide = max(len(ours), len(theirs))
    padded = np.zeros((wide, wide))
    for (i, a), (j, b) in itertools.product(enumerate(ours), enumerate(theirs)):
        padded[i, j] = (a & b).sum() / (a | b).sum()
    tried = []
    for order in itertools.permutations(range(wide)):
        hits = [padded[i, j] for i, j in enumerate(order) if padded[i, j] >= threshold]
        tried.append((len(hits), sum(hits)))
    return *max(tried), len(ours), len(theirs)


@settings(max_examples=60, deadline=None)
@given(maps, maps)
def test_matches_are_the_best_of_all_there_are(predicted, true):
    found = score_objects(predicted, true)
    assert [m.threshold for m in found.matches] == list(THRESHOLDS)
    for m in found.matches:
        hits, iou_sum, ours, theirs = best_by_trying(predicted, true, m.threshold)
        assert (m.true_positives, m.false_positives, m.false_negatives) == (hits, ours - hits, theirs - hits)
        assert (m.matched_iou or 0) * hits == pytest.approx(iou_sum)
        if ours + theirs:
            assert m.f1 == pytest.approx(2 * hits / (ours + theirs))
            assert m.panoptic_quality == pytest.approx(2 * iou_sum / (ours + theirs))
            assert m.ap == pytest.approx(hits / (ours + theirs - hits))
    ours, theirs = (len(np.unique(numbers[numbers > 0])) for numbers in (predicted, true))
    assert (found.predicted, found.true, found.count_error) == (ours, theirs, ours - theirs)


@settings(max_examples=30, deadline=None)
@given(maps, maps, arrays(bool, (1, 3, 4)))
def test_what_is_unannotated_never_makes_a_true_object_and_may_excuse_a_predicted_one(predicted, true, seen):
    found = score_objects(predicted, true, seen)
    cut = score_objects(np.where(seen, predicted, 0), np.where(seen, true, 0))
    for ours, theirs in zip(found.matches, cut.matches, strict=True):
        assert (ours.true_positives, ours.false_negatives) == (theirs.true_positives, theirs.false_negatives)
        assert ours.false_positives <= theirs.false_positives


def test_an_object_of_iou_one_half_is_matched_once():
    found = score_objects(line(1, 1), line(1, 2), thresholds=(0.5,)).matches[0]
    assert (found.true_positives, found.false_positives, found.false_negatives) == (1, 0, 1)


def test_an_iou_of_the_threshold_is_a_match():
    predicted, true = line(1, 1, 1, 0, 0), line(1, 1, 1, 1, 1)
    assert [m.true_positives for m in score_objects(predicted, true).matches] == [1, 1, 0, 0, 0]


def test_an_unmatched_object_that_is_mostly_unannotated_is_no_mistake():
    true = line(0, 0, 0, 0, 0)
    seen = line(1, 1, 0, 0, 0) > 0
    for predicted, wrong in ((line(0, 1, 1, 1, 0), 0), (line(1, 1, 1, 0, 0), 1), (line(0, 0, 1, 1, 0), 0)):
        found = score_objects(predicted, true, seen)
        assert [m.false_positives for m in found.matches] == [wrong] * 5
        assert found.predicted == wrong


def test_nothing_expected_and_nothing_found_has_no_score():
    found = score_objects(line(0, 0), line(0, 0))
    assert (found.mean_f1, found.mean_ap, found.count_error) == (None, None, 0)
    assert found.matches[0].panoptic_quality is None


def test_objects_that_are_all_missed_or_all_invented_score_zero():
    missed, invented = (score_objects(*pair) for pair in ((line(0), line(1)), (line(1), line(0))))
    assert (missed.mean_f1, missed.matches[0].precision, missed.matches[0].recall) == (0, None, 0)
    assert (invented.mean_f1, invented.matches[0].precision, invented.matches[0].recall) == (0, 0, None)
    assert (missed.count_error, invented.count_error) == (-1, 1)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(maps, maps), min_size=1, max_size=3))
def test_cases_together_are_as_one_large_case(cases):
    shifted = [[np.where(m[i], m[i] + 3 * n, 0) for n, m in enumerate(cases)] for i in (0, 1)]
    whole = score_objects(*(np.concatenate(parts) for parts in shifted))
    pooled = together([score_objects(*pair) for pair in cases])
    for ours, theirs in zip(pooled.matches, whole.matches, strict=True):
        assert vars(ours) == pytest.approx(vars(theirs))
    assert pooled.count_error == whole.count_error


def test_thousands_of_objects_are_matched_without_a_table_of_all_pairs():
    """A dense one of so many would take 20 GB."""
    true = np.arange(1, 50_001, dtype=np.int32).repeat(2)[None, None]
    predicted = np.roll(true, 1)
    found = score_objects(predicted, true, thresholds=(0.5,)).matches[0]
    assert found.true_positives == 0
    assert score_objects(true[..., ::-1], true, thresholds=(0.5,)).matches[0].f1 == 1
