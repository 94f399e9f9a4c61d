"""Where boxes are put: inside the volume, everywhere, and overlapping as asked or as near as there is."""

from types import SimpleNamespace

import numpy as np
import pytest
from fewvox.ssl.box import Box, placed, placed_overlapping
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

extents = st.tuples(*[st.one_of(st.just(1), st.integers(1, 90))] * 3)
sizes = st.tuples(*[st.floats(0.5, 100)] * 3).map(np.array)
shares = st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1))
seeds = st.integers(0, 2**32)


def lies_in(box: Box, extent) -> bool:
    """Inside the volume, or the volume in it, axis by axis."""
    inside = [box.start, box.start + box.size]
    low, high = np.minimum(0, extent - box.size), np.maximum(extent, box.size)
    return bool((inside[0] >= low - 1e-9).all() and (inside[1] <= high + 1e-9).all())


def two(extent, one, other, share, seed, per_axis=False) -> tuple[Box, Box]:
    rng = np.random.default_rng(seed)
    first = Box(start=placed(extent, one, rng), size=one)
    return first, Box(
        start=placed_overlapping(extent, first, other, share, rng, per_axis=per_axis), size=other
    )


def largest(first: Box, size: np.ndarray, extent) -> np.ndarray:
    """The largest share along each axis of the smaller box, of all places: by trying them."""
    edges = first.size if first.size.prod() <= size.prod() else size
    found = []
    for n, a, s, t, edge in zip(extent, first.start, first.size, size, edges, strict=True):
        slack = n - t
        tried = np.linspace(min(slack, 0), max(slack, 0), 500)
        # and where a border lies on a border
        tried = np.append(tried, np.clip([a, a + s - t], min(slack, 0), max(slack, 0)))
        common = np.minimum(tried + t, a + s) - np.maximum(tried, a)
        found.append(max(0.0, common.max()) / edge)
    return np.array(found)


@pytest.mark.parametrize(
    ("start", "share"),
    [((0, 0, 2), 1.0), ((0, 0, 3), 0.5), ((2, 3, 3), 0.125), ((4, 0, 0), 0.0), ((9, 9, 9), 0.0)],
)
def test_an_overlap_is_a_share_of_the_smaller_box(start, share):
    large = Box(start=np.zeros(3), size=np.array([4.0, 4.0, 4.0]))
    small = Box(start=np.array(start, float), size=np.array([4.0, 2.0, 2.0]))
    assert large.overlap(small) == small.overlap(large) == share


@pytest.mark.parametrize(
    ("extent", "share"), [((8, 8, 8), 0.0), ((9, 20, 30), 0.0), ((4, 8, 8), 0.5), ((2, 4, 9), 0.875)]
)
def test_what_is_beyond_the_volume_is_outside(extent, share):
    assert Box(start=np.zeros(3), size=np.full(3, 8.0)).outside(extent) == share


@given(extents, sizes, sizes, shares, seeds, st.booleans())
def test_boxes_lie_in_the_volume_or_hold_it(extent, one, other, share, seed, per_axis):
    assert all(lies_in(box, extent) for box in two(extent, one, other, share, seed, per_axis))


@given(extents, sizes, sizes, shares, seeds)
def test_the_overlap_is_at_least_what_is_asked_or_the_largest_there_is(extent, one, other, share, seed):
    first, second = two(extent, one, other, share, seed)
    most = largest(first, other, extent).prod()
    assert min(share, most) - 1e-9 <= first.overlap(second) <= most + 1e-9


@given(extents, sizes, sizes, shares, seeds)
def test_the_overlap_per_axis_is_at_least_what_is_asked_or_the_largest(extent, one, other, share, seed):
    first, second = two(extent, one, other, share, seed, per_axis=True)
    most = largest(first, other, extent)
    assert (first.shares(second) >= np.minimum(share, most) - 1e-9).all()
    assert (first.shares(second) <= most + 1e-9).all()


@given(extents, sizes, st.floats(0.1, 1), seeds)
def test_boxes_of_one_aspect_can_overlap_wholly_in_any_volume(extent, size, factor, seed):
    first, second = two(extent, size, size * factor, 1.0, seed)
    assert first.overlap(second) == pytest.approx(1)
    large, small = two(extent, size * factor, size, 1.0, seed)
    assert large.overlap(small) == pytest.approx(1)


def test_a_box_that_fits_neither_into_the_other_nor_around_it_overlaps_as_much_as_it_can():
    one, other = np.array([20.0, 4.0, 4.0]), np.array([5.0, 8.0, 4.0])
    for seed in range(20):
        first, second = two((20, 20, 20), one, other, 1.0, seed)
        # 5 x 4 x 4 of the 160 voxels of the smaller one
        assert first.overlap(second) == pytest.approx(80 / 160)


