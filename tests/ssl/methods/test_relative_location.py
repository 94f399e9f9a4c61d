"""That labels tell where cells lie, and that the loss asks for nothing else."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from fewvox.data.errors import UserError
from fewvox.data.settings import SettingsError, parse
from fewvox.ssl.cells import cut_cells, standardised
from fewvox.ssl.methods.relative_location import (
    RelativeLocation,
    RelativeLocationConfig,
    location_grid,
    neighbours,
)
from torch import nn

EXTENT = (12, 24, 12)
CONFIG = RelativeLocationConfig(hidden=16)


class Knows(nn.Module):
    """Stands for network and head that find a cell's place in its voxels and choose the nearest direction."""

    def __init__(self, directions):
        super().__init__()
        self.directions = torch.tensor(directions, dtype=torch.float32)

    def each(self, network, cells):
        return cells.mean(dim=(3, 4, 5))

    def forward(self, pairs):
        way = pairs[:, 1] - pairs[:, 0]
        return -100 * torch.cdist(way.sign() * (way.abs() > 1), self.directions)


@pytest.fixture
def make_location(fresh_method, make_scope):
    """The method on a fresh network; keywords replace settings."""

    def make(extent=EXTENT, **fields) -> RelativeLocation:
        return fresh_method(RelativeLocation, replace(CONFIG, **fields), make_scope(1, extent=extent))

    return make


def directions(*counts: int) -> list[tuple[int, ...]]:
    """Those from the centre to every other cell, in the order of z, y, x."""
    ways = product(*([-1, 0, 1] if count == 3 else [0] for count in counts))
    return [way for way in ways if any(way)]


@pytest.mark.parametrize(
    ("extent", "counts"), [(EXTENT, (3, 3, 3)), ((2, 24, 12), (1, 3, 3)), ((2, 24, 2), (1, 3, 1))]
)
def test_labels_are_the_directions_in_which_cells_lie(make_scope, places, extent, counts):
    grid = location_grid(make_scope(1, extent=extent), CONFIG)
    assert grid.counts == counts
    cells = cut_cells(places(*extent), grid, torch.Generator().manual_seed(0))
    pairs, labels = neighbours(cells.mean(dim=(3, 4, 5)))
    ways = directions(*counts)
    assert pairs.shape == (2 * len(ways), 2, 3)
    assert labels.tolist() == list(range(len(ways))) * 2
    for (centre, other), label in zip(pairs.tolist(), labels.tolist(), strict=True):
        # jitter moves a cell by less than half of its place
        assert centre == pytest.approx([(n - 1) / 2 for n in extent], abs=2)
        way = [round((o - c) * k / n) for o, c, k, n in zip(other, centre, counts, extent, strict=True)]
        assert tuple(way) == ways[label]


@pytest.mark.parametrize(("extent", "counts"), [(EXTENT, (3, 3, 3)), ((2, 24, 12), (1, 3, 3))])
def test_who_knows_the_place_is_always_right(make_location, views_of, places, extent, counts):
    method = make_location(extent=extent, standardise=False)
    method.head = Knows(directions(*counts))
    result = method(views_of(places(*extent), seed=3), 0)
    assert float(result.logs["accuracy"]) == 1
    assert float(result.loss) < 1e-6
    mirrored = views_of(places(*extent).flip(4), seed=3)
    # only what lies straight above, below, in front or behind is still where it was
    straight = sum(way[2] == 0 for way in directions(*counts)) / len(directions(*counts))
    assert float(method(mirrored, 0).logs["accuracy"]) == pytest.approx(straight)


def test_the_loss_is_that_of_every_pair_one_by_one_in_value_and_gradient(
    make_location, make_views, check_loss
):
    method, batch = make_location().eval(), make_views(1, extent=EXTENT, batch=2)
    cells = cut_cells(batch.views[0], method.grid, torch.Generator().manual_seed(batch.seed))
    losses, right = [], 0
    for item in range(2):
        vectors = method.head.each(method.network, standardised(cells[item : item + 1]))[0]
        for label, other in enumerate([*range(13), *range(14, 27)]):
            logits = method.head.together(torch.cat([vectors[13], vectors[other]])[None])
            losses.append(F.cross_entropy(logits, torch.tensor([label])))
            right += int(logits.argmax()) == label
    result = method(batch, 0)
    assert float(result.logs["accuracy"]) == pytest.approx(right / 52)
    check_loss(method, result.loss, torch.stack(losses).mean())


def test_brightness_and_contrast_are_not_seen(make_location, make_views):
    batch = make_views(1, extent=EXTENT)
    changed = replace(batch, views=(3 * batch.views[0] + 5,))
    for standardise in (True, False):
        method = make_location(standardise=standardise).eval()
        before, after = (float(method(b, 0).loss.detach()) for b in (batch, changed))
        assert (before == pytest.approx(after, rel=1e-4)) == standardise


def test_vectors_that_are_all_the_same_lose_what_guessing_does(make_location, views_of, check_guess):
    check_guess(make_location(extent=(2, 24, 12)), views_of(torch.ones(2, 1, 2, 24, 12)), 8)


def test_a_view_without_room_for_neighbours_is_refused(make_scope):
    with pytest.raises(UserError, match=r"\(2, 4, 2\) voxels: no axis has room for three cells"):
        RelativeLocation.heads(make_scope(1, extent=(2, 4, 2)), CONFIG)


def test_a_few_steps_learn_the_places_of_a_volume(make_location, train, same_grain):
    method = make_location(extent=(2, 24, 12), jitter=0.0, hidden=64)
    losses = [float(result.loss) for result in train(method, same_grain(2, 24, 12), 25, lr=1e-2)]
    assert sum(losses[-5:]) < sum(losses[:5]) / 3


@pytest.mark.parametrize(
    "values", [{"gap": 1}, {"gap": -0.1}, {"jitter": 2}, {"hidden": 1}, {"neighbours": 26}]
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(RelativeLocationConfig, values, "options")
