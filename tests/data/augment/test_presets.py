"""Presets: complete, and as strong as they say."""

import pytest
from fewvox.data.augment.chain import preset
from fewvox.data.augment.presets import PRESETS
from fewvox.data.settings import plain


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_shows_every_number(name):
    config = preset(name)
    written = plain(config)
    assert written["preset"] == name
    for key, operation in config.chain.items():
        assert set(written["chain"][key]) == set(vars(operation))
        assert written["chain"][key]["op"] == PRESETS[name]["chain"][key]["op"]


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_preset_says_is_what_it_is(name):
    config = preset(name)
    for key, said in PRESETS[name].get("chain", {}).items():
        assert {field: getattr(config.chain[key], field) for field in said} == said
    spatial = PRESETS[name].get("spatial", {})
    assert {field: getattr(config.spatial, field) for field in spatial} == spatial


def test_the_order_is_nnunets():
    assert list(preset("nnunet").chain) == [
        "noise",
        "blur",
        "brightness",
        "contrast",
        "low_resolution",
        "inverted_gamma",
        "gamma",
    ]


def stronger(one, other) -> bool:
    """Whether every range of one holds the other's, and every other number is no less."""
    if isinstance(one, tuple):
        return one[0] <= other[0] and other[1] <= one[1]
    return isinstance(one, str) or one is None or one >= other


@pytest.mark.parametrize("weaker", ["weak", "nnunet"])
def test_strong_is_stronger_in_every_respect(weaker):
    strong, other = preset("strong"), preset(weaker)
    pairs = [(strong.spatial, other.spatial)] + [
        (strong.chain[key], value) for key, value in other.chain.items()
    ]
    for one, two in pairs:
        assert all(stronger(vars(one)[key], value) for key, value in vars(two).items()), (one, two)


def test_none_is_nothing():
    config = preset("none")
    assert config.spatial is None
    assert config.chain == {}
