"""What a network sees: the plan's spacing, mean 0, standard deviation 1."""

from dataclasses import replace

import numpy as np
import pytest
from fewvox.data.errors import UserError
from fewvox.data.intensities import measure
from fewvox.data.plan import Preprocessing, Window
from fewvox.data.preprocess import normalised, preprocess, spacing_in_plan, target_shape, value_range
from fewvox.data.volume import Volume

RNG = np.random.default_rng(0)
HOW = Preprocessing(
    unit="um",
    spacing=(2.0, 1.0, 1.0),
    orientation="stored",
    channels=("red", "green"),
    normalisation=("zscore", "zscore"),
)
VOLUME = Volume(
    array=RNG.integers(0, 60000, (2, 4, 6, 5)).astype(np.uint16),
    spacing=(2.0, 1.0, 1.0),
    unit="um",
    channels=("red", "green"),
)


def zscore(channel: np.ndarray) -> np.ndarray:
    """A channel (Z, Y, X) normalised alone."""
    how = replace(HOW, channels=("red",), normalisation=("zscore",), spacing=None, unit=None)
    return preprocess(Volume(array=channel[None], channels=("red",)), how, "a.tif")[0]


def test_each_channel_is_normalised_by_its_own_mean_and_deviation():
    out = preprocess(VOLUME, HOW, "a.tif")
    assert (out.dtype, out.shape) == (np.float32, (2, 4, 6, 5))
    wide = VOLUME.array.astype(np.float64)
    for channel, raw in zip(out, wide, strict=True):
        np.testing.assert_allclose(channel, (raw - raw.mean()) / raw.std(), atol=1e-5)


@pytest.mark.parametrize(("scale", "shift"), [(1e-9, 0.0), (1e20, 0.0), (1.0, 1000.0), (-3.0, 5.0)])
def test_the_scale_of_the_grey_values_does_not_matter(scale, shift):
    raw = RNG.normal(size=(6, 7, 8)).astype(np.float32)
    np.testing.assert_allclose(
        zscore((raw * scale + shift).astype(np.float32)), zscore(raw) * np.sign(scale), atol=1e-3
    )


@pytest.mark.parametrize("value", [0, 7, 1e-30, 0.1, 3e38])
def test_a_constant_channel_becomes_zero(value):
    out = zscore(np.full((40, 41, 43), value, np.float32))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint32, np.float64])
def test_wide_types_are_shifted_before_they_lose_digits(dtype):
    raw = RNG.integers(0, 100, (6, 7, 8)) + (0 if dtype == np.uint8 else 10**9)
    expected = (raw - raw.mean()) / raw.std()
    np.testing.assert_allclose(zscore(raw.astype(dtype)), expected, atol=1e-5)


def normalise(raw: np.ndarray, scheme: str, window: Window | None = None) -> np.ndarray:
    how = replace(HOW, channels=("red",), normalisation=(scheme,), windows=(window,))
    found = [measure(raw[None])]
    out = normalised(raw[None], how, found)
    assert value_range(how, found) == pytest.approx((out.min(), out.max()))
    return out[0]


def test_percentiles_become_0_and_1_and_nothing_is_clipped():
    raw = RNG.normal(100, 10, (20, 20, 20)).astype(np.float32)
    out = normalise(raw, "percentile")
    np.testing.assert_allclose(np.percentile(out, (0.5, 99.5)), (0, 1), atol=1e-4)
    assert out.max() > 1


def test_a_volume_with_one_bright_voxel_stays_finite():
    raw = np.zeros((20, 20, 20), np.uint16)
    raw[3, 4, 5] = 9
    for scheme in ("zscore", "percentile", "none"):
        out = normalise(raw, scheme)
        assert np.isfinite(out).all()
        assert out[3, 4, 5] == out.max() > out[0, 0, 0]


def test_ct_is_clipped_and_scaled_by_the_window_of_the_data_set():
    raw = np.array([-2000, -100, 40, 3000], np.int16).reshape(1, 2, 2)
    out = normalise(raw, "ct", Window(low=-900.0, high=300.0, mean=50.0, std=100.0))
    np.testing.assert_allclose(out.ravel(), [-9.5, -1.5, -0.1, 2.5], atol=1e-6)


def test_none_leaves_values_as_they_are():
    raw = RNG.integers(0, 9, (3, 4, 5)).astype(np.uint8)
    np.testing.assert_array_equal(normalise(raw, "none"), raw)


def test_a_coarse_axis_keeps_its_slices():
    how = replace(HOW, orders=(0, 1, 1), spacing=(2.0, 1.0, 1.0))
    coarse = replace(VOLUME, spacing=(4.0, 1.0, 1.0))
    np.testing.assert_array_equal(
        preprocess(coarse, how, "a"), np.repeat(preprocess(VOLUME, HOW, "a"), 2, axis=1)
    )


def test_a_volume_of_another_spacing_is_resampled_to_the_plans():
    finer = replace(VOLUME, spacing=(1.0, 1.0, 0.5))
    assert target_shape(finer, HOW, "a.tif") == (2, 6, 2)
    assert preprocess(finer, HOW, "a.tif").shape == (2, 2, 6, 2)


def test_spacing_in_another_unit_is_converted():
    in_mm = replace(VOLUME, spacing=(0.002, 0.001, 0.001), unit="mm")
    assert spacing_in_plan(in_mm, HOW, "a.tif") == pytest.approx((2.0, 1.0, 1.0))
    assert preprocess(in_mm, HOW, "a.tif").shape == (2, 4, 6, 5)


def test_a_plan_without_spacing_leaves_every_grid_as_it_is():
    how = replace(HOW, spacing=None, unit=None)
    assert target_shape(replace(VOLUME, spacing=None, unit=None), how, "a.tif") == (4, 6, 5)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"channels": ("green", "red")}, r"channels \(green, red\)"),
        ({"array": VOLUME.array[:1], "channels": ("red",)}, "1 channels"),
        ({"spacing": None, "unit": None}, "no voxel spacing"),
        ({"unit": None}, "spacing in no unit"),
    ],
)
def test_a_volume_that_does_not_fit_the_plan_is_refused(fields, told):
    with pytest.raises(UserError, match=told) as caught:
        preprocess(replace(VOLUME, **fields), HOW, "a.tif")
    assert caught.value.where == "a.tif"


def test_a_volume_without_orientation_does_not_fit_a_plan_with_one():
    with pytest.raises(UserError, match="orientation 'stored'"):
        preprocess(VOLUME, replace(HOW, orientation="RAS"), "a.tif")
    oriented = replace(VOLUME, orientation="RAS")
    np.testing.assert_array_equal(preprocess(oriented, HOW, "a"), preprocess(VOLUME, HOW, "a"))


def test_channels_may_have_other_names_but_not_another_order():
    renamed = replace(VOLUME, channels=("channel0", "channel1"))
    np.testing.assert_array_equal(preprocess(renamed, HOW, "a"), preprocess(VOLUME, HOW, "a"))


def test_a_volume_does_not_depend_on_its_neighbours():
    alone = replace(VOLUME, array=VOLUME.array[:1], channels=("red",))
    how = replace(HOW, channels=("red",), normalisation=("zscore",))
    np.testing.assert_array_equal(preprocess(alone, how, "a"), preprocess(VOLUME, HOW, "a")[:1])
