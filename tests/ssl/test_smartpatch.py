"""Boxes have the sizes and the overlap they are said to have at every time of a training."""

import numpy as np
import pytest
from fewvox.data.errors import UserError
from fewvox.data.settings import SettingsError, parse
from fewvox.ssl.schedule import Schedule
from fewvox.ssl.smartpatch import BoxConfig, Frame, Sizes, SmartPatchConfig, draw_boxes, too_far
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

shares = st.floats(0, 1)
shapes, powers = st.sampled_from(["linear", "cosine", "polynomial"]), st.floats(0.2, 5)
overlaps = st.builds(Schedule, start=shares, end=shares, shape=shapes, power=powers)
# in each unit, from far below to far above what fits
_UNITS = {"volume": 1.0, "patch": 1.0, "voxels": 30.0, "physical": 30.0}


@st.composite
def sizes(draw) -> Sizes:
    of = draw(st.sampled_from(sorted(_UNITS)))
    low, high = sorted(draw(st.tuples(st.floats(0.1, 4), st.floats(0.1, 4))))
    return Sizes(of=of, range=(low * _UNITS[of], high * _UNITS[of]))


groups = st.builds(BoxConfig, start=sizes(), end=sizes(), shape=shapes, power=powers)
configs = st.builds(
    SmartPatchConfig,
    global_boxes=groups,
    local_boxes=groups,
    overlap=overlaps,
    overlap_of=st.sampled_from(["volume", "axis"]),
)
# single slices, and volumes smaller than the patch along some axes or all
frames = st.builds(
    Frame,
    extent=st.tuples(*[st.one_of(st.just(1), st.integers(1, 90))] * 3),
    patch=st.tuples(*[st.one_of(st.just(1), st.integers(1, 48))] * 3),
    spacing=st.tuples(*[st.floats(0.1, 5)] * 3),
)
kinds = st.tuples(st.integers(1, 2), st.integers(0, 3))
seeds = st.integers(0, 2**32)


def still(factor=1.0, of="patch") -> BoxConfig:
    """Boxes of one size over the whole training."""
    sizes = Sizes(of=of, range=(factor, factor))
    return BoxConfig(start=sizes, end=sizes)


def draw(frame, kind=(1, 1), progress=0.0, config=SmartPatchConfig(), seed=0):  # noqa: B008 (frozen)
    return draw_boxes(frame, kind[0], kind[1], progress, config, np.random.default_rng(seed))


def limits(config: BoxConfig, frame: Frame, progress: float) -> tuple[float, float]:
    """The smallest and the largest factor on the patch, before it is cut, as the settings describe them."""
    patch, extent, spacing = (np.array(t, float) for t in (frame.patch, frame.extent, frame.spacing))
    roomy = [n / p for n, p in zip(extent, patch, strict=True) if n > p]
    unit = {
        "volume": min(roomy, default=1.0), "patch": 1.0, "voxels": 1 / max(patch),
        "physical": 1 / max(patch * spacing),
    }  # fmt: skip
    way = config.passed(progress)
    low, high = (
        (1 - way) * a * unit[config.start.of] + way * b * unit[config.end.of]
        for a, b in zip(config.start.range, config.end.range, strict=True)
    )
    return low, high


@given(frames, kinds, shares, configs, seeds)
def test_a_box_lies_in_the_volume_or_holds_it(frame, kind, progress, config, seed):
    boxes = draw(frame, kind, progress, config, seed)
    assert len(boxes) == sum(kind)
    for box in boxes:
        low, high = np.minimum(0, frame.extent - box.size), np.maximum(frame.extent, box.size)
        assert (box.start >= low - 1e-9).all()
        assert (box.start + box.size <= high + 1e-9).all()
        # only along axes on which the patch is no smaller may it be larger
        assert (box.size <= np.maximum(frame.extent, frame.patch) * (1 + 1e-9)).all()


@given(frames, kinds, shares, configs, seeds)
def test_every_further_box_overlaps_the_first_one_as_asked(frame, kind, progress, config, seed):
    first, *others = draw(frame, kind, progress, config, seed)
    asked = config.overlap.at(progress)
    for box in others:
        found = first.overlap(box) if config.overlap_of == "volume" else first.shares(box).min()
        assert found >= asked - 1e-9
        assert not too_far(first, box, progress, config)


