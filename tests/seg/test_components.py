"""Components of masks, and what is kept of them."""

import numpy as np
import pytest
from fewvox.seg.components import at_least, components, filled, kept, otsu
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

MASKS = arrays(bool, st.tuples(*[st.integers(1, 6)] * 3))


def cubes(*edges, shape=(12, 12, 60)):
    """Cubes of these edges in a row, three voxels apart."""
    mask, at = np.zeros(shape, bool), 1
    for edge in edges:
        mask[1 : 1 + edge, 1 : 1 + edge, at : at + edge] = True
        at += edge + 3
    return mask


def test_voxels_that_touch_by_a_corner_are_one_component():
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    numbers, voxels = components(mask)
    assert voxels.tolist() == [2]
    assert (numbers > 0).tolist() == mask.tolist()


def test_a_hole_does_not_leak_through_a_corner():
    mask = np.ones((5, 5, 5), bool)
    mask[2, 2, 2] = mask[1, 1, 1] = mask[0, 0, 0] = False
    expected = np.ones((5, 5, 5), bool)
    expected[0, 0, 0] = False
    np.testing.assert_array_equal(filled(mask), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_hole_in_a_single_slice_is_filled(axis):
    mask = np.ones((5, 6), bool)
    mask[2:4, 2] = mask[0, 4] = False
    expected = mask.copy()
    expected[2:4, 2] = True
    np.testing.assert_array_equal(filled(np.expand_dims(mask, axis)), np.expand_dims(expected, axis))


@pytest.mark.parametrize("value", [False, True])
def test_a_single_voxel_has_no_hole(value):
    mask = np.full((1, 1, 1), value)
    np.testing.assert_array_equal(filled(mask), mask)


def test_the_largest_is_kept():
    mask = cubes(2, 4, 3)
    alone = kept(mask, "largest")
    assert alone.sum() == 64
    assert not (alone & ~mask).any()


def test_noise_goes_and_objects_that_vary_stay():
    assert kept(cubes(1, 1, 5, 6, 7), "otsu").sum() == 125 + 216 + 343
    alike = cubes(5, 6, 7, 5)
    np.testing.assert_array_equal(kept(alike, "otsu"), alike)
    np.testing.assert_array_equal(kept(cubes(3, 3), "otsu"), cubes(3, 3))


def test_a_component_of_just_the_smallest_volume_stays():
    assert at_least(cubes(2, 3), 27).sum() == 27
    assert at_least(cubes(2, 3), 27.5).sum() == 0
    assert at_least(cubes(2, 3), 8).sum() == 35


@pytest.mark.parametrize("keep", ["all", "largest", "otsu"])
@given(mask=MASKS)
def test_whole_components_are_kept_and_the_largest_among_them(keep, mask):
    numbers, voxels = components(mask)
    left = kept(mask, keep)
    assert not (left & ~mask).any()
    for number in range(1, len(voxels) + 1):
        assert len(set(left[numbers == number].tolist())) == 1
    if len(voxels):
        assert left[numbers == 1 + int(voxels.argmax())].all()


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_the_threshold_parts_values_as_no_other_does_better(values):
    values = np.asarray(values)

    def between(threshold):
        low, high = values[values <= threshold], values[values > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    assert between(otsu(values)) >= max(between(v) for v in values) - 1e-6 * max(1, np.abs(values).max() ** 2)
