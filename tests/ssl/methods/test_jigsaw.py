"""That labels tell how cells were shuffled, and that orders are far apart."""

import math
from dataclasses import replace
from itertools import permutations, product

import pytest
import torch
import torch.nn.functional as F
from fewvox.data.errors import UserError
from fewvox.data.settings import SettingsError, parse
from fewvox.ssl.cells import cut_cells, standardised
from fewvox.ssl.methods.jigsaw import Jigsaw, JigsawConfig, far_orders, jigsaw_grid, shuffled
from torch import nn

EXTENT = (4, 8, 4)
CONFIG = JigsawConfig(hidden=16, orders=20)


class Knows(nn.Module):
    """Stands for network and head that find the place of every cell in its voxels, and know the orders."""

    def __init__(self, centres, orders):
        super().__init__()
        self.as_shuffled = torch.tensor([[centres[cell] for cell in order] for order in orders])

    def each(self, network, cells):
        return cells.mean(dim=(3, 4, 5))

    def forward(self, tuples):
        return -100 * torch.cdist(tuples.flatten(1), self.as_shuffled.flatten(1))


def differing(a, b) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


@pytest.fixture
def make_jigsaw(fresh_method, make_scope):
    """The method on a fresh network; keywords replace settings."""

    def make(extent=EXTENT, **fields) -> Jigsaw:
        return fresh_method(Jigsaw, replace(CONFIG, **fields), make_scope(1, extent=extent))

    return make


@pytest.mark.parametrize(("cells", "count"), [(2, 2), (3, 6), (4, 24), (8, 100), (9, 50), (27, 30)])
def test_orders_are_different_orders_of_all_cells(cells, count):
    orders = far_orders(cells, count)
    assert len(set(orders)) == count
    assert all(sorted(order) == list(range(cells)) for order in orders)
    assert orders[0] == tuple(range(cells))


@pytest.mark.parametrize(("cells", "there_are"), [(2, 2), (4, 24)])
def test_there_are_no_more_orders_than_there_can_be(cells, there_are):
    assert sorted(far_orders(cells, 1000)) == sorted(permutations(range(cells)))
    assert len(far_orders(cells, 1000)) == there_are


@pytest.mark.parametrize(("cells", "count"), [(3, 5), (4, 15), (5, 25)])
def test_each_order_is_the_furthest_from_those_before_it(cells, count):
    """By plain loops over all: the nearest of those before counts first, then their sum."""
    chosen = [tuple(range(cells))]
    while len(chosen) < count:
        best, found = (0, 0), chosen[0]
        for order in permutations(range(cells)):
            distances = [differing(order, before) for before in chosen]
            if (min(distances), sum(distances)) > best:
                best, found = (min(distances), sum(distances)), order
        chosen.append(found)
    assert far_orders(cells, count) == tuple(chosen)


def test_the_first_orders_agree_in_no_place():
    """There are as many such orders as cells; a hundred still differ in five of eight places."""
    orders = far_orders(8, 100)
    assert min(differing(a, b) for i, a in enumerate(orders[:8]) for b in orders[:i]) == 8
    assert min(differing(a, b) for i, a in enumerate(orders) for b in orders[:i]) >= 5