@given(frames, kinds, shares, configs, seeds)
def test_sizes_are_within_their_range_or_cut_to_what_fits(frame, kind, progress, config, seed):
    boxes = draw(frame, kind, progress, config, seed)
    roomy = np.greater(frame.extent, frame.patch)
    fits = min((n / p for n, p in zip(frame.extent, frame.patch, strict=True) if n > p), default=1.0)
    for i, box in enumerate(boxes):
        group = config.global_boxes if i < kind[0] else config.local_boxes
        low, high = limits(group, frame, progress)
        scale = box.size / frame.patch
        if roomy.any():
            factor = scale[roomy][0]
            # one scale along all axes that have room, and so the aspect of the patch
            np.testing.assert_allclose(scale[roomy], factor, rtol=1e-9)
            assert min(low, fits) * (1 - 1e-9) <= factor <= min(high, fits) * (1 + 1e-9)
            np.testing.assert_allclose(scale[~roomy], min(1.0, factor), rtol=1e-9)
            assert not box.cut or factor == pytest.approx(fits)
        else:
            assert (scale >= min(low, 1) * (1 - 1e-9)).all()
            assert (scale <= min(high, 1) * (1 + 1e-9)).all()
        assert box.cut or high * (1 + 1e-9) >= scale.max()
        assert not box.cut or high > fits


