"""A view shows the very place of its box, at any level, and a batch is a function of seed and step."""

import math
import pickle
import re
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from fewvox.data.augment.chain import AugmentConfig, preset
from fewvox.data.augment.spatial import SpatialConfig
from fewvox.data.boxes import read_box
from fewvox.data.cut import cut_image
from fewvox.data.errors import UserError
from fewvox.data.settings import override, parse
from fewvox.data.share import WHOLE, Share
from fewvox.ssl.box import Box
from fewvox.ssl.method import Views, ViewSpec
from fewvox.ssl.schedule import Schedule
from fewvox.ssl.smartpatch import BoxConfig, Sizes, SmartPatchConfig
from fewvox.ssl.views import ViewConfig, ViewSampler, evenly, on_slice, view_map
from hypothesis import given
from hypothesis import strategies as st

IDENTITY = np.eye(3)
SLOPE = np.array([0.03, 0.02, -0.01])
SPACINGS = [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)]
ONE = Sizes(range=(1.0, 1.0))
STILL = SmartPatchConfig(
    global_boxes=BoxConfig(start=ONE, end=ONE), local_boxes=BoxConfig(start=ONE, end=ONE)
)
PLAIN = ViewConfig(boxes=STILL, augment=AugmentConfig())
PATCH = (4, 8, 4)


def box(start, size) -> Box:
    return Box(start=np.array(start, float), size=np.array(size, float))


def read_view(store, case: str, box: Box, shape, turn: np.ndarray) -> torch.Tensor:
    """The view (1, C, *shape) of a box."""
    return cut_image(store, case, view_map(box, turn, shape), shape).image()[None]


def turned(angles: tuple[float, float], spacing) -> np.ndarray:
    """A turn in the plane of y and x with the slices turned over, then one out of it, in physical space."""
    (c, s), (cos, sin) = ((math.cos(math.radians(a)), math.sin(math.radians(a))) for a in angles)
    plane = np.array([[-1, 0, 0], [0, c, -s], [0, s, c]])
    out = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return np.diag(1 / np.array(spacing)) @ out @ plane @ np.diag(spacing)


@pytest.fixture(scope="module", params=SPACINGS, ids=["isotropic", "anisotropic"])
def ramp(request, make_store):
    """A store whose one volume rises along every axis by a slope of its own, and its spacing."""
    extent = (64, 64, 64) if request.param == SPACINGS[0] else (32, 64, 64)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in extent), indexing="ij"), axis=-1)
    return make_store((index @ SLOPE)[None], request.param), request.param


@pytest.fixture
def opened(monkeypatch):
    """The levels that are opened, as they are."""
    levels = []

    def watch(store):
        image = store.image
        monkeypatch.setattr(
            store, "image", lambda case, level=0: (levels.append(level), image(case, level))[1]
        )
        return levels

    return watch


@pytest.mark.parametrize("start", [(2, 3, 1), (4, 8, 6), (-3, 4, 0), (8, -5, 11), (-20, 0, 0)])
def test_a_box_on_the_voxels_is_the_voxels(tiny_store, start):
    """Also over the border, where it is 0, and wholly outside."""
    patch = (8, 8, 8)
    view = read_view(tiny_store, "c01", box(start, patch), patch, IDENTITY)
    expected = read_box(tiny_store.image("c01"), np.array(start), patch)
    assert view.dtype == torch.float32
    np.testing.assert_allclose(view[0], expected, atol=1e-5)


@pytest.mark.parametrize("shift", [0.25, 0.5])
def test_a_box_between_the_voxels_is_the_mean_of_its_neighbours(tiny_store, shift):
    image = tiny_store.image("c02")[:]
    view = read_view(tiny_store, "c02", box((3, 4, 2 + shift), (4, 6, 5)), (4, 6, 5), IDENTITY)
    left, right = image[:, 3:7, 4:10, 2:7], image[:, 3:7, 4:10, 3:8]
    np.testing.assert_allclose(view[0], (1 - shift) * left + shift * right, atol=1e-5)


