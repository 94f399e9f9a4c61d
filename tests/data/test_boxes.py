"""Boxes lie where they are said to, inside the volume or over its border."""

import numpy as np
import pytest
from fewvox.data.boxes import centred_start, random_start, read_box
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


def test_random_boxes_reach_every_place_equally_often():
    rng = np.random.default_rng(0)
    starts = np.array([random_start((5, 3, 2), (3, 3, 4), rng) for _ in range(3000)])
    assert set(starts[:, 1]) == {0}
    for axis, places in ((0, (0, 1, 2)), (2, (-2, -1, 0))):
        counts = [(starts[:, axis] == place).sum() for place in places]
        assert counts == pytest.approx([1000] * 3, rel=0.1)
        assert sum(counts) == 3000


@pytest.mark.parametrize("patch", [(3, 5, 7), (4, 6, 8), (1, 1, 1)])
def test_the_centre_is_the_voxel_in_the_middle_of_the_patch(patch):
    array = np.zeros((9, 9, 9))
    array[4, 0, 8] = 1
    box = read_box(array, centred_start(np.array([4, 0, 8]), patch), patch)
    assert box[tuple(n // 2 for n in patch)] == 1
