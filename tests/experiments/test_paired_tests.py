"""Means, intervals over cases and seeds, and paired differences."""

import math
import random
from itertools import product

import numpy as np
import pytest
from fewvox.experiments.paired_tests import (
    bootstrap_interval,
    case_means,
    compare_arms,
    paired_table,
    percentile_interval,
    summarise,
)
from fewvox.experiments.results import RunRecord, Score

NAN = math.nan
# Student's t at 97.5% for 1, 2 and 4 degrees of freedom, from a printed table
T1, T2, T4 = 12.706, 4.303, 2.776


def score(arm, seed, case, dice, *, value=1, labels=4):
    return Score(arm=arm, labels=labels, seed=seed, case=case, value=value, dice=dice, iou=None, hd95=None)


def scores_of(arm, table, **more):
    """A score for each cell of a table; rows are seeds 0, 1 ... and columns cases a, b ..."""
    return [
        score(arm, seed, "abcdefgh"[i], dice, **more)
        for seed, row in enumerate(table)
        for i, dice in enumerate(row)
    ]


def run(arm, seed, *, stage="fine-tuning", labels=4, **more):
    return RunRecord(stage=stage, arm=arm, labels=labels, seed=seed, **more)


def half_width(interval):
    assert interval.high - interval.mean == pytest.approx(interval.mean - interval.low)
    return (interval.high - interval.low) / 2


# --- means


def test_a_case_mean_leaves_undefined_classes_out():
    scores = [
        score("a", 0, "x", 0.2, value=1),
        score("a", 0, "x", None, value=2),
        score("a", 0, "x", 0.8, value=3),
        score("a", 0, "y", None, value=1),
        score("a", 1, "y", 0.4, value=1),
        score("a", 0, "z", 0.9, labels=8),
        score("b", 0, "z", 0.9),
    ]
    assert case_means(scores, "a", 4) == {0: {"x": 0.5}, 1: {"y": 0.4}}


# --- intervals, by hand


def test_equal_cells_make_an_interval_of_no_width():
    found = bootstrap_interval(np.full((3, 4), 0.75))
    assert (found.mean, found.low, found.high) == (0.75, 0.75, 0.75)


@pytest.mark.parametrize("turn", [np.asarray, np.transpose])
def test_with_one_seed_the_interval_is_students_over_cases(turn):
    """The standard deviation of 1 to 5 is sqrt(2.5); the same with one case and five seeds."""
    found = bootstrap_interval(turn(np.array([[1.0, 2, 3, 4, 5]])))
    assert found.mean == 3
    assert half_width(found) == pytest.approx(T4 * math.sqrt(2.5 / 5), rel=0.02)


def test_seeds_and_cases_add_like_the_sides_of_a_right_angle():
    """Seed means 0, 3, 6 (standard error sqrt 3) and case means 2, 4 (standard error 1)."""
    found = bootstrap_interval(np.array([[-1.0, 1], [2, 4], [5, 7]]))
    assert found.mean == 3
    assert half_width(found) == pytest.approx(math.hypot(T2 * math.sqrt(3), T1), rel=0.02)


def test_one_cell_is_a_point():
    found = bootstrap_interval(np.array([[0.3]]))
    assert (found.mean, found.low, found.high) == (0.3, 0.3, 0.3)


def test_more_confidence_is_a_wider_interval():
    values = np.random.default_rng(0).normal(size=(3, 10))
    widths = [half_width(bootstrap_interval(values, confidence=c)) for c in (0.5, 0.8, 0.95, 0.99)]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1] / 5


def test_missing_cells_are_left_out_and_count_for_less():
    found = bootstrap_interval(np.array([[1.0, 2, NAN], [4, NAN, NAN]]))
    assert found.mean == pytest.approx(7 / 3)
    assert np.isfinite([found.low, found.high]).all()