# a level is taken up to where its voxels are as large as the view's steps
STEPS = {SPACINGS[0]: {1.0: 0, 1.9: 0, 2.0: 1, 3.9: 1, 4.0: 2}, SPACINGS[1]: {1.0: 0, 2.0: 1, 3.9: 1, 4.0: 2}}


@pytest.mark.parametrize("step", [0.5, 1.0, 1.3, 1.9, 2.0, 2.7, 3.9, 4.0])
@pytest.mark.parametrize("angles", [None, (0, 0), (25, 0), (45, 0), (90, 0), (0, 20), (25, -15)])
def test_a_ramp_is_read_at_its_analytic_places_at_every_level(ramp, opened, step, angles):
    """Half a voxel amiss at any level is an error of 0.005 or more."""
    store, spacing = ramp
    levels = opened(store)
    turn, patch = IDENTITY if angles is None else turned(angles, spacing), (4, 8, 6)
    size = np.array(patch) * step
    extent = np.array(store.cases["v"].shape)
    centre = extent / 2 + [1.37, -0.81, 2.29]
    view = read_view(store, "v", Box(start=centre - size / 2, size=size), patch, turn)
    offsets = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in patch), indexing="ij"), axis=-1)
    places = centre - 0.5 + step * offsets @ turn.T
    np.testing.assert_allclose(view[0, 0], places @ SLOPE, atol=2e-5)
    expected = STEPS[spacing].get(step)
    assert expected is None or levels == [expected]


def test_steps_of_different_length_take_a_level_that_is_fine_along_all(ramp, opened):
    store, spacing = ramp
    levels = opened(store)
    read_view(store, "v", box((0, 0, 0), (8, 8, 32)), (8, 8, 8), IDENTITY)
    read_view(store, "v", box((0, 0, 0), (8, 32, 32)), (8, 8, 8), IDENTITY)
    # only the anisotropic volume has a level that is coarser in the plane alone
    assert levels == ([0, 0] if spacing == SPACINGS[0] else [0, 1])


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_quarter_turn_is_numpys(make_store, times):
    volume = np.random.default_rng(0).normal(size=(1, 10, 12, 12))
    turn = np.zeros((3, 3))
    turn[0, 0] = turn[1, 2] = 1
    turn[2, 1] = -1
    store, whole = make_store(volume), (10, 12, 12)
    view = read_view(store, "v", box((0, 0, 0), whole), whole, np.linalg.matrix_power(turn, times))
    np.testing.assert_allclose(view[0], np.rot90(volume, times, axes=(2, 3)), atol=1e-5)


def test_channels_stay_apart(make_store):
    volume = np.random.default_rng(0).normal(size=(2, 6, 6, 6))
    view = read_view(make_store(volume), "v", box((1, 1, 1), (4, 4, 4)), (4, 4, 4), IDENTITY)
    np.testing.assert_allclose(view[0], volume[:, 1:5, 1:5, 1:5], atol=1e-5)


@pytest.fixture(scope="module")
def sampler(tiny_store):
    """A sampler of the store's cases; keywords replace the defaults."""

    def make(
        *,
        cases=tuple(tiny_store.cases),
        patch=PATCH,
        batch=3,
        views=(1, 1),
        config=None,
        seed=0,
        steps=10,
        share=WHOLE,
    ) -> ViewSampler:
        spec = ViewSpec(global_views=views[0], local_views=views[1])
        return ViewSampler(tiny_store, cases, patch, batch, spec, config or ViewConfig(), seed, steps, share)

    return make


def same(one: Views, other: Views) -> bool:
    ours, theirs = (*one.views, *one.maps), (*other.views, *other.maps)
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)) and (one.cases, one.seed) == (
        other.cases,
        other.seed,
    )


