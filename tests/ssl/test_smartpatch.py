"""Boxes have the size and the overlap they are said to have, inside any volume."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from fewvox.data.settings import SettingsError, parse
from fewvox.ssl.smartpatch import Box, Ramp, SmartPatchConfig, draw_boxes, padded_share
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

shares = st.floats(0, 1)
ramps = st.builds(Ramp, start=shares, end=shares)
zooms = st.lists(st.floats(0.1, 4), min_size=2, max_size=2).map(sorted).map(tuple)
# single slices, and volumes smaller than the patch along some axes or all
extents = st.tuples(*[st.one_of(st.just(1), st.integers(1, 90))] * 3)
patches = st.tuples(*[st.one_of(st.just(1), st.integers(1, 48))] * 3)
configs = st.builds(SmartPatchConfig, reach=ramps, zoom=zooms, overlap=ramps)
seeds = st.integers(0, 2**32)

PATCH_SIZED = SmartPatchConfig(reach=Ramp(start=0, end=0), zoom=(1.0, 1.0), overlap=Ramp(start=0, end=0))


def draw(extent, patch, count=2, progress=0.0, config=PATCH_SIZED, seed=0):
    return draw_boxes(extent, patch, count, progress, config, np.random.default_rng(seed))


def shared(a: Box, b: Box) -> float:
    """Share of the smaller box that lies in the other, axis by axis."""
    common, smaller = 1.0, min(np.prod(a.size), np.prod(b.size))
    for axis in range(3):
        ends = min(a.start[axis] + a.size[axis], b.start[axis] + b.size[axis])
        common *= max(0.0, ends - max(a.start[axis], b.start[axis]))
    return common / smaller


@given(extents, patches, st.integers(1, 2), shares, configs, seeds)
def test_a_box_lies_in_the_volume_or_holds_it(extent, patch, count, progress, config, seed):
    boxes = draw(extent, patch, count, progress, config, seed)
    assert len(boxes) == count
    for box, axis in itertools.product(boxes, range(3)):
        first, last = box.start[axis], box.start[axis] + box.size[axis]
        if box.size[axis] <= extent[axis]:
            assert first >= 0
            assert last <= extent[axis] + 1e-9
        else:
            assert first <= 0
            assert last >= extent[axis] - 1e-9


@given(extents, patches, shares, configs, seeds)
def test_two_boxes_share_at_least_what_is_asked(extent, patch, progress, config, seed):
    one, other = draw(extent, patch, 2, progress, config, seed)
    assert one.overlap(other) >= config.overlap.at(progress) - 1e-9
    assert one.overlap(other) == pytest.approx(shared(one, other), abs=1e-9)
    assert one.overlap(other) == pytest.approx(other.overlap(one), abs=1e-12)


@given(extents, patches, shares, configs, seeds)
def test_boxes_have_the_aspect_and_the_size_they_are_said_to(extent, patch, progress, config, seed):
    fits = max(1.0, min(n / p for n, p in zip(extent, patch, strict=True)))
    reach = 1 + config.reach.at(progress) * (fits - 1)
    for box, factor in zip(draw(extent, patch, 2, progress, config, seed), (reach, 1.0), strict=True):
        scale = box.size / patch
        np.testing.assert_allclose(scale, scale[0], rtol=1e-9)
        assert config.zoom[0] * (1 - 1e-9) <= scale[0] / factor <= config.zoom[1] * (1 + 1e-9)


@given(extents, patches, shares, configs, seeds)
def test_the_same_generator_gives_the_same_boxes(extent, patch, progress, config, seed):
    one, other = (draw(extent, patch, 2, progress, config, seed) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal([a.start, a.size], [b.start, b.size])


def test_another_generator_gives_other_boxes():
    one, other = (draw((40, 40, 40), (8, 8, 8), 2, seed=seed)[0] for seed in (0, 1))
    assert (one.start != other.start).all()


@given(st.tuples(*[st.integers(20, 90)] * 3), st.tuples(*[st.integers(1, 20)] * 3), seeds)
def test_full_reach_is_the_largest_box_that_fits(extent, patch, seed):
    config = replace(PATCH_SIZED, reach=Ramp(start=1, end=0))
    large, small = draw(extent, patch, 2, 0.0, config, seed)
    assert (large.size <= np.array(extent) + 1e-9).all()
    assert np.isclose(large.size, extent).any()
    np.testing.assert_allclose(small.size, patch)
    late = draw(extent, patch, 2, 1.0, config, seed)
    np.testing.assert_allclose([box.size for box in late], [patch, patch])


def test_a_single_view_is_the_box_that_reaches():
    config = replace(PATCH_SIZED, reach=Ramp(start=1, end=0))
    (box,) = draw((40, 30, 50), (10, 10, 10), 1, 0.0, config)
    np.testing.assert_allclose(box.size, 30)


def test_the_first_box_is_the_one_that_reaches_though_the_zoom_makes_it_the_smaller():
    """With zoom from 0.1 to 1, a first box of 1.5 patches is often the smaller of the two."""
    config = replace(PATCH_SIZED, reach=Ramp(start=1, end=1), zoom=(0.1, 1.0))
    drawn = [draw((15, 15, 15), (10, 10, 10), 2, 0.0, config, seed) for seed in range(300)]
    ratios = np.array([one.size[0] / other.size[0] for one, other in drawn])
    assert 0.2 < (ratios < 1).mean() < 0.5
    # both zooms have one distribution, so the middle ratio is that of the reach
    assert np.median(ratios) == pytest.approx(1.5, rel=0.2)


def test_zooms_shrink_and_grow_evenly_on_a_logarithmic_scale():
    config = replace(PATCH_SIZED, zoom=(0.25, 4.0))
    rng = np.random.default_rng(0)
    drawn = [draw_boxes((99, 99, 99), (8, 8, 8), 1, 0.0, config, rng)[0].size[0] / 8 for _ in range(1000)]
    assert stats.kstest(np.log(drawn), stats.uniform(np.log(0.25), np.log(16)).cdf).pvalue > 0.01


@pytest.mark.parametrize("axis", range(3))
def test_boxes_come_everywhere_equally_often(axis):
    # room for the box along z, for the volume in the box along y, none along x
    extent, patch, rng = (40, 6, 8), (8, 10, 8), np.random.default_rng(0)
    starts = np.array([draw_boxes(extent, patch, 1, 0.0, PATCH_SIZED, rng)[0].start for _ in range(1000)])
    low, width = ((0, 32), (-4, 4), (0, 0))[axis]
    if width == 0:
        np.testing.assert_array_equal(starts[:, axis], low)
    else:
        assert stats.kstest(starts[:, axis], stats.uniform(low, width).cdf).pvalue > 0.01


def test_the_second_box_goes_every_way_and_uses_what_the_overlap_leaves():
    config = replace(PATCH_SIZED, overlap=Ramp(start=0.25, end=0.25))
    rng = np.random.default_rng(0)
    # so wide a volume that hardly a box meets its border
    pairs = [draw_boxes((999, 999, 999), (8, 8, 8), 2, 0.0, config, rng) for _ in range(1000)]
    moves = np.array([other.start - one.start for one, other in pairs])
    assert 0.25 <= min(one.overlap(other) for one, other in pairs) < 0.27
    for along in moves.T:
        assert stats.ks_2samp(along, -along).pvalue > 0.01
        assert 5 < along.max() <= 6
    spread = moves.std(axis=0)
    np.testing.assert_allclose(spread, spread.mean(), rtol=0.1)


def test_full_overlap_lays_the_smaller_box_into_the_larger():
    config = SmartPatchConfig(zoom=(1.0, 1.0))
    for seed in range(50):
        large, small = draw((30, 40, 50), (10, 10, 10), 2, 0.0, config, seed)
        assert (small.start >= large.start - 1e-9).all()
        assert (small.start + small.size <= large.start + large.size + 1e-9).all()


def test_a_ramp_goes_from_its_start_to_its_end():
    ramp = Ramp(start=0.9, end=0.1)
    assert [ramp.at(t) for t in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.9, 0.7, 0.5, 0.1])


@pytest.mark.parametrize(
    ("start", "share"),
    [((0, 0, 2), 1.0), ((0, 0, 3), 0.5), ((2, 3, 3), 0.125), ((4, 0, 0), 0.0), ((9, 9, 9), 0.0)],
)
def test_an_overlap_is_a_share_of_the_smaller_box(start, share):
    large = Box(start=np.zeros(3), size=np.array([4.0, 4.0, 4.0]))
    small = Box(start=np.array(start, float), size=np.array([4.0, 2.0, 2.0]))
    assert large.overlap(small) == small.overlap(large) == share


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"zoom": (1.0, 0.7)}, "smaller end of a range comes first"),
        ({"zoom": (0.0, 1.0)}, "zoom"),
        ({"zoom": (0.5, 5.0)}, "zoom"),
        ({"overlap": {"start": 1.5, "end": 0.0}}, "overlap"),
        ({"reach": {"start": -0.1, "end": 0.0}}, "reach"),
    ],
)
def test_sizes_and_shares_beyond_their_limits_are_refused(values, message):
    with pytest.raises(SettingsError, match=message):
        parse(SmartPatchConfig, values, "boxes")


@pytest.mark.parametrize(
    ("extent", "share"), [((8, 8, 8), 0.0), ((9, 20, 30), 0.0), ((4, 8, 8), 0.5), ((2, 4, 9), 0.875)]
)
def test_what_is_beyond_the_volume_is_padding(extent, share):
    assert padded_share(extent, (8, 8, 8), PATCH_SIZED) == share
    halved = replace(PATCH_SIZED, zoom=(0.5, 0.5))
    assert padded_share(extent, (16, 16, 16), halved) == pytest.approx(share)