@pytest.mark.parametrize(("share", "per_axis"), [(0.1, False), (0.75, True)])
def test_a_box_that_cannot_lie_in_the_other_is_held_no_closer_than_need_be(share, per_axis):
    """Along y half of the smaller box is shared at most: by every place that has the other one in it."""
    one, other, rng = np.array([20.0, 4.0, 4.0]), np.array([5.0, 8.0, 4.0]), np.random.default_rng(0)
    first = Box(start=np.full(3, 50.0), size=one)
    starts = np.array(
        [placed_overlapping((99,) * 3, first, other, share, rng, per_axis=per_axis)[1] for _ in range(500)]
    )
    if per_axis:
        assert stats.kstest(starts, stats.uniform(46, 4).cdf).pvalue > 0.01
    else:
        shared = np.minimum(starts + 8, 54) - np.maximum(starts, 50)
        assert 0.1 <= shared.min() / 8 < 0.15


def test_without_overlap_asked_for_a_box_lies_anywhere():
    extent, size, rng = (40, 40, 40), np.full(3, 8.0), np.random.default_rng(0)
    first = Box(start=np.zeros(3), size=size)
    starts = [placed_overlapping(extent, first, size, 0.0, rng, per_axis=False) for _ in range(1000)]
    for along in np.transpose(starts):
        assert stats.kstest(along, stats.uniform(0, 32).cdf).pvalue > 0.01


def test_a_box_goes_every_way_and_uses_what_the_overlap_leaves():
    """In so wide a volume that no box meets its border."""
    extent, size, rng = (999, 999, 999), np.full(3, 8.0), np.random.default_rng(0)
    first = Box(start=np.full(3, 500.0), size=size)
    starts = [placed_overlapping(extent, first, size, 0.25, rng, per_axis=False) for _ in range(1000)]
    overlaps = [first.overlap(Box(start=start, size=size)) for start in starts]
    assert 0.25 - 1e-9 <= min(overlaps) < 0.27
    assert max(overlaps) > 0.7
    moves = np.array(starts) - 500
    for along in moves.T:
        assert stats.ks_2samp(along, -along).pvalue > 0.01
        assert 5.5 < along.max() <= 6
    spread = moves.std(axis=0)
    np.testing.assert_allclose(spread, spread.mean(), rtol=0.1)


def test_an_overlap_per_axis_leaves_every_axis_its_own_range():
    extent, size, rng = (999, 999, 999), np.full(3, 8.0), np.random.default_rng(0)
    first = Box(start=np.full(3, 500.0), size=size)
    starts = [placed_overlapping(extent, first, size, 0.25, rng, per_axis=True) for _ in range(1000)]
    for along in np.transpose(starts):
        assert stats.kstest(along, stats.uniform(494, 12).cdf).pvalue > 0.01


# voxels, edge of the box: three boxes and more, of which some do not lie on the voxels
@pytest.mark.parametrize(("voxels", "edge"), [(24, 8.0), (64, 16.0), (50, 6.4), (30, 9.9)])
def test_every_voxel_is_covered_half_to_one_and_a_half_times_as_often_as_in_the_middle(voxels, edge):
    """Places drawn evenly cover the outermost voxel next to never: this is the stated tolerance."""
    drawn = [
        placed(
            (voxels,) * 3,
            np.full(3, edge),
            SimpleNamespace(uniform=lambda low, high, at=at: at * np.array(high)),
        )
        for at in (np.arange(1000)[:, None] + 0.5) / 1000 * np.ones(3)
    ]
    centres = np.arange(voxels) + 0.5
    for along in np.transpose(drawn):
        covered = ((along[:, None] <= centres) & (centres < along[:, None] + edge)).mean(axis=0)
        relative = covered / (edge / voxels)
        distance = np.minimum(centres, voxels - centres)
        expected = np.where(distance < edge, distance / edge + 0.5, 1.0)
        np.testing.assert_allclose(relative, expected, atol=0.01)
        assert relative.min() >= 0.5
        assert relative.max() <= 1.5


def test_middles_are_drawn_evenly():
    rng = np.random.default_rng(0)
    starts = np.array([placed((40, 60, 80), np.full(3, 1e-6), rng) for _ in range(1000)])
    for along, voxels in zip(starts.T, (40, 60, 80), strict=True):
        assert stats.kstest(along, stats.uniform(0, voxels).cdf).pvalue > 0.01


@pytest.mark.parametrize("axis", range(3))
def test_a_volume_in_a_box_lies_anywhere_in_it(axis):
    """As far as its middle stays in the volume."""
    rng = np.random.default_rng(0)
    starts = np.array([placed((6, 8, 1), np.array([10.0, 8.0, 5.0]), rng) for _ in range(500)])[:, axis]
    low, high = ((-4, 0), (0, 0), (-4, 0))[axis]
    assert starts.min() >= low
    assert starts.max() <= high
    assert (axis == 1) or len(set(starts)) > 100