@pytest.mark.parametrize("kinds", [(1, 0), (1, 1), (2, 0), (2, 3)])
def test_a_batch_has_the_views_it_tells(sampler, kinds):
    batch = sampler(views=kinds).batch(4)
    assert [view.shape for view in batch.views] == [(3, 1, *PATCH)] * sum(kinds)
    assert {view.dtype for view in batch.views} == {torch.float32}
    assert [affine.shape for affine in batch.maps] == [(3, 3, 4)] * sum(kinds)
    assert {affine.dtype for affine in batch.maps} == {torch.float64}
    assert len(set(batch.cases)) == 3
    assert all(torch.isfinite(view).all() for view in batch.views)


def with_output(group: str, output) -> ViewConfig:
    boxes = SmartPatchConfig()
    return ViewConfig(boxes=replace(boxes, **{group: replace(getattr(boxes, group), output=output)}))


def test_local_views_may_have_another_extent(sampler):
    made = sampler(views=(2, 2), patch=(4, 8, 8), config=with_output("local_boxes", (4, 4, 4)))
    batch = made.batch(0)
    assert [view.shape[2:] for view in batch.views] == [(4, 8, 8)] * 2 + [(4, 4, 4)] * 2
    assert made.patches == 3


def test_a_smaller_output_shows_the_same_place_more_coarsely(ramp):
    """The first and last voxel centres lie half a step within the box."""
    store, _ = ramp
    config = with_output("global_boxes", (4, 8, 8))
    config = ViewConfig(boxes=config.boxes, augment=AugmentConfig())
    small, large = (
        ViewSampler(store, ("v",), (8, 16, 16), 1, ViewSpec(), c, 0, 9).batch(0).maps[0][0].numpy()
        for c in (config, replace(config, boxes=SmartPatchConfig()))
    )
    np.testing.assert_allclose(small[:, :3], 2 * large[:, :3])
    corners = [
        (m @ np.array([-0.5, -0.5, -0.5, 1]), m @ np.array([*end, 1]))
        for m, end in ((small, (3.5, 7.5, 7.5)), (large, (7.5, 15.5, 15.5)))
    ]
    np.testing.assert_allclose(corners[0], corners[1])


@pytest.mark.parametrize("group", ["global_boxes", "local_boxes"])
def test_an_output_that_the_network_cannot_take_is_refused(sampler, tiny_store, group):
    assert not all(n == 1 for stride in tiny_store.plan.training.strides for n in stride)
    with pytest.raises(UserError, match=rf"views.boxes.{group}.output: .*multiple of"):
        sampler(config=with_output(group, (5, 7, 5)))


def test_bent_views_are_refused_as_they_have_no_exact_map(sampler):
    config = parse(ViewConfig, {"augment": {"spatial": {"elastic_probability": 0.2}}}, "views")
    with pytest.raises(UserError, match=r"views.augment.spatial.elastic_probability: .*never bent"):
        sampler(config=config)


def test_the_strong_preset_is_refused_for_views_with_what_to_set(sampler):
    with pytest.raises(UserError, match="preset=strong") as told:
        sampler(config=parse(ViewConfig, {"augment": "strong"}, "views"))
    lines = re.findall(r"views\.([\w.]+=\w+)", told.value.remedy)
    config = parse(ViewConfig, override({}, lines), "views")
    assert config.augment == preset("strong", spatial={"elastic_probability": 0})
    sampler(config=config)


SPATIAL = SpatialConfig(
    rotation_degrees=40, rotation_probability=1, scale=(0.8, 1.25), scale_probability=1, shear_probability=1,
    flip_probability=0.5
)  # fmt: skip