@given(frames, kinds, shares, configs, seeds)
def test_the_same_seed_gives_the_same_boxes(frame, kind, progress, config, seed):
    one, other = (draw(frame, kind, progress, config, seed) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal([a.start, a.size], [b.start, b.size])


def test_another_seed_gives_other_boxes():
    frame = Frame(extent=(80, 80, 80), patch=(8, 8, 8))
    one, other = (draw(frame, progress=1.0, seed=seed)[0] for seed in (0, 1))
    assert (one.start != other.start).all()
    assert (one.size != other.size).all()


def test_by_default_the_global_box_goes_from_the_volume_to_the_patch_and_the_local_one_stays():
    frame = Frame(extent=(40, 30, 50), patch=(10, 10, 10))
    for progress, times in ((0.0, 3.0), (0.5, 2.0), (1.0, 1.0)):
        drawn = [draw(frame, (1, 1), progress, seed=seed) for seed in range(200)]
        scales = np.array([[box.size[0] / 10 for box in boxes] for boxes in drawn])
        np.testing.assert_allclose(scales.min(axis=0), [0.7 * times, 0.7], rtol=0.02)
        np.testing.assert_allclose(scales.max(axis=0), [times, 1.0], rtol=0.02)
        assert not any(box.cut for boxes in drawn for box in boxes)


def test_by_default_a_local_box_lies_in_the_global_one_at_first_and_by_a_quarter_at_last():
    frame = Frame(extent=(60, 60, 60), patch=(10, 10, 10))
    early = [first.overlap(other) for first, other in (draw(frame, seed=s) for s in range(100))]
    late = [first.overlap(other) for first, other in (draw(frame, progress=1.0, seed=s) for s in range(100))]
    assert min(early) == pytest.approx(1)
    assert 0.25 - 1e-9 <= min(late) < 0.3


@pytest.mark.parametrize(
    ("sizes", "edge"),
    [
        (Sizes(of="volume", range=(0.5, 0.5)), 15.0),
        (Sizes(of="patch", range=(2.0, 2.0)), 20.0),
        (Sizes(of="voxels", range=(12.0, 12.0)), 12.0),
        # 5 voxels of 2 along z are as long as 10 of 1
        (Sizes(of="physical", range=(6.0, 6.0)), 6.0),
    ],
)
def test_sizes_in_every_unit(sizes, edge):
    frame = Frame(extent=(40, 30, 50), patch=(5, 10, 10), spacing=(2.0, 1.0, 1.0))
    (box,) = draw(frame, (1, 0), config=SmartPatchConfig(global_boxes=BoxConfig(start=sizes)))
    np.testing.assert_allclose(box.size, [edge / 2, edge, edge])


def test_a_length_without_a_spacing_is_refused():
    config = SmartPatchConfig(global_boxes=still(6.0, "physical"))
    with pytest.raises(UserError, match="without a voxel spacing"):
        draw(Frame(extent=(40, 30, 50), patch=(5, 10, 10)), config=config)


def test_a_single_slice_has_a_box_of_nearly_all_of_it():
    config = SmartPatchConfig(global_boxes=still(0.9, "volume"))
    (box,) = draw(Frame(extent=(1, 1024, 1024), patch=(1, 256, 256)), (1, 0), config=config)
    np.testing.assert_allclose(box.size, [1, 921.6, 921.6])
    (thin,) = draw(Frame(extent=(6, 1024, 1024), patch=(16, 256, 256)), (1, 0), config=config)
    np.testing.assert_allclose(thin.size, [16, 921.6, 921.6])


def test_what_is_larger_than_the_volume_is_cut_and_told():
    config = SmartPatchConfig(global_boxes=still(5.0), local_boxes=still(3.0))
    large, small = draw(Frame(extent=(40, 60, 60), patch=(10, 10, 10)), config=config)
    np.testing.assert_allclose([large.size, small.size], [[40] * 3, [30] * 3])
    assert (large.cut, small.cut) == (True, False)


def test_sizes_are_drawn_evenly_on_a_logarithmic_scale():
    sizes = Sizes(range=(0.25, 4.0))
    config = SmartPatchConfig(global_boxes=BoxConfig(start=sizes, end=sizes))
    frame, rng = Frame(extent=(99, 99, 99), patch=(8, 8, 8)), np.random.default_rng(0)
    drawn = [draw_boxes(frame, 1, 0, 0.0, config, rng)[0].size[0] / 8 for _ in range(500)]
    assert stats.kstest(np.log(drawn), stats.uniform(np.log(0.25), np.log(16)).cdf).pvalue > 0.01


def test_each_group_follows_a_course_of_its_own():
    one, four = Sizes(range=(1.0, 1.0)), Sizes(range=(4.0, 4.0))
    config = SmartPatchConfig(
        global_boxes=BoxConfig(start=four, end=one, shape="polynomial", power=2),
        local_boxes=BoxConfig(start=one, end=four, shape="cosine"),
    )
    boxes = draw(Frame(extent=(99, 99, 99), patch=(10, 10, 10)), (2, 2), 0.5, config)
    np.testing.assert_allclose([box.size[0] for box in boxes], [17.5, 17.5, 25, 25])


def test_the_two_ways_to_count_an_overlap_differ():
    """Half along each axis is an eighth of the volume."""
    asked = Schedule(start=0.5, end=0.5)
    found = {}
    for of in ("volume", "axis"):
        config = SmartPatchConfig(global_boxes=still(), local_boxes=still(), overlap=asked, overlap_of=of)
        frame = Frame(extent=(99, 99, 99), patch=(10, 10, 10))
        drawn = [draw(frame, config=config, seed=seed) for seed in range(300)]
        found[of] = min(first.overlap(other) for first, other in drawn)
    assert found["volume"] == pytest.approx(0.5, abs=0.02)
    assert 0.125 <= found["axis"] < 0.3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"global_boxes": {"start": {"range": (1.0, 0.7)}}}, "smaller end of a range comes first"),
        ({"local_boxes": {"start": {"range": (0.0, 1.0)}}}, "range"),
        ({"local_boxes": {"start": {"of": "mm"}}}, "start.of"),
        ({"local_boxes": None}, "local_boxes"),
        ({"overlap": {"start": 1.5, "end": 0.0}}, "an overlap is a share"),
        ({"overlap": {"start": 1.0, "end": -0.5}}, "an overlap is a share"),
        ({"overlap_of": "voxels"}, "overlap_of"),
        ({"global_boxes": {"start": {}, "output": (8, 0, 8)}}, "output"),
        ({"reach": {"start": 1.0, "end": 0.0}}, "unknown key 'reach'"),
    ],
)
def test_settings_beyond_their_limits_are_refused(values, message):
    with pytest.raises(SettingsError, match=message):
        parse(SmartPatchConfig, values, "boxes")