def test_a_seed_or_case_without_any_cell_is_as_if_absent():
    values = np.random.default_rng(0).normal(size=(3, 5))
    with_empty = np.full((4, 6), NAN)
    with_empty[np.ix_([0, 2, 3], [0, 1, 2, 4, 5])] = values
    found, expected = bootstrap_interval(with_empty), bootstrap_interval(values)
    assert [found.mean, found.low, found.high] == pytest.approx([expected.mean, expected.low, expected.high])


def test_nothing_to_average_is_refused():
    with pytest.raises(ValueError, match="none of the 6 cells"):
        bootstrap_interval(np.full((2, 3), NAN))
    with pytest.raises(ValueError, match="95"):
        bootstrap_interval(np.zeros((2, 3)), confidence=95)


def test_the_same_seed_draws_the_same_interval():
    values = np.random.default_rng(0).normal(size=(3, 10))
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)
    assert bootstrap_interval(values, seed=5) != bootstrap_interval(values, seed=6)


def test_percentiles_are_those_of_all_draws_of_seeds_and_cases():
    """Two seeds and two cases can be drawn in 16 ways; the middle half of their means lies between these."""
    values = np.array([[0.0, 1], [2, 7]])
    draws = list(product([0, 1], repeat=2))
    means = [values[np.ix_(seeds, cases)].mean() for seeds in draws for cases in draws]
    found = percentile_interval(values, confidence=0.5)
    assert found.mean == 2.5
    assert (found.low, found.high) == (np.quantile(means, 0.25), np.quantile(means, 0.75))


def test_a_paired_table_has_the_cells_that_both_arms_have():
    scores = [*scores_of("a", [[0.5, 0.9], [0.75, None]]), *scores_of("b", [[0.25, 0.8], [0.25, 0.1]])]
    found = paired_table(scores, "a", "b", 4)
    np.testing.assert_allclose(found, [[0.25, 0.1], [0.5, NAN]])


def test_percentiles_leave_missing_cells_out():
    found = percentile_interval(np.array([[1.0, NAN], [NAN, 1.0]]))
    assert (found.mean, found.low, found.high) == (1, 1, 1)
    with pytest.raises(ValueError, match="none of the 6 cells"):
        percentile_interval(np.full((2, 3), NAN))


# --- intervals, on simulated data with a known effect


def simulated(rng, seeds, cases, *, effect=0.0, seed_sd=0.0, case_sd=0.0, noise_sd=1.0):
    return (
        effect
        + seed_sd * rng.standard_normal((seeds, 1))
        + case_sd * rng.standard_normal((1, cases))
        + noise_sd * rng.standard_normal((seeds, cases))
    )


def coverage(interval_of, seeds, cases, **sizes):
    """How often, of 300 simulated tables, the interval holds the true effect 1."""
    rng = np.random.default_rng(11)
    tables = [simulated(rng, seeds, cases, effect=1.0, **sizes) for _ in range(300)]
    return np.mean([low <= 1 <= high for low, high in map(interval_of, tables)])


def ours(values):
    found = bootstrap_interval(values, samples=500)
    return found.low, found.high


def pooled_percentiles(values):
    """The naive bootstrap: every cell drawn as if it were independent of all others."""
    n = values.size
    times = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=500)
    return np.percentile(times @ values.ravel() / n, [2.5, 97.5])


# 300 tables tell a share of 0.95 to within 0.025, two standard errors
@pytest.mark.parametrize("shape", [(3, 40), (5, 20), (3, 8)])
@pytest.mark.parametrize(
    ("sizes", "highest"),
    [
        ({"seed_sd": 10.0, "case_sd": 1.0}, 0.975),
        ({"case_sd": 10.0}, 0.975),
        ({"seed_sd": 0.5, "case_sd": 1.0}, 1.0),
        ({"seed_sd": 1.0, "case_sd": 1.0}, 1.0),
        ({}, 1.0),
    ],
)
def test_an_interval_holds_the_truth_as_often_as_its_name_says(shape, sizes, highest):
    """Or oftener, where neither seeds nor cases stand out: then it is wider than it need be."""
    assert 0.925 <= coverage(ours, *shape, **sizes) <= highest