@pytest.mark.parametrize("spatial", [None, SPATIAL], ids=["straight", "turned"])
def test_maps_tell_where_every_voxel_of_a_view_lies_at_every_level(ramp, opened, spatial):
    """Through crop, resize, rotation, scaling, shear and flips: what the ramp is there is what is shown."""
    store, _ = ramp
    levels = opened(store)
    config = ViewConfig(augment=AugmentConfig(spatial=spatial))
    spec = ViewSpec(global_views=2, local_views=1)
    config = replace(config, boxes=with_output("local_boxes", (4, 4, 4)).boxes)
    made = ViewSampler(store, ("v",), (8, 16, 16), 1, spec, config, 0, 9)
    seen, extent = 0, np.array(store.cases["v"].shape)
    for step in range(9):
        batch = made.batch(step)
        for view, affine in zip(batch.views, batch.maps, strict=True):
            shape = view.shape[2:]
            index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
            places = index @ affine[0, :, :3].numpy().T + affine[0, :, 3].numpy()
            # beside the border, where what is outside is mixed in, at the coarsest level
            inside = ((places > 4) & (places < extent - 5)).all(axis=-1)
            np.testing.assert_allclose(view[0, 0][inside], (places @ SLOPE)[inside], atol=3e-5)
            seen += int(inside.sum())
    assert seen > 10_000
    assert len(set(levels)) > 1


def test_maps_follow_every_item_of_a_batch(sampler, tiny_store):
    batch = sampler(config=PLAIN).batch(2)
    for view, affine in zip(batch.views, batch.maps, strict=True):
        for image, of_item, case in zip(view, affine.numpy(), batch.cases, strict=True):
            again = cut_image(tiny_store, case, of_item, PATCH).image()
            torch.testing.assert_close(image, again)


def test_what_is_read_travels_and_is_finished_elsewhere(sampler):
    """As between a worker and the process that trains."""
    made = sampler()
    read = made.read(3)
    assert not any(hasattr(part, "store") for part in read)
    moved = [item.to(torch.device("cpu")) for item in pickle.loads(pickle.dumps(read))]
    assert same(made.finish(moved), made.batch(3))
    nowhere = read[0].to(torch.device("meta"))
    assert {cut.box.device.type for cut in nowhere.cuts} == {"meta"}


def test_a_batch_depends_on_seed_and_step_alone(sampler):
    one, other = sampler(), sampler()
    forwards = [one.batch(step) for step in range(4)]
    torch.manual_seed(1)
    backwards = [other.batch(step) for step in (3, 2, 1, 0)][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards, strict=True))


