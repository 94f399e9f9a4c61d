"""A view shows the very place of its box, at any level, and a batch is a function of seed and step."""

import math
import threading
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fewvox.data.augment.spatial import SpatialConfig
from fewvox.data.boxes import read_box
from fewvox.data.errors import UserError
from fewvox.ssl.method import Views, ViewSpec
from fewvox.ssl.smartpatch import Box, Ramp, SmartPatchConfig
from fewvox.ssl.views import ViewConfig, ViewSampler, evenly, read_view
from hypothesis import given
from hypothesis import strategies as st

IDENTITY = torch.eye(3, dtype=torch.float64)
SLOPE = np.array([0.03, 0.02, -0.01])
SPACINGS = [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)]
STILL = SmartPatchConfig(reach=Ramp(start=0, end=0), zoom=(1.0, 1.0))
PLAIN = ViewConfig(boxes=STILL, spatial=None, intensity=None)
PATCH = (4, 8, 4)


def box(start, size) -> Box:
    return Box(start=np.array(start, float), size=np.array(size, float))


def turned(angles: tuple[float, float], spacing) -> torch.Tensor:
    """A turn in the plane of y and x with the slices turned over, then one out of it, in physical space."""
    (c, s), (cos, sin) = ((math.cos(math.radians(a)), math.sin(math.radians(a))) for a in angles)
    plane = torch.tensor([[-1, 0, 0], [0, c, -s], [0, s, c]], dtype=torch.float64)
    out = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
    size = torch.diag(torch.tensor(spacing, dtype=torch.float64))
    return size.inverse() @ out @ plane @ size


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
    places = centre - 0.5 + step * offsets @ turn.numpy().T
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
    turn = torch.zeros(3, 3, dtype=torch.float64)
    turn[0, 0] = turn[1, 2] = 1
    turn[2, 1] = -1
    store, whole = make_store(volume), (10, 12, 12)
    view = read_view(store, "v", box((0, 0, 0), whole), whole, torch.linalg.matrix_power(turn, times))
    np.testing.assert_allclose(view[0], np.rot90(volume, times, axes=(2, 3)), atol=1e-5)


def test_channels_stay_apart(make_store):
    volume = np.random.default_rng(0).normal(size=(2, 6, 6, 6))
    view = read_view(make_store(volume), "v", box((1, 1, 1), (4, 4, 4)), (4, 4, 4), IDENTITY)
    np.testing.assert_allclose(view[0], volume[:, 1:5, 1:5, 1:5], atol=1e-5)


@pytest.fixture(scope="module")
def sampler(tiny_store):
    """A sampler of the store's cases; keywords replace the defaults."""

    def make(
        *, cases=tuple(tiny_store.cases), patch=PATCH, batch=3, count=2, config=None, seed=0, steps=10
    ) -> ViewSampler:
        spec = ViewSpec(count=count)
        return ViewSampler(tiny_store, cases, patch, batch, spec, config or ViewConfig(), seed, steps)

    return make


def same(one: Views, other: Views) -> bool:
    images = all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))
    return images and (one.cases, one.seed) == (other.cases, other.seed)


@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_has_the_views_it_tells(sampler, count):
    batch = sampler(count=count).batch(4)
    assert [view.shape for view in batch.views] == [(3, 1, *PATCH)] * count
    assert {view.dtype for view in batch.views} == {torch.float32}
    assert len(set(batch.cases)) == 3
    assert all(torch.isfinite(view).all() for view in batch.views)


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


@pytest.mark.parametrize("part", ["boxes", "spatial", "intensity"])
def test_every_part_of_a_view_is_drawn_from_the_seed(sampler, part):
    """One volume; all other parts are left out."""
    config = PLAIN if part == "boxes" else replace(PLAIN, **{part: getattr(ViewConfig(), part)})
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
    monkeypatch.setattr(ViewSampler, "views", lambda self, *asked: asked)
    return lambda count, **kinds: [sampler(**kinds).batch(step) for step in range(count)]


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


def test_early_views_show_the_whole_volume_and_late_ones_a_patch(sampler, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "fewvox.ssl.views.read_view",
        lambda store, case, box, patch, turn: (sizes.append(box.size[0]), torch.zeros(1, 1, *patch))[1],
    )
    made = sampler(config=ViewConfig(boxes=SmartPatchConfig(zoom=(1.0, 1.0))), steps=3)
    for step in range(3):
        made.batch(step)
    # view by view, three items each; the volume is twice as wide as the patch where it fits it least
    assert sizes == pytest.approx([8, 8, 8, 4, 4, 4] + [6, 6, 6, 4, 4, 4] + [4] * 6)


def test_turns_follow_the_spacing_of_the_store(tiny_store, sampler, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "fewvox.ssl.views.read_view",
        lambda store, case, box, patch, turn: (seen.append(turn), torch.zeros(1, 1, *patch))[1],
    )
    spatial = SpatialConfig(rotation_probability=1, scale_probability=0, flip_probability=0)
    sampler(config=ViewConfig(spatial=spatial)).batch(0)
    size = torch.diag(torch.tensor(tiny_store.plan.preprocessing.spacing, dtype=torch.float64))
    assert len(seen) == 6
    for turn in seen:
        physical = size @ turn @ size.inverse()
        torch.testing.assert_close(physical @ physical.T, IDENTITY)
    assert len({tuple(turn.flatten().tolist()) for turn in seen}) == 6


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
    """Zoomed boxes have their middle off the only slice."""
    case = SimpleNamespace(levels=((1, 1, 1),))
    store = SimpleNamespace(cases={"flat": case}, image=lambda *_: np.ones((1, 1, 20, 20), np.float32))
    view = read_view(store, "flat", box((0.2, 3, 3), (0.7, 8, 8)), (1, 8, 8), IDENTITY)
    torch.testing.assert_close(view, torch.ones(1, 1, 1, 8, 8))
