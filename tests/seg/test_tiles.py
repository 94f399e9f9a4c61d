"""Windows lie where nnU-Net has them, cover every voxel, and overlap as asked."""

import itertools

import pytest
from fewvox.seg.tiles import Tiles
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("extent", "patch", "overlap", "starts"),
    # those of nnU-Net 2.8.1 (compute_steps_for_sliding_window)
    [
        (110, 64, 0.5, (0, 23, 46)),
        (192, 96, 0.5, (0, 48, 96)),
        (256, 96, 0.5, (0, 40, 80, 120, 160)),
        (12, 5, 0.5, (0, 2, 5, 7)),
        (14, 9, 0.25, (0, 5)),
        (9, 9, 0.5, (0,)),
        (7, 9, 0.5, (0,)),
    ],
)
def test_windows_start_where_those_of_nnunet_do(extent, patch, overlap, starts):
    tiles = Tiles(shape=(1, 1, extent), patch=(1, 1, patch), overlap=overlap)
    assert tiles.starts[2] == starts
    assert tiles.count == len(starts)


def test_there_are_as_few_windows_as_nnunet_s():
    assert Tiles(shape=(192, 256, 256), patch=(96, 96, 96)).count == 75


@settings(max_examples=200)
@given(
    axes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 23)), min_size=3, max_size=3),
    overlap=st.floats(0, 0.95),
)
def test_windows_cover_every_voxel_and_overlap_as_asked(axes, overlap):
    (pz, z), (py, y), (px, x) = axes
    tiles = Tiles(shape=(z, y, x), patch=(pz, py, px), overlap=overlap)
    for patch, extent, starts in zip(tiles.patch, tiles.padded, tiles.starts, strict=True):
        assert (starts[0], starts[-1]) == (0, extent - patch)
        # starts are rounded to voxels
        widest = max(1, patch * (1 - overlap))
        assert all(b - a < widest + 1 and b - a <= patch for a, b in itertools.pairwise(starts))


def test_the_windows_that_touch_rows_are_those_that_share_a_voxel_with_them():
    tiles = Tiles(shape=(4, 20, 4), patch=(4, 8, 4))
    assert tiles.starts[1] == (0, 4, 8, 12)
    assert tiles.touching(slice(8, 9)) == (4, 8)
    assert tiles.touching(slice(7, 8)) == (0, 4)
    assert tiles.touching(slice(0, 20)) == tiles.starts[1]


def test_an_image_smaller_than_the_patch_lies_in_the_middle():
    tiles = Tiles(shape=(1, 9, 3), patch=(4, 6, 6))
    assert (tiles.padded, tiles.before) == ((4, 9, 6), (1, 0, 1))
    assert tiles.inner == (slice(1, 2), slice(0, 9), slice(1, 4))