def test_labels_are_the_orders_in_which_cells_stand(make_jigsaw, places):
    """In place n of order p stands cell p[n], and sorting by the order brings all back."""
    method = make_jigsaw()
    cells = cut_cells(places(*EXTENT), method.grid, torch.Generator().manual_seed(0))
    centres = cells.mean(dim=(3, 4, 5))
    tuples, labels = shuffled(centres, method.orders)
    assert tuples.shape == (40, 8, 3)
    assert labels.tolist() == list(range(20)) * 2
    for row, (one, label) in enumerate(zip(tuples, labels.tolist(), strict=True)):
        order = far_orders(8, 20)[label]
        for place, cell in enumerate(order):
            octant = [cell // 4, cell // 2 % 2, cell % 2]
            assert [int(v >= n / 2) for v, n in zip(one[place].tolist(), EXTENT, strict=True)] == octant
        assert torch.equal(one[torch.tensor(order).argsort()], centres[row // 20])


def test_vectors_are_shuffled_as_cells_would_be(make_jigsaw, make_views):
    """Cells are encoded one by one: this is what makes all orders cost one pass."""
    method, batch = make_jigsaw().eval(), make_views(1, batch=2)
    cells = cut_cells(batch.views[0], method.grid, torch.Generator().manual_seed(0))
    vectors = method.head.each(method.network, cells)
    order = method.orders[7]
    before = method.head.each(method.network, cells[:, order])
    torch.testing.assert_close(vectors[:, order], before, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("extent", "asked", "counts"),
    [
        ((8, 16, 8), (2, 2, 2), (2, 2, 2)),
        ((8, 16, 8), (1, 3, 2), (1, 3, 2)),
        # two of four coarsest voxels
        ((8, 4, 8), (2, 3, 2), (2, 1, 2)),
    ],
)
def test_who_knows_the_place_is_always_right(make_jigsaw, views_of, places, extent, asked, counts):
    method = make_jigsaw(extent=extent, cells=asked, standardise=False, jitter=0.3)
    assert method.grid.counts == counts
    axes = [[(2 * i + 1) * n / (2 * k) - 0.5 for i in range(k)] for n, k in zip(extent, counts, strict=True)]
    cells = method.grid.number
    method.head = Knows(list(product(*axes)), far_orders(cells, 20))
    assert len(method.orders) == min(20, math.factorial(cells))
    result = method(views_of(places(*extent), seed=3), 0)
    assert float(result.logs["accuracy"]) == 1
    assert float(result.loss) < 1e-6
    # the wrong way round other orders are seen
    assert float(method(views_of(places(*extent).flip(2, 3, 4), seed=3), 0).logs["accuracy"]) < 0.5


def test_the_loss_is_that_of_every_order_one_by_one_in_value_and_gradient(
    make_jigsaw, make_views, check_loss
):
    method, batch = make_jigsaw().eval(), make_views(1, batch=2)
    cells = standardised(cut_cells(batch.views[0], method.grid, torch.Generator().manual_seed(batch.seed)))
    losses = []
    for item in range(2):
        vectors = [
            method.head.each(method.network, cells[item : item + 1, i : i + 1])[0, 0] for i in range(8)
        ]
        for label, order in enumerate(far_orders(8, 20)):
            logits = method.head.together(torch.cat([vectors[cell] for cell in order])[None])
            losses.append(F.cross_entropy(logits, torch.tensor([label])))
    check_loss(method, method(batch, 0).loss, torch.stack(losses).mean())


def test_brightness_and_contrast_are_not_seen(make_jigsaw, make_views):
    batch = make_views(1)
    changed = replace(batch, views=(3 * batch.views[0] + 5,))
    for standardise in (True, False):
        method = make_jigsaw(standardise=standardise).eval()
        before, after = (float(method(b, 0).loss.detach()) for b in (batch, changed))
        assert (before == pytest.approx(after, rel=1e-4)) == standardise


def test_vectors_that_are_all_the_same_lose_what_guessing_does(make_jigsaw, views_of, check_guess):
    check_guess(make_jigsaw(), views_of(torch.ones(2, 1, *EXTENT)), 20)


def test_orders_are_kept_with_the_state(make_jigsaw):
    """Classes are numbers of these."""
    assert torch.equal(make_jigsaw().state_dict()["orders"], torch.tensor(far_orders(8, 20)))


def test_a_view_of_a_single_cell_is_refused(make_scope):
    with pytest.raises(UserError, match=r"\(1, 1, 1\) cells: a single cell is left"):
        jigsaw_grid(make_scope(1), replace(CONFIG, cells=(1, 1, 1)))
    with pytest.raises(UserError, match="a single cell is left"):
        Jigsaw.heads(make_scope(1, extent=(2, 4, 2)), replace(CONFIG, cells=(1, 2, 1)))


def test_a_few_steps_learn_to_sort_a_volume(make_jigsaw, train, same_grain):
    results = train(make_jigsaw(orders=10, jitter=0.0), same_grain(*EXTENT), 25, lr=1e-2)
    losses = [float(result.loss) for result in results]
    assert sum(losses[-5:]) < sum(losses[:5]) / 3


@pytest.mark.parametrize(
    "values", [{"cells": [2, 2]}, {"cells": [0, 2, 2]}, {"cells": [4, 2, 2]}, {"orders": 1}, {"gap": 1}]
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(JigsawConfig, values, "options")
