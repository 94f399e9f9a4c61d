"""Warm-up and decay of the learning rate."""

import itertools

import pytest
from fewvox.seg.engine.schedules import ScheduleConfig, lr_factor


def factors(steps, **fields):
    return [lr_factor(step, steps, ScheduleConfig(**fields)) for step in range(steps)]


def test_the_rate_rises_in_a_line_to_the_peak_and_then_only_falls():
    found = factors(100, warmup_share=0.1)
    assert found[:11] == pytest.approx([(i + 1) / 11 for i in range(11)])
    assert found[10] == 1
    assert all(a > b for a, b in itertools.pairwise(found[10:]))


def test_the_decay_is_a_polynomial_that_ends_at_zero():
    assert factors(10, warmup_share=0, power=0.9) == pytest.approx([(1 - i / 10) ** 0.9 for i in range(10)])
    assert lr_factor(10, 10, ScheduleConfig(warmup_share=0)) == 0


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
def test_no_step_of_a_short_training_is_lost(steps, share):
    assert all(0 < f <= 1 for f in factors(steps, warmup_share=share))
