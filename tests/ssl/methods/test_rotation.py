"""That labels tell how views were turned, and that every turn comes as often."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fewvox.data.errors import UserError
from fewvox.data.settings import SettingsError, parse
from fewvox.seg.networks.topology import Topology
from fewvox.ssl.method import ViewSpec
from fewvox.ssl.methods.rotation import Rotation, RotationConfig, all_turned, draw_turns
from fewvox.ssl.quarter_turns import Turn
from torch import nn

CONFIG = RotationConfig(hidden=16)


def turn_matrix(turn: Turn) -> np.ndarray:
    """How fast each coordinate of the volume (rows) grows along each axis of the turned view."""
    first, second = (axis for axis in range(3) if axis != turn.axis)
    quarter = np.zeros((3, 3))
    quarter[turn.axis, turn.axis] = 1
    # what lay along the first axis lies along the second, which points backwards along the first then
    quarter[first, second], quarter[second, first] = 1, -1
    return np.linalg.matrix_power(quarter, turn.quarters)


class Knows(nn.Module):
    """Stands for network and head that see in which direction the coordinates of a view grow."""

    def __init__(self, turns):
        super().__init__()
        self.matrices = torch.tensor(np.stack([turn_matrix(turn) for turn in turns]), dtype=torch.float32)
        self.classes = len(turns)

    def each(self, network, images):
        slopes = [images.diff(dim=dim).mean(dim=(3, 4, 5)) for dim in (3, 4, 5)]
        # along a single row there is none
        return torch.stack(slopes, dim=-1).nan_to_num().flatten(2)

    def forward(self, tuples):
        return -100 * torch.cdist(tuples[:, 0], self.matrices.flatten(1))


@pytest.fixture
def make_rotation(fresh_method, architecture, make_scope):
    """The method on a fresh network that pools all axes alike, or as `strides` say."""
    halved = ((2, 2, 2), (2, 2, 2))

    def make(extent=(8, 8, 8), strides=halved, **fields) -> Rotation:
        topology = Topology(features=(4, 8, 16), kernels=((3, 3, 3),) * 3, strides=strides)
        scope = replace(make_scope(1, extent=extent), architecture=replace(architecture, topology=topology))
        return fresh_method(Rotation, replace(CONFIG, **fields), scope)

    return make


@pytest.mark.parametrize(
    ("extent", "strides", "classes"),
    [
        ((8, 8, 8), ((2, 2, 2), (2, 2, 2)), 10),
        # cropped to a cube
        ((8, 12, 8), ((2, 2, 2), (2, 2, 2)), 10),
        # thick slices: a square plane, and half turns about its axes
        ((4, 8, 8), ((1, 2, 2), (2, 2, 2)), 6),
        ((8, 8, 8), ((1, 2, 2), (2, 2, 2)), 6),
        # a single slice stays in its plane
        ((1, 8, 8), ((1, 2, 2), (1, 2, 2)), 4),
    ],
)
def test_who_sees_the_directions_is_always_right(make_rotation, views_of, places, extent, strides, classes):
    method = make_rotation(extent, strides, turns=10)
    turns = method.turns.turns
    assert len(turns) == classes == method.head.classes
    method.head = Knows(turns)
    result = method(views_of(places(*extent)), 0)
    assert float(result.logs["accuracy"]) == 1
    assert float(result.loss) < 1e-6
    assert float(result.logs["chance"]) == pytest.approx(1 / classes)


def test_turning_back_gives_the_view(make_rotation):
    turns = make_rotation(turns=10).turns
    view = torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    numbers = torch.stack([torch.arange(10), torch.arange(10).flip(0)])
    images = all_turned(view, turns, numbers)
    assert images.shape == (2, 10, 1, 8, 8, 8)
    for item in range(2):
        for image, number in zip(images[item], numbers[item].tolist(), strict=True):
            axis, quarters = turns.turns[number]
            first, second = (a for a in range(3) if a != axis)
            back = np.rot90(image[0].numpy(), -quarters, (first, second))
            np.testing.assert_array_equal(back, view[item, 0].numpy())
    # no two of them are the same
    assert len({image.numpy().tobytes() for image in images[0]}) == 10


@pytest.mark.parametrize(("shown", "found"), [(1, 1), (4, 4), (10, 6)])
def test_every_view_has_different_turns_each_as_often(shown, found):
    numbers = draw_turns(600, 6, shown, torch.Generator().manual_seed(0))
    assert numbers.shape == (600, found)
    assert all(len(set(row)) == found for row in numbers.tolist())
    counts = torch.bincount(numbers.flatten(), minlength=6)
    assert counts.tolist() == pytest.approx([600 * found / 6] * 6, rel=0.2)
    assert len({tuple(row) for row in numbers.tolist()}) > 5


def test_turns_are_drawn_from_the_seed_of_the_batch(make_rotation, make_views, check_seed_decides):
    check_seed_decides(make_rotation(turns=2).eval(), make_views(1, extent=(8, 8, 8)))


def test_the_loss_is_that_of_every_turn_one_by_one_in_value_and_gradient(
    make_rotation, make_views, check_loss
):
    method, batch = make_rotation(turns=3).eval(), make_views(1, extent=(8, 8, 8), batch=2)
    numbers = draw_turns(2, 10, 3, torch.Generator().manual_seed(batch.seed))
    losses = []
    for item in range(2):
        for number in numbers[item].tolist():
            axis, quarters = method.turns.turns[number]
            first, second = (a + 2 for a in range(3) if a != axis)
            image = torch.rot90(batch.views[0][item : item + 1], quarters, (first, second))
            logits = method.head.together(method.head.each(method.network, image[:, None])[0])
            losses.append(F.cross_entropy(logits, torch.tensor([number])))
    check_loss(method, method(batch, 0).loss, torch.stack(losses).mean())


def test_a_single_volume_is_enough_where_it_is_shown_twice(make_rotation, make_views):
    """The head takes the mean over the images off, which leaves nothing of one."""
    assert Rotation.views(CONFIG) == ViewSpec(upright=True, times=CONFIG.turns)
    assert Rotation.views(replace(CONFIG, turns=1)).volumes == 2
    assert torch.isfinite(make_rotation(turns=2).train()(make_views(1, extent=(8, 8, 8), batch=1), 0).loss)


def test_vectors_that_are_all_the_same_lose_what_guessing_does(make_rotation, views_of, check_guess):
    check_guess(make_rotation(), views_of(torch.ones(2, 1, 8, 8, 8)), 10)


def test_a_view_without_any_turn_is_refused(make_rotation):
    with pytest.raises(UserError, match="nothing to turn"):
        make_rotation((1, 1, 8), ((1, 1, 2), (1, 1, 2)))


def test_a_few_steps_learn_which_way_up_a_volume_is(make_rotation, train, noisy):
    """Waves that are coarser from axis to axis, and brighter to one side."""
    axes = [torch.sin(torch.arange(8) * w) + 0.2 * torch.arange(8) for w in (0.5, 1.2, 2.5)]
    grain = (axes[0][:, None, None] + axes[1][None, :, None] + axes[2]).expand(2, 1, 8, 8, 8) - 2
    method = make_rotation(turns=5, hidden=32)
    results = train(method, lambda step: noisy(grain, 0.2, step, 1), 25, lr=1e-2)
    losses = [float(result.loss) for result in results]
    assert sum(losses[-5:]) < sum(losses[:5]) / 3


@pytest.mark.parametrize("values", [{"turns": 0}, {"turns": 11}, {"hidden": 1}, {"axes": [0]}])
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(RotationConfig, values, "options")
