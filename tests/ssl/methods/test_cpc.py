"""What is predicted from what, and the loss against plain loops."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fewvox.data.errors import UserError
from fewvox.data.settings import SettingsError, parse
from fewvox.ssl.cells import cut_cells
from fewvox.ssl.methods import cpc
from fewvox.ssl.methods.cpc import Cpc, CpcConfig, CpcHead, cpc_grid, info_nce
from torch import nn

EXTENT = (4, 8, 4)
CONFIG = CpcConfig(hidden=16, dimension=8, context=8)


def normal(*shape: int, seed=0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def make_cpc(fresh_method, make_scope):
    """The method on a fresh network; keywords replace settings."""

    def make(extent=EXTENT, **fields) -> Cpc:
        return fresh_method(Cpc, replace(CONFIG, **fields), make_scope(1, extent=extent))

    return make


@pytest.fixture
def make_head(architecture):
    """A head that predicts these steps."""

    def make(*steps: int, **fields) -> CpcHead:
        torch.manual_seed(0)
        return CpcHead(architecture, replace(CONFIG, **fields), steps)

    return make


def test_the_loss_is_that_of_plain_loops_in_value_and_gradient():
    predicted, candidates, right = normal(6, 4), normal(5, 4, seed=1), [0, 4, 2, 2, 1, 3]
    of_predicted, of_candidates = predicted.clone().requires_grad_(), candidates.clone().requires_grad_()
    result = info_nce(of_predicted, of_candidates, torch.tensor(right))
    result.loss.backward()
    losses, hits = [], 0
    to_predicted, to_candidates = torch.zeros(6, 4), torch.zeros(5, 4)
    for row, (p, target) in enumerate(zip(predicted, right, strict=True)):
        scores = [
            math.exp(sum(a * b for a, b in zip(p.tolist(), z.tolist(), strict=True))) for z in candidates
        ]
        losses.append(-math.log(scores[target] / sum(scores)))
        hits += scores.index(max(scores)) == target
        for k, z in enumerate(candidates):
            share = (scores[k] / sum(scores) - (k == target)) / 6
            to_predicted[row] += share * z
            to_candidates[k] += share * p
    assert result.loss.item() == pytest.approx(sum(losses) / 6, rel=1e-5)
    assert float(result.logs["accuracy"]) == pytest.approx(hits / 6)
    torch.testing.assert_close(of_predicted.grad, to_predicted, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(of_candidates.grad, to_candidates, atol=1e-6, rtol=1e-4)


def test_a_context_is_made_of_the_pyramid_above_a_cell(make_head):
    """Of the cell, nine above it, 25 above these; of none below."""
    head, z = make_head(1), normal(1, 4, 7, 7, 8).requires_grad_()
    head.contexts(z)[0, 2, 3, 2].sum().backward()
    assert z.grad is not None
    reached = z.grad[0].abs().sum(dim=-1) > 0
    expected = torch.zeros(4, 7, 7, dtype=torch.bool)
    for layer in range(3):
        reach = 2 - layer
        expected[layer, 3 - reach : 4 + reach, max(0, 2 - reach) : 3 + reach] = True
    assert torch.equal(reached, expected)


def test_the_context_of_a_single_column_is_that_of_a_recurrent_network(make_head):
    head, z = make_head(1), normal(2, 4, 1, 1, 8)
    whole = nn.GRU(8, 8, batch_first=True)
    state = {f"{name}_l0": value for name, value in head.recurrence.state_dict().items()}
    whole.load_state_dict(state)
    torch.testing.assert_close(head.contexts(z)[:, :, 0, 0], whole(z[:, :, 0, 0])[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("steps", [(1, 2, 3), (2, 3), (2,)])
def test_what_is_predicted_lies_so_many_steps_below_its_context(make_head, steps):
    """The contexts are replaced by the places of their cells."""
    head, counts = make_head(*steps, dimension=4, context=4), (2, 4, 3, 2)
    axes = torch.meshgrid(*(torch.arange(float(n)) for n in counts), indexing="ij")
    places = torch.stack(axes, dim=-1)
    head.contexts = lambda z: z
    for linear in head.maps.values():
        nn.init.eye_(linear.weight)
    predicted, numbers = head.predictions(places)
    ways = places.flatten(0, 3)[numbers] - predicted
    expected = [[0.0, k, 0.0, 0.0] for k in steps for _ in range(2 * (4 - k) * 3 * 2)]
    assert ways.tolist() == expected


@pytest.mark.parametrize(
    ("extent", "overlap", "steps", "counts", "down", "predicted"),
    [
        ((8, 16, 8), 0.0, None, (4, 4, 4), 0, [1, 2, 3]),
        ((8, 16, 8), 0.0, 2, (4, 4, 4), 0, [1, 2]),
        # neighbours share voxels
        ((8, 16, 8), 0.5, None, (4, 4, 4), 0, [2, 3]),
        ((8, 16, 8), 1.0, 1, (4, 4, 4), 0, [2]),
        # thin along z
        ((2, 16, 8), 0.0, None, (2, 4, 4), 1, [1, 2, 3]),
        ((2, 4, 8), 0.0, None, (2, 2, 4), 2, [1, 2, 3]),
    ],
)
def test_the_axis_with_most_cells_leads_down(make_scope, extent, overlap, steps, counts, down, predicted):
    grid, axis, ahead = cpc_grid(make_scope(1, extent=extent), replace(CONFIG, overlap=overlap, steps=steps))
    assert (grid.counts, axis, list(ahead)) == (counts, down, predicted)


class Told(nn.Module):
    """Stands for a head whose codes are the places that cells tell, and that predicts all of them rightly."""

    def codes(self, network, cells):
        return cells.mean(dim=(3, 4, 5))

    def predictions(self, z):
        self.z = z
        return 100 * (z - z.mean(dim=(0, 1, 2, 3))).flatten(0, 3), torch.arange(z[..., 0].numel())


@pytest.mark.parametrize(("extent", "down"), [((8, 16, 8), 0), ((2, 16, 8), 1), ((2, 4, 8), 2)])
def test_codes_stand_where_their_cells_lie(make_cpc, views_of, places, extent, down):
    """Layers follow the axis that leads down, the others stay in their order."""
    method = make_cpc(extent=extent)
    method.head = Told()
    method(views_of(places(*extent)), 0)
    for dim, axis in enumerate([down, *(a for a in range(3) if a != down)], start=1):
        count = method.grid.counts[axis]
        expected = (torch.arange(count) + 0.5) * extent[axis] / count - 0.5
        along = method.head.z[..., axis].movedim(dim, -1)
        torch.testing.assert_close(along, expected.expand_as(along))


def test_the_loss_is_that_of_every_prediction_one_by_one_in_value_and_gradient(
    make_cpc, make_views, check_loss
):
    method, batch = make_cpc(extent=(4, 16, 4)).eval(), make_views(1, extent=(4, 16, 4), batch=2)
    assert method.grid.counts == (4, 4, 4)
    cells = cut_cells(batch.views[0], method.grid, torch.Generator())
    z = [
        [method.head.codes(method.network, cells[item : item + 1, i : i + 1])[0, 0] for i in range(64)]
        for item in range(2)
    ]
    contexts = [method.head.contexts(torch.stack(of_item).view(1, 4, 4, 4, 8))[0] for of_item in z]
    candidates = torch.stack([*z[0], *z[1]])
    losses = []
    for k in (1, 2, 3):
        for item in range(2):
            for layer in range(4 - k):
                for row in range(4):
                    for column in range(4):
                        p = method.head.maps[str(k)](contexts[item][layer, row, column])
                        right = 64 * item + 16 * (layer + k) + 4 * row + column
                        losses.append(F.cross_entropy((candidates @ p)[None], torch.tensor([right])))
    check_loss(method, method(batch, 0).loss, torch.stack(losses).mean())


def test_two_processes_are_one_on_the_union_of_the_batch(make_cpc, make_views, monkeypatch):
    """Each has its own predictions, and the cells of both as candidates."""
    method, batch = make_cpc().eval(), make_views(1, batch=4)
    whole = method(batch, 0)
    halves = [replace(batch, views=(v,), maps=(m,), cases=c) for v, m, c in zip(
        batch.views[0].chunk(2), batch.maps[0].chunk(2), (("a", "b"), ("c", "d")), strict=True
    )]  # fmt: skip
    seen = []
    monkeypatch.setattr(cpc, "gathered", lambda rows: seen.append(rows) or rows)
    for half in halves:
        method(half, 0)
    monkeypatch.setattr(cpc, "gathered", lambda rows: torch.cat(seen))
    results = []
    for number, half in enumerate(halves):
        monkeypatch.setattr(cpc, "rank", lambda number=number: number)
        results.append(method(half, 0))
    for of_both, of_one in ((r.loss for r in results), whole.loss), (
        (r.logs["accuracy"] for r in results), whole.logs["accuracy"]
    ):  # fmt: skip
        torch.testing.assert_close(torch.stack(list(of_both)).mean(), of_one, atol=1e-5, rtol=1e-5)


def test_codes_that_are_all_the_same_lose_what_guessing_does(make_cpc, views_of):
    method = make_cpc()
    nn.init.zeros_(method.head.code.weight)
    result = method(views_of(torch.ones(3, 1, *EXTENT)), 0)
    candidates = 3 * method.grid.number
    assert result.loss.item() == pytest.approx(method.resting_loss()) == pytest.approx(math.log(candidates))
    assert float(result.logs["chance"]) == pytest.approx(1 / candidates)


@pytest.mark.parametrize(("extent", "overlap"), [((2, 4, 2), 1.0), ((1, 1, 1), 0.0)])
def test_a_view_without_a_layer_to_predict_is_refused(make_scope, extent, overlap):
    with pytest.raises(UserError, match="layers of cells, and every one shares voxels with the first"):
        cpc_grid(make_scope(1, extent=extent), replace(CONFIG, cells=2, overlap=overlap))


def test_a_few_steps_tell_the_cells_of_volumes_apart(make_cpc, views_of, train):
    """Each volume has a grain of its own, the same all over."""
    waves = [torch.sin(torch.arange(16) * w) for w in (0.4, 1.7)]
    grain = torch.stack([w[None, :8, None] * w[None, None, :4] * torch.ones(4, 1, 1) for w in waves])[:, None]
    method = make_cpc(cells=2)
    results = train(method, lambda step: views_of(grain + 0.1 * normal(2, 1, *EXTENT, seed=step)), 25)
    losses = [float(result.loss) for result in results]
    # all cells of a volume are alike: telling the volume leaves the logarithm of their number
    assert sum(losses[-5:]) / 5 < method.resting_loss() - 0.8 * math.log(2)


@pytest.mark.parametrize(
    "values", [{"cells": 1}, {"overlap": 1.5}, {"overlap": -0.1}, {"steps": 0}, {"dimension": 1}]
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(CpcConfig, values, "options")
