"""Boxes lie where they are said to, inside the volume or over its border."""

import numpy as np
import pytest
from fewvox.data.boxes import random_start, read_box
from hypothesis import given
from hypothesis import strategies as st

extents = st.tuples(*[st.integers(1, 6)] * 3)


@given(
    extents,
    extents,
    st.tuples(*[st.integers(-9, 9)] * 3),
    st.sampled_from([(), (2,)]),
    st.sampled_from([0, -1]),
)
def test_a_box_is_what_a_padded_volume_has_there(shape, size, start, lead, outside):
    array = np.arange(1, 1 + np.prod((*lead, *shape))).reshape(*lead, *shape)
    padded = np.pad(array, [(0, 0)] * len(lead) + [(20, 20)] * 3, constant_values=outside)
    window = tuple(slice(20 + a, 20 + a + n) for a, n in zip(start, size, strict=True))
    out = read_box(array, np.array(start), size, outside)
    np.testing.assert_array_equal(out, padded[(..., *window)])
    assert out.dtype == array.dtype


@given(extents, extents, st.integers(0, 2**32))
def test_a_random_box_lies_inside_or_holds_the_volume_whole(shape, patch, seed):
    start = random_start(shape, patch, np.random.default_rng(seed))
    for first, extent, size in zip(start, shape, patch, strict=True):
        if size <= extent:
            assert 0 <= first <= extent - size
        else:
            assert first <= 0
            assert first + size >= extent


@pytest.mark.parametrize(("extent", "size"), [(30, 10), (31, 10), (64, 9), (200, 40)])
def test_voxels_at_the_border_are_seen_at_least_half_as_often_as_those_in_the_middle(extent, size):
    rng = np.random.default_rng(0)
    starts = np.array([random_start((extent,) * 3, (size,) * 3, rng) for _ in range(4000)])[:, 1]
    seen = np.array([((starts <= x) & (x < starts + size)).mean() for x in range(extent)])
    middle = size / extent
    assert (seen > 0.42 * middle).all()
    assert (seen < 1.6 * middle).all()
    np.testing.assert_allclose(seen[size:-size], middle, rtol=0.25)


def test_a_volume_smaller_than_the_patch_lies_everywhere_in_it_as_often():
    rng = np.random.default_rng(0)
    starts = np.array([random_start((3, 2, 4), (3, 4, 4), rng) for _ in range(3000)])
    assert (starts[:, [0, 2]] == 0).all()
    assert [(starts[:, 1] == place).sum() for place in (-2, -1, 0)] == pytest.approx([1000] * 3, rel=0.1)
