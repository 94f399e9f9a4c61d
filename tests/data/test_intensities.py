"""Grey values measured in pieces are those of the whole."""

import numpy as np
import pytest
from fewvox.data import intensities as module
from fewvox.data.intensities import Intensity, IntensityMeter, measure
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

DTYPES = (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64)


def metered(values: np.ndarray, cuts: list[int]) -> Intensity:
    meter = IntensityMeter(values.size)
    for piece in np.split(values, cuts):
        if piece.size:
            meter.add(piece)
    return meter.result()


def by_numpy(values: np.ndarray) -> Intensity:
    exact = values.astype(np.float64)
    low, middle, high = np.percentile(exact, (0.5, 50, 99.5))
    return Intensity(
        lowest=exact.min(),
        percentile_0_5=low,
        median=middle,
        percentile_99_5=high,
        highest=exact.max(),
        mean=exact.mean(),
        std=exact.std(),
    )


def arrays(dtype):
    limits = {"min_value": -1e6, "max_value": 1e6} if np.dtype(dtype).kind == "f" else {}
    elements = hnp.from_dtype(np.dtype(dtype), **limits)
    return hnp.arrays(dtype, st.integers(1, 60), elements=elements)


@given(st.sampled_from(DTYPES).flatmap(arrays), st.lists(st.integers(0, 60), max_size=5).map(sorted))
def test_whatever_the_pieces_the_grey_values_are_those_of_numpy(values, cuts):
    found, expected = vars(metered(values, cuts)), vars(by_numpy(values))
    scale = float(np.abs(values.astype(np.float64)).max()) or 1.0
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-6 * scale), name


@pytest.mark.parametrize("values", [[-128, 127], [False, True]])
def test_narrow_types_do_not_overflow_between_their_ends(values):
    """numpy's median of -128 and 127 in int8 is 127.5, and of bool an error."""
    dtype = np.int8 if values[0] else bool
    found = metered(np.array(values, dtype), [])
    assert found.median == pytest.approx(np.mean(values))


@given(st.lists(st.integers(0, 4000), max_size=6).map(sorted))
def test_a_sample_does_not_depend_on_the_pieces(cuts):
    values = np.random.default_rng(0).normal(size=4000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SAMPLE", 100)
        whole, pieces = metered(values, []), metered(values, cuts)
        meter = IntensityMeter(values.size)
        meter.add(values)
        assert 60 <= sum(map(len, meter._sample)) <= 100
    assert (pieces.percentile_0_5, pieces.median, pieces.percentile_99_5) == (
        whole.percentile_0_5,
        whole.median,
        whole.percentile_99_5,
    )
    assert (pieces.lowest, pieces.highest) == (values.min(), values.max())
    assert (pieces.mean, pieces.std) == pytest.approx((values.mean(), values.std()))


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_sample_is_of_the_whole_volume_and_not_of_its_border(monkeypatch, axis):
    """Every 64th of 64^3 voxels once were those with x = 0: percentiles of a bright volume were all 0."""
    monkeypatch.setattr(module, "_SAMPLE", 32**3 // 32)
    volume = np.full((1, 32, 32, 32), 100, np.uint8)
    border = [slice(None)] * 4
    border[axis] = slice(0, 8)
    volume[tuple(border)] = 0
    measured = measure(volume)
    assert (measured.percentile_0_5, measured.median, measured.percentile_99_5) == (0, 100, 100)
    assert measured.mean == pytest.approx(75)
