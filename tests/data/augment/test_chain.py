"""A chain does what its settings and a seed say, and settings read back as they were written."""

from dataclasses import replace
from typing import Annotated

import numpy as np
import pytest
import torch
from fewvox.data.augment.chain import AugmentConfig, changed, completed, preset
from fewvox.data.augment.intensity import Blur, Brightness
from fewvox.data.augment.presets import PRESETS
from fewvox.data.settings import SettingsError, parse, plain, settings
from pydantic import BeforeValidator

IMAGE = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 6, 7, 8)).astype(np.float32))
ALL = preset("strong", chain={name: {"probability": 1.0} for name in PRESETS["strong"]["chain"]}).chain


@settings
class File:
    """Some settings that hold an augmentation."""

    augment: Annotated[AugmentConfig, BeforeValidator(completed("nnunet"))] = preset("nnunet")


def read(said) -> AugmentConfig:
    return parse(File, {"augment": said}, "a file").augment


def refusal(said) -> str:
    with pytest.raises(SettingsError) as error:
        read(said)
    return str(error.value)


def after(chain, seed=0) -> torch.Tensor:
    return changed(IMAGE.clone(), chain, seed)


def test_the_seed_alone_decides():
    torch.manual_seed(0)
    np.random.seed(0)
    first = after(ALL)
    torch.manual_seed(1)
    np.random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1]
    assert torch.equal(after(ALL), first)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert not torch.equal(after(ALL, seed=1), first)


def test_an_image_comes_out_with_its_shape_and_finite():
    for seed in range(20):
        out = after(ALL, seed)
        assert out.shape == IMAGE.shape
        assert out.dtype == torch.float32
        assert out.isfinite().all()


def test_a_probability_is_how_often_an_image_is_changed():
    chain = {"brightness": Brightness(probability=0.3)}
    times = [not torch.equal(after(chain, seed), IMAGE) for seed in range(1000)]
    assert np.mean(times) == pytest.approx(0.3, abs=0.04)


def test_probability_zero_and_no_operation_change_nothing():
    assert torch.equal(after({"blur": Blur(probability=0), "noise": None}), IMAGE)


def test_no_operation_shifts_the_draws_of_another():
    blur, brightness = Blur(probability=1), Brightness(probability=0.5)
    for seed in range(20):
        alone = changed(IMAGE.clone(), {"brightness": brightness}, seed)
        for first in (None, Blur(probability=0)):
            assert torch.equal(changed(IMAGE.clone(), {"blur": first, "brightness": brightness}, seed), alone)
        both = changed(IMAGE.clone(), {"blur": blur, "brightness": brightness}, seed)
        blurred = changed(IMAGE.clone(), {"blur": blur}, seed)
        assert torch.equal(both, changed(blurred, {"brightness": brightness}, seed))


def test_two_of_a_kind_have_draws_of_their_own():
    one, other = (after({name: Brightness(probability=1)}) for name in ("one", "other"))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_reads_back_as_it_was_written(name):
    config = preset(name)
    assert read(plain(config)) == config
    assert read(name) == config
    assert list(read(plain(config)).chain) == list(config.chain)


def test_what_is_not_said_comes_from_the_preset():
    config = read({"chain": {"noise": {"probability": 0.7}}, "spatial": {"scale": [0.9, 1.1]}})
    base = preset("nnunet")
    assert config.chain["noise"].probability == 0.7
    assert config.chain["noise"].deviation == base.chain["noise"].deviation
    assert config.chain["gamma"] == base.chain["gamma"]
    assert config.spatial.scale == (0.9, 1.1)
    assert config.spatial.rotation_probability == base.spatial.rotation_probability


def test_null_leaves_out():
    config = read({"preset": "weak", "chain": {"gamma": None}, "spatial": None})
    assert config.spatial is None
    assert config.chain["gamma"] is None
    assert config.chain["contrast"] == preset("weak").chain["contrast"]
    assert read(plain(config)) == config


MINE = {"op": "brightness", "factor": [2, 2]}


@pytest.mark.parametrize(
    ("said", "order"),
    [
        ({"mine": MINE}, ["brightness", "contrast", "gamma", "mine"]),
        ({"gamma": {}, "mine": MINE}, ["brightness", "contrast", "gamma", "mine"]),
        ({"mine": MINE, "gamma": {}}, ["brightness", "contrast", "mine", "gamma"]),
        ({"mine": MINE, "two": MINE, "brightness": {}}, ["mine", "two", "brightness", "contrast", "gamma"]),
        ({"gamma": {}, "brightness": {}}, ["brightness", "contrast", "gamma"]),
        (
            {"one": MINE, "contrast": None, "two": MINE, "gamma": {}, "three": MINE},
            ["brightness", "one", "contrast", "two", "gamma", "three"],
        ),
    ],
)
def test_a_new_operation_stands_before_the_one_written_after_it(said, order):
    config = read({"preset": "weak", "chain": said})
    assert list(config.chain) == order
    assert list(read(plain(config)).chain) == order
    assert read(plain(config)) == config


def test_an_operation_of_another_kind_replaces_that_of_the_preset():
    config = read({"chain": {"noise": {"op": "blur"}}})
    assert config.chain["noise"] == Blur()


def test_mistakes_are_told_by_name():
    assert "there is no preset 'strongest', there are: nnunet, biom3d" in refusal("strongest")
    assert "there is no preset ['weak']" in refusal({"preset": ["weak"]})
    assert "'augment.chain.noise.deviation.0' is -1" in refusal({"chain": {"noise": {"deviation": [-1, 1]}}})
    told = refusal({"chain": {"mine": {"op": "blurr"}}})
    assert "blurr" in told
    assert "'augment.chain.mine' is " in told
    assert "one of: bias_field, blur, brightness" in told
    assert "'augment.chain.mine' is 3: an operation has an `op`" in refusal({"chain": {"mine": 3}})
    assert "an operation has an `op`" in refusal({"chain": {"mine": {"op": ["blur"]}}})
    assert "unknown key 'augment.chain.blur.sgima'" in refusal({"chain": {"blur": {"sgima": [1, 2]}}})
    assert "augment.chain" in refusal({"chain": ["noise"]})
    assert "augment.chain" in refusal({"chain": None})
    assert "'augment' is 3" in refusal(3)


def test_a_misspelt_operation_is_told_with_those_of_the_preset():
    told = refusal({"preset": "weak", "chain": {"gama": {"probability": 0.3}, "nois": {}, "blur": None}})
    assert (
        "'augment.chain.gama' is {'probability': 0.3}: the preset weak has no operation of that name" in told
    )
    assert "it has: brightness, contrast, gamma; a new one needs an `op`, one of: bias_field, blur" in told
    assert "'augment.chain.nois' is {}" in told
    assert "it has: none; a new one" in refusal({"preset": "none", "chain": {"blur": {}}})


def test_operations_made_in_python_may_stand_beside_settings():
    chain = preset("weak", chain={"mine": Blur(), "gamma": {"probability": 1}}).chain
    assert chain["mine"] == Blur()
    assert chain["gamma"] == replace(preset("weak").chain["gamma"], probability=1.0)