def test_steps_seeds_and_the_two_views_differ(sampler):
    drawn = [sampler().batch(0), sampler().batch(1), sampler(seed=1).batch(0)]
    assert len({batch.seed for batch in drawn}) == 3
    images = [view for batch in drawn for view in batch.views]
    assert not any(torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


@pytest.mark.parametrize("part", ["boxes", "spatial", "chain"])
def test_every_part_of_a_view_is_drawn_from_the_seed(sampler, part):
    """One volume; all other parts are left out."""
    augment = AugmentConfig() if part == "boxes" else AugmentConfig(**{part: getattr(preset("views"), part)})
    config = replace(PLAIN, augment=augment)
    patch = PATCH if part == "boxes" else (12, 16, 14)
    made = sampler(cases=("c00",), batch=1, patch=patch, config=config)
    views = torch.cat([made.batch(step).views[v] for step in range(6) for v in range(2)])
    assert len({tuple(view.flatten().tolist()) for view in views}) > 6


def test_without_box_turn_and_change_a_view_is_the_volume(sampler, tiny_store):
    batch = sampler(patch=(12, 16, 14), config=PLAIN).batch(0)
    for view in batch.views:
        for image, case in zip(view, batch.cases, strict=True):
            np.testing.assert_allclose(image, tiny_store.image(case)[:], atol=1e-5)


def test_batches_in_advance_are_the_batches_of_their_steps(sampler):
    made, running = sampler(), threading.active_count()
    supplied = list(made.batches(3, 7))
    assert len(supplied) == 4
    assert all(same(batch, made.batch(step)) for step, batch in enumerate(supplied, start=3))
    assert threading.active_count() == running


@pytest.fixture
def drawn(monkeypatch, sampler):
    """What batches ask for (cases, seed, progress), no voxel read."""
    monkeypatch.setattr(ViewSampler, "_read", lambda self, *asked: asked[:3])
    return lambda count, **kinds: [sampler(**kinds).read(step) for step in range(count)]


def test_every_volume_comes_once_a_round_in_a_new_order(drawn, tiny_store):
    cases = [case for asked, _, _ in drawn(4, batch=5) for case in asked]
    rounds = [cases[:10], cases[10:]]
    assert [Counter(r) for r in rounds] == [Counter(list(tiny_store.cases))] * 2
    assert rounds[0] != rounds[1]


def test_volumes_that_do_not_fill_a_batch_come_as_often_in_the_long_run(drawn):
    """A round of ten has two batches of four; nobody comes twice in it."""
    asked = [cases for cases, _, _ in drawn(1000, batch=4)]
    assert all(len({*one, *other}) == 8 for one, other in zip(asked[::2], asked[1::2], strict=True))
    counts = Counter(case for cases in asked for case in cases)
    assert list(counts.values()) == pytest.approx([400] * 10, rel=0.1)


def test_the_schedule_of_the_boxes_goes_from_the_first_step_to_the_last(drawn):
    assert [progress for _, _, progress in drawn(5, steps=5)] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert [progress for _, _, progress in drawn(1, steps=1)] == [0]


def test_early_views_show_the_whole_volume_and_late_ones_a_patch(sampler):
    whole = BoxConfig(start=Sizes(of="volume", range=(1.0, 1.0)), end=ONE)
    boxes = replace(STILL, global_boxes=whole, overlap=Schedule(start=1.0, end=0.25))
    made = sampler(config=replace(PLAIN, boxes=boxes), steps=3)
    steps = [[affine[0].diagonal().tolist() for affine in made.batch(step).maps] for step in range(3)]
    # the volume is twice as wide as the patch where it fits it least: 14 voxels over 4, 16 over 8, 12 over 4
    assert steps == [[[2] * 3, [1] * 3], [[1.5] * 3, [1] * 3], [[1] * 3, [1] * 3]]


def test_turns_follow_the_spacing_of_the_store(tiny_store, sampler):
    """Also where the view is stretched: what is turned is the box."""
    spatial = SpatialConfig(rotation_probability=1, scale_probability=0, flip_probability=0)
    stretched = replace(STILL, local_boxes=replace(STILL.local_boxes, output=(4, 4, 4)))
    config = ViewConfig(boxes=stretched, augment=AugmentConfig(spatial=spatial))
    batch = sampler(patch=(8, 16, 8), config=config).batch(0)
    size = np.diag(tiny_store.plan.preprocessing.spacing)
    whole, local = (of_view[:, :, :3].numpy() for of_view in batch.maps)
    turns = [*whole, *(local / [2, 4, 2])]
    assert len(turns) == 6
    for turn in turns:
        physical = size @ turn @ np.linalg.inv(size)
        np.testing.assert_allclose(physical @ physical.T, IDENTITY, atol=1e-12)
    assert len({tuple(turn.flatten().tolist()) for turn in turns}) == 6


def test_a_thin_volume_is_turned_in_its_plane_however_wide_the_box(make_store):
    """Out of it, most of the view would lie beyond the volume."""
    store = make_store(np.zeros((1, 6, 64, 64)))
    spatial = SpatialConfig(rotation_probability=1, scale_probability=0, flip_probability=0)
    config = ViewConfig(augment=AugmentConfig(spatial=spatial))
    made = ViewSampler(store, ("v",), (8, 16, 16), 1, ViewSpec(), config, 0, 9)
    turn = made.batch(0).maps[0][0, :, :3]
    assert turn[0, 1:].tolist() == turn[1:, 0].tolist() == [0, 0]
    assert abs(float(turn[1, 2])) > 0.01


def test_views_fit_is_that_of_the_volumes(sampler):
    assert set(sampler().fit().outside) == {f"c{i:02}" for i in range(10)}
    assert sampler(patch=(24, 16, 14), config=PLAIN).fit().outside["c00"] == pytest.approx(0.5)


@pytest.mark.parametrize("step", [0, 4])
def test_the_shares_of_several_processes_are_the_batch_of_one(sampler, step):
    """Ten volumes, four a step: of each round two are left over, and no share draws more or fewer."""
    whole = sampler(batch=4).batch(step)
    shares = [sampler(batch=2, share=Share(index, 2)).batch(step) for index in range(2)]
    for of_shares, expected in zip(zip(*(s.views for s in shares), strict=True), whole.views, strict=True):
        assert torch.equal(torch.cat(of_shares), expected)
    for of_shares, expected in zip(zip(*(s.maps for s in shares), strict=True), whole.maps, strict=True):
        assert torch.equal(torch.cat(of_shares), expected)
    assert shares[0].cases + shares[1].cases == whole.cases
    # what methods draw is drawn by each process for itself
    assert shares[0].seed == whole.seed != shares[1].seed


def test_fewer_volumes_than_the_batches_of_all_processes_are_refused(sampler, tiny_store):
    with pytest.raises(UserError, match=r"batch 2 in each of 2 processes: 3 volumes.*or fewer processes"):
        sampler(batch=2, cases=tuple(tiny_store.cases)[:3], share=Share(1, 2))


def test_fewer_volumes_than_a_batch_are_refused(sampler):
    with pytest.raises(UserError, match=r"batch 3: .*2 volumes"):
        sampler(cases=("c00", "c01"))


def test_evenly_spread_cases():
    assert evenly("abcdef", 3) == ("a", "c", "e")
    assert evenly("abc", 5) == ("a", "b", "c")
    assert evenly("", 5) == ()


@given(st.integers(1, 60), st.integers(1, 60))
def test_cases_are_evenly_spread_for_any_number(cases, count):
    chosen = [int(case) for case in evenly([str(i) for i in range(cases)], count)]
    assert len(chosen) == len(set(chosen)) == min(cases, count)
    assert chosen[0] == 0
    gaps = np.diff([*chosen, cases])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


def test_views_of_a_single_slice_are_not_dimmed_by_what_is_beside_it():
    """Zoomed boxes have their middle off the only slice; the map tells the slice that is shown."""
    case = SimpleNamespace(levels=((1, 1, 1),))
    store = SimpleNamespace(cases={"flat": case}, image=lambda *_: np.ones((1, 1, 20, 20), np.float32))
    affine = view_map(box((0.2, 3, 3), (0.7, 8, 8)), IDENTITY, (1, 8, 8))
    view = cut_image(store, "flat", affine, (1, 8, 8)).image()
    torch.testing.assert_close(view, torch.ones(1, 1, 8, 8))
    assert affine[0, 3] != 0
    assert on_slice(affine, (1, 20, 20), (1, 8, 8))[0, 3] == 0


PAGE = (Path(__file__).parents[2] / "docs/smartpatch.md").read_text(encoding="utf-8")


def test_the_examples_of_the_page_are_settings():
    examples = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    first, *others = [parse(ViewConfig, example["views"], "docs/smartpatch.md") for example in examples]
    assert first == ViewConfig()
    assert len(others) == 2
    assert ViewConfig() not in others


def test_single_values_on_the_command_line_of_the_page_leave_all_else():
    lines = re.findall(r"--set '?views\.([\w.]+=[^'\s]+)", PAGE)
    config, default = parse(ViewConfig, override({}, lines), "--set").boxes, SmartPatchConfig()
    big = replace(default.global_boxes, end=Sizes(range=(0.5, 1.0)))
    assert config.global_boxes == big
    assert config.local_boxes == replace(default.local_boxes, output=(16, 16, 16))
    assert config.overlap == replace(default.overlap, end=0.5)


def test_the_start_of_global_boxes_keeps_its_unit():
    start = {"range": [0.5, 1]}
    config = parse(ViewConfig, {"boxes": {"global_boxes": {"start": start}}}, "views").boxes
    assert config.global_boxes.start == Sizes(of="volume", range=(0.5, 1.0))
