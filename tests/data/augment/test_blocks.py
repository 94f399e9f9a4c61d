"""Boxes lie in the image, with edges within their range, anywhere alike."""

import numpy as np
import pytest
from fewvox.data.augment.blocks import as_slices, draw_blocks, edge_voxels
from fewvox.data.augment.draws import Draws
from hypothesis import given
from hypothesis import strategies as st

SHAPES = st.tuples(*[st.integers(1, 40)] * 3)
EDGES = st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted)


@given(SHAPES, EDGES, st.integers(0, 99))
def test_blocks_lie_in_the_image_and_keep_to_their_range(shape, edge, seed):
    blocks = draw_blocks(shape, 20, tuple(edge), Draws((seed,)))
    starts, edges = blocks[:, 0], blocks[:, 1]
    assert (starts >= 0).all()
    assert (starts + edges <= shape).all()
    assert (edges >= 1).all()
    assert (edges >= np.floor(np.array(shape) * edge[0])).all()
    assert (edges <= np.maximum(1, np.array(shape) * edge[1] + 1e-6)).all()


def test_all_edges_and_places_are_drawn():
    blocks = draw_blocks((8, 10, 1), 500, (0.1, 0.5), Draws((0,)))
    assert set(blocks[:, 1, 0]) == {1, 2, 3, 4}
    assert set(blocks[:, 1, 1]) == {1, 2, 3, 4, 5}
    assert set(blocks[:, 1, 2]) == {1}
    assert set(blocks[:, 0, 0]) == set(range(8))
    ends = (blocks[:, 0] + blocks[:, 1]).max(axis=0)
    np.testing.assert_array_equal(ends, (8, 10, 1))


@pytest.mark.parametrize(
    ("edge", "share", "voxels"), [(30, 0.1, 3), (96, 1 / 3, 32), (9, 0.1, 1), (100, 0.29, 29)]
)
def test_a_share_of_an_edge_is_rounded_down(edge, share, voxels):
    assert edge_voxels((edge, edge, edge), share).tolist() == [voxels] * 3


def test_slices_are_of_the_axes_in_their_order():
    assert as_slices(np.array([[[1, 2, 3], [4, 5, 6]]])) == [(slice(1, 5), slice(2, 7), slice(3, 9))]
