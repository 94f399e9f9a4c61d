"""The learning rate of each block over a training, by the name of the schedule."""

import itertools
from dataclasses import replace
from typing import get_args

import pytest
from fewvox.seg.engine.schedules import ScheduleConfig, ScheduleName, lr_factor, resolved_schedule

NAMES = get_args(ScheduleName)
BLOCKS = ["encoder.0", "encoder.1", "encoder.2", "decoder.0", "decoder.1", "output"]


def factors(steps, block="output", **fields):
    config = resolved_schedule(ScheduleConfig(**fields), steps)
    return [lr_factor(step, steps, config, block, BLOCKS) for step in range(steps)]


def test_the_rate_rises_in_a_line_to_the_peak_and_then_only_falls():
    found = factors(100, warmup_share=0.1)
    assert found[:11] == pytest.approx([(i + 1) / 11 for i in range(11)])
    assert found[10] == 1
    assert all(a > b for a, b in itertools.pairwise(found[10:]))


def test_the_decay_is_a_polynomial_that_ends_at_zero():
    assert factors(10, warmup_share=0, power=0.9) == pytest.approx([(1 - i / 10) ** 0.9 for i in range(10)])
    config = ScheduleConfig(name="standard", warmup_share=0)
    assert lr_factor(10, 10, config, "output", BLOCKS) == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("share", [None, 0.0, 0.5, 0.99])
def test_the_output_learns_in_every_step_of_every_schedule(name, steps, share):
    assert all(0 < f <= 1 for f in factors(steps, name=name, warmup_share=share))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "frozen"])
def test_every_block_learns_before_a_training_ends(name):
    assert all(factors(60, block, name=name)[-1] > 0 for block in BLOCKS)


@pytest.mark.parametrize("name", ["standard", "warmup"])
def test_all_blocks_learn_alike(name):
    assert all(factors(50, block, name=name) == factors(50, name=name) for block in BLOCKS)


def test_a_long_warm_up_is_a_fifth_of_the_training():
    assert factors(100, name="warmup").index(1.0) == 20


@pytest.mark.parametrize(("steps", "peak"), [(50, 10), (100, 20), (250, 25), (500, 25), (2000, 100)])
def test_the_warm_up_has_25_steps_within_5_and_20_percent(steps, peak):
    assert factors(steps).index(1.0) == peak


def test_a_sawtooth_raises_the_decoder_twice_and_the_encoder_once():
    decoder, encoder = (factors(100, b, name="sawtooth") for b in ("decoder.0", "encoder.2"))
    assert encoder[:15] == [0.0] * 15
    assert decoder[:15] == pytest.approx([(i + 1) / 15 for i in range(15)])
    assert decoder[15:] == encoder[15:]
    # the second warm-up is a tenth of the whole training
    assert decoder[15] == pytest.approx(1 / 11)
    assert decoder.index(1.0, 15) == 25


def test_a_valley_falls_before_it_rises():
    decoder, encoder = (factors(100, b, name="valley") for b in ("output", "encoder.0"))
    assert encoder[:15] == [0.0] * 15
    assert decoder[:15] == pytest.approx([1 - i / 15 for i in range(15)])
    assert decoder[15:] == encoder[15:]
    assert max(decoder[15:]) == 1


def test_a_frozen_encoder_never_learns_and_the_rest_goes_as_always():
    assert not any(any(factors(30, b, name="frozen")) for b in BLOCKS[:3])
    assert all(factors(30, b, name="frozen") == factors(30) for b in BLOCKS[3:])


def test_blocks_are_released_from_the_output_to_the_input():
    first = [next(i for i, f in enumerate(factors(100, b, name="progressive")) if f) for b in BLOCKS]
    assert first == [50, 40, 30, 20, 10, 0]
    assert factors(100, "encoder.0", name="progressive")[50:] == factors(100)[50:]


def test_each_block_learns_slower_than_the_one_after_it():
    found = [factors(100, b, name="layerwise", layer_decay=0.5)[40] for b in BLOCKS]
    assert found == pytest.approx([found[-1] * 0.5**i for i in (5, 4, 3, 2, 1, 0)])


def test_auto_is_what_the_training_says_and_a_chosen_name_stays():
    assert resolved_schedule(ScheduleConfig(), 100).name == "standard"
    assert resolved_schedule(ScheduleConfig(), 100, "sawtooth").name == "sawtooth"
    assert resolved_schedule(ScheduleConfig(name="valley"), 100, "sawtooth").name == "valley"


def test_an_unresolved_configuration_is_refused():
    config = replace(ScheduleConfig(), name="standard")
    with pytest.raises(ValueError, match="resolve"):
        lr_factor(0, 10, config, "output", BLOCKS)