def test_seeds_that_differ_are_no_effect():
    """Without an effect, about 1 comparison in 20 seems to have one; most do by the pooled bootstrap."""
    sizes = {"seed_sd": 3.0, "case_sd": 1.0}
    assert 1 - coverage(ours, 3, 40, **sizes) <= 0.075
    assert 1 - coverage(pooled_percentiles, 3, 40, **sizes) > 0.5


# --- summaries


def test_a_summary_by_hand():
    scores = [
        *scores_of("a", [[0.2, 0.4], [0.6, 0.8]], value=1),
        *scores_of("a", [[0.4, None], [None, None]], value=2),
        *scores_of("a", [[None, None], [None, None]], value=3),
    ]
    runs = [
        run("a", 0, zero_classes=(3,)),
        run("a", 1),
        run("a", 2, status="failed", error="out of memory"),
        run("a", 0, stage="pretraining", labels=None),
        run("a", 0, labels=8),
        run("b", 0),
    ]
    (found,) = summarise(scores, runs, ["a"], [4], 0.95)
    assert (found.arm, found.labels) == ("a", 4)
    assert found.dice.mean == pytest.approx((0.3 + 0.4 + 0.6 + 0.8) / 4)
    assert found.per_class == pytest.approx({1: 0.5, 2: 0.4})
    assert (found.runs, found.runs_with_zero_class, found.failed_runs) == (2, 1, 1)
    # Student's t of two seeds reaches far beyond what a Dice can be
    assert (found.dice.low, found.dice.high) == (0, 1)


def test_an_arm_without_scores_has_no_summary():
    scores = [*scores_of("a", [[0.5]]), *scores_of("b", [[None]]), *scores_of("a", [[0.7]], labels=8)]
    found = summarise(scores, [], ["c", "b", "a"], [4, 8, 16], 0.95)
    assert [(s.arm, s.labels, s.dice.mean) for s in found] == [("a", 4, 0.5), ("a", 8, 0.7)]


# --- differences


def compare(scores, runs=(), arms=("base", "arm"), label_counts=(4,)):
    return compare_arms(scores, runs, arms, "base", label_counts, 0.95)


def test_a_difference_by_hand():
    """Case d is missing on one side with seed 0, seed 2 on the other: neither counts."""
    scores = [
        *scores_of("arm", [[0.75, 0.50, 0.25, None], [0.75, 0.25, 0.5, 0.75]]),
        *scores_of("base", [[0.50, 0.25, 0.50, 0.5], [0.25, 0.50, 0.5, 0.25], [1.0, 1.0, 1.0, 1.0]]),
    ]
    (found,) = compare(scores)
    assert (found.arm, found.baseline, found.labels, found.cases, found.seeds) == ("arm", "base", 4, 4, 2)
    assert found.per_case == {"a": 0.375, "b": 0.0, "c": -0.125, "d": 0.5}
    assert found.share_better == (2 + 0.5) / 4
    assert found.dice.mean == pytest.approx((0.25 + 0.25 - 0.25 + 0.5 - 0.25 + 0 + 0.5) / 7)
    assert -1 < found.dice.low < found.dice.mean < found.dice.high < 1


def test_a_difference_of_dice_is_at_most_1():
    scores = [*scores_of("base", [[0.5], [0.5]]), *scores_of("arm", [[0.2], [0.9]])]
    (found,) = compare(scores)
    assert (found.dice.low, found.dice.high) == (-1, 1)


def test_only_what_both_sides_have_is_compared():
    scores = [
        *scores_of("base", [[0.5, 0.5]]),
        *scores_of("other case", [[None, None, 0.7]]),
        score("other seed", 9, "a", 0.7),
        *scores_of("other labels", [[0.7, 0.7]], labels=8),
        *scores_of("arm", [[0.75, 0.75]]),
    ]
    found = compare(
        scores, arms=("base", "other case", "other seed", "other labels", "arm"), label_counts=(4, 8)
    )
    assert [(d.arm, d.labels, d.dice.mean) for d in found] == [("arm", 4, 0.25)]


def test_pairing_tells_a_small_effect_among_very_different_cases():
    rng = np.random.default_rng(0)
    base = np.clip(rng.uniform(0.1, 0.9, (1, 8)) + rng.normal(0, 0.002, (3, 8)), 0, 1)
    arm = base + 0.02 + rng.normal(0, 0.002, (3, 8))
    scores = [*scores_of("base", base.tolist()), *scores_of("arm", arm.tolist())]
    (found,) = compare(scores)
    unpaired = summarise(scores, [], ["arm"], [4], 0.95)[0].dice
    assert 0.01 < found.dice.low < 0.02 < found.dice.high < 0.03
    assert found.share_better == 1
    assert half_width(found.dice) < half_width(unpaired) / 20


@pytest.mark.parametrize("reorder", [lambda s: s[::-1], lambda s: random.Random(0).sample(s, len(s))])
def test_the_order_of_scores_does_not_matter(reorder):
    rng = np.random.default_rng(0)
    scores = [
        s
        for arm in ("base", "arm")
        for value in (1, 2, 3)
        for s in scores_of(arm, rng.uniform(size=(3, 8)).tolist(), value=value)
    ]
    assert compare(reorder(scores)) == compare(scores)
    assert summarise(reorder(scores), [], ["arm"], [4], 0.95) == summarise(scores, [], ["arm"], [4], 0.95)


BASE_AND_ARM = [
    *scores_of("base", [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]),
    *scores_of("arm", [[0.6, 0.6], [0.7, 0.7], [0.0, 0.0]]),
]


@pytest.mark.parametrize("side", ["base", "arm"])
def test_seeds_with_a_class_at_zero_are_also_left_out(side):
    """Whichever side has it; a class at zero elsewhere does not matter."""
    runs = [
        run(side, 2, zero_classes=(1,)),
        run(side, 0, labels=8, zero_classes=(1,)),
        run("third", 1, zero_classes=(1,)),
        run(side, 1),
    ]
    (found,) = compare(BASE_AND_ARM, runs)
    assert found.dice.mean == pytest.approx((0.1 + 0.2 - 0.5) / 3)
    assert found.without_zero_runs.mean == pytest.approx(0.15)
    assert (found.seeds, found.seeds_without_zero_runs) == (3, 2)


@pytest.mark.parametrize(("with_zero", "left"), [((), 3), ((0, 1, 2), 0)])
def test_where_none_or_all_have_a_class_at_zero_nothing_is_left_out(with_zero, left):
    runs = [run("arm", seed, zero_classes=(1,) * (seed in with_zero)) for seed in range(3)]
    (found,) = compare(BASE_AND_ARM, runs)
    assert found.without_zero_runs is None
    assert (found.seeds, found.seeds_without_zero_runs) == (3, left)


def test_predictions_of_another_tool_are_compared_like_any_arm():
    runs = [run("arm", 2, stage="foreign", zero_classes=(1,))]
    (found,) = compare(BASE_AND_ARM, runs)
    assert found.seeds_without_zero_runs == 2


@pytest.mark.parametrize("side", ["arm", "base"])
def test_a_seed_whose_pretraining_collapsed_is_not_compared(side):
    everything, without = (
        compare(BASE_AND_ARM, [run(side, 1, collapse=found)])[0] for found in ("", "complete at step 9, ...")
    )
    assert (everything.seeds, without.seeds) == (3, 2)
    assert everything.dice.mean != without.dice.mean
    assert everything.with_collapsed is None
    assert without.with_collapsed == everything.dice


def test_an_arm_that_collapsed_in_every_seed_has_no_difference():
    assert compare(BASE_AND_ARM, [run("arm", seed, collapse="complete") for seed in range(3)]) == ()
