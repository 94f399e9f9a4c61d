"""Overlaps and losses of VoCo against plain loops, and where its crops lie."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fewvox.data.errors import UserError
from fewvox.data.settings import SettingsError, parse
from fewvox.seg.networks.topology import Topology
from fewvox.ssl import gather
from fewvox.ssl.methods import voco
from fewvox.ssl.methods.voco import (
    Voco,
    VocoConfig,
    boxes_in_volume,
    draw_starts,
    likeness_of_cells,
    overlap_shares,
    prediction_losses,
    voco_grid,
)

CONFIG = VocoConfig(hidden=16, dimension=8)
EXTENT = (8, 16, 8)


def upright(*of_items: tuple[tuple[float, float, float], tuple[float, float, float]]) -> torch.Tensor:
    """Maps (B, 3, 4) of upright views: of each item the steps along the axes, and its first voxel's place."""
    return torch.stack(
        [torch.from_numpy(np.column_stack([np.diag(steps), start])) for steps, start in of_items]
    )


def covered(steps, start, first, size) -> list[tuple[float, float]]:
    """From where to where a box reaches along each axis of the volume."""
    return [
        (t + s * (f - 0.5), t + s * (f + n - 0.5))
        for s, t, f, n in zip(steps, start, first, size, strict=True)
    ]


def share(crop, cell) -> float:
    """How much of a crop lies in a cell."""
    edges = [
        max(0.0, min(a[1], b[1]) - max(a[0], b[0])) / (a[1] - a[0]) for a, b in zip(crop, cell, strict=True)
    ]
    return math.prod(edges)


def places(extent, batch=1, start=(0, 0, 0), step=1.0) -> torch.Tensor:
    """Views whose three channels hold the place in the volume of each voxel."""
    axes = torch.meshgrid(
        *(s + step * torch.arange(float(n)) for n, s in zip(extent, start, strict=True)), indexing="ij"
    )
    return torch.stack(axes).expand(batch, 3, *extent)


@pytest.fixture
def make_method(fresh_method, make_scope):
    """The method on a fresh network; keywords replace settings."""

    def make(extent=EXTENT, **fields) -> Voco:
        return fresh_method(Voco, replace(CONFIG, **fields), make_scope(2, extent=extent))

    return make


def test_prediction_losses_are_those_of_plain_loops():
    """And their gradients; differences go from 0 to where the logarithm would not be defined."""
    cosines = torch.linspace(-0.99, 1, 60).view(2, 5, 6).requires_grad_()
    overlaps = torch.tensor([0, 0.125, 0.5, 0.75, 1.0, 0]).expand(2, 5, 6)
    found = prediction_losses(cosines, overlaps)
    found.sum().backward()
    assert cosines.grad is not None
    for at in itertools.product(range(2), range(5), range(6)):
        s, y = float(cosines[at].detach()), float(overlaps[at])
        d = abs(y - s)
        expected = -math.log(1 - d) if d < 0.98 else -math.log(0.02) + (d - 0.98) / 0.02
        assert float(found[at].detach()) == pytest.approx(expected, rel=1e-4, abs=1e-6)
        slope = math.copysign(1 / (1 - min(d, 0.98)), s - y)
        assert float(cosines.grad[at]) == pytest.approx(slope, rel=1e-3)


def test_a_cosine_that_is_the_overlap_costs_nothing_and_one_far_off_still_learns():
    overlaps = torch.tensor([[[0.0, 0.3, 1.0, 1.0]]])
    assert prediction_losses(overlaps, overlaps).tolist() == [[[0, 0, 0, 0]]]
    cosines = torch.full((1, 1, 4), -1.0, requires_grad=True)
    losses = prediction_losses(cosines, overlaps)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    # none is dead, as it would be were cosines clipped at 0, and none is beyond bounds
    assert cosines.grad is not None
    assert (cosines.grad.abs() >= 1).all()
    assert (cosines.grad.abs() <= 51).all()


def test_the_likeness_of_cells_is_that_of_plain_loops():
    raw = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = likeness_of_cells(F.normalize(raw, dim=2))
    terms = [
        F.cosine_similarity(raw[b, i], raw[b, j], dim=0).abs()
        for b in range(3)
        for i, j in itertools.combinations(range(5), 2)
    ]
    expected = torch.stack(terms).sum() * 2 / (5 * 4) / 3
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, raw)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_cells_that_are_all_the_same_are_most_alike():
    same = torch.tensor([1.0, 0, 0]).expand(2, 4, 3)
    assert float(likeness_of_cells(same)) == 1
    assert float(likeness_of_cells(torch.eye(4)[None])) == 0


def test_overlaps_are_those_of_plain_loops_in_the_volume_s_voxels():
    """Of two items, each with views of their own steps and places; one view is mirrored."""
    firsts = [((1.5, 1.0, 2.0), (3.0, -2.0, 0.0)), ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))]
    seconds = [((1.0, 1.1, 1.7), (4.2, 1.0, 3.3)), ((0.7, -1.3, 1.0), (1.5, 20.0, -0.5))]
    size = (4, 8, 4)
    cells = list(itertools.product((0, 4), (0, 8), (0, 4)))
    crops = [[(0, 0, 0), (2, 5, 1), (4, 8, 4)], [(1, 3, 2), (4, 0, 0), (3, 8, 4)]]
    found = overlap_shares(
        boxes_in_volume(upright(*seconds), torch.tensor(crops), size),
        boxes_in_volume(upright(*firsts), torch.tensor(cells).expand(2, 8, 3), size),
    )
    assert found.shape == (2, 3, 8)
    for b, m, n in itertools.product(range(2), range(3), range(8)):
        steps, start = seconds[b]
        crop = [(min(edges), max(edges)) for edges in covered(steps, start, crops[b][m], size)]
        assert float(found[b, m, n]) == pytest.approx(
            share(crop, covered(*firsts[b], cells[n], size)), abs=1e-9
        )
    assert (found.sum(dim=2) <= 1 + 1e-9).all()
    assert (found > 0).any(dim=2).any()


def test_a_crop_that_is_a_cell_overlaps_it_wholly_and_no_other(make_method, make_views):
    method = make_method()
    grid, maps = method.grid, make_views(1, extent=EXTENT).maps[0][:1]
    starts = grid.draw(1, torch.Generator())
    cells = boxes_in_volume(maps, starts, grid.size)
    torch.testing.assert_close(overlap_shares(cells, cells)[0], torch.eye(8, dtype=torch.float64))


@pytest.mark.parametrize(
    ("steps", "start"),
    [
        ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
        ((0.8, 1.0, 1.3), (1.7, 3.0, -2.2)),
        ((1.0, -1.0, 1.0), (0.0, 18.0, 0.0)),
    ],
)
def test_crops_lie_in_the_first_view_as_far_as_they_can(steps, start):
    """None that lies in the second view covers more of it, along any axis; and every such place is drawn."""
    size, first, second = (4, 8, 4), upright(((1.0,) * 3, (0.0,) * 3)), upright((steps, start))
    drawn = draw_starts(second, first, EXTENT, size, 400, torch.Generator().manual_seed(0))[0]
    for axis in range(3):
        rooms = range(EXTENT[axis] - size[axis] + 1)

        def shared(place: int, axis=axis) -> float:
            low, high = sorted(start[axis] + steps[axis] * (end - 0.5) for end in (place, place + size[axis]))
            return min(high, EXTENT[axis] - 0.5) - max(low, -0.5)

        most = max(shared(place) for place in rooms)
        best = {place for place in rooms if shared(place) > most - 1e-9}
        assert set(drawn[:, axis].tolist()) == best


def test_cells_and_crops_show_the_places_that_the_overlaps_are_of(make_method, make_scope, views_of):
    """Views that tell their places in the volume; the second has steps of its own and begins elsewhere."""
    method = make_method(crops=6)
    batch = views_of(places(EXTENT, 2), places(EXTENT, 2, (1.5, 2.25, 0.5), 0.75))
    second = upright(*[((0.75,) * 3, (1.5, 2.25, 0.5))] * 2)
    cells, crops, overlaps = method.cut(replace(batch, maps=(batch.maps[0], second)))
    assert cells.shape == (16, 3, 4, 8, 4)
    assert crops.shape == (12, 3, 4, 8, 4)

    def shown(image: torch.Tensor, step: float) -> list[tuple[float, float]]:
        return [(float(c.min()) - step / 2, float(c.max()) + step / 2) for c in image]

    for b, m, n in itertools.product(range(2), range(6), range(8)):
        expected = share(shown(crops[6 * b + m], 0.75), shown(cells[8 * b + n], 1.0))
        assert float(overlaps[b, m, n]) == pytest.approx(expected, abs=1e-6)
    # this view lies within the other, and so do its crops
    torch.testing.assert_close(overlaps.sum(dim=2), torch.ones(2, 6))


def test_cells_and_crops_that_do_not_fit_the_strides_are_resampled(make_method, make_views):
    method = make_method(extent=(8, 24, 12))
    assert method.grid.size == (4, 12, 6)
    cells, crops, _ = method.cut(make_views(2, extent=(8, 24, 12)))
    assert cells.shape[2:] == crops.shape[2:] == method.grid.extent
    assert all(n % m == 0 for n, m in zip(method.grid.extent, (2, 4, 2), strict=True))


def test_a_constant_view_has_constant_crops(make_method, views_of, check_finite):
    flat = torch.ones(2, 1, 8, 24, 12)
    check_finite(make_method(extent=(8, 24, 12)), views_of(flat, flat))


def test_the_loss_is_that_of_the_paper_over_the_cut_parts(make_method, make_views):
    """By plain loops; cells are held fixed in the prediction and learn from the regularisation alone."""
    method, batch = make_method(regularisation=0.5).train(), make_views(2, extent=EXTENT)
    result = method(batch, 0)
    cells, crops, overlaps = method.cut(batch)
    embedded = F.normalize(method.head(method.network, cells, crops), dim=1)
    q, p = embedded[:24].view(3, 8, 8), embedded[24:].view(3, 4, 8)
    prediction = torch.stack(
        [
            -torch.log(1 - (overlaps[b, m, n] - F.cosine_similarity(p[b, m], q[b, n].detach(), dim=0)).abs())
            for b, m, n in itertools.product(range(3), range(4), range(8))
        ]
    ).mean()
    pairs = [
        F.cosine_similarity(q[b, i], q[b, j], dim=0).abs()
        for b in range(3)
        for i, j in itertools.combinations(range(8), 2)
    ]
    likeness = torch.stack(pairs).mean()
    torch.testing.assert_close(result.loss, prediction + 0.5 * likeness, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.logs["prediction"], prediction.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.logs["likeness_of_cells"], likeness.detach(), atol=1e-5, rtol=1e-4)
    weights = method.head.layers[1].weight
    found, expected = (
        torch.autograd.grad(loss, weights)[0] for loss in (result.loss, prediction + 0.5 * likeness)
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_two_processes_are_one_with_the_batch_of_both(make_method, make_views, two_as_one, monkeypatch):
    """The head takes the mean over both off."""
    monkeypatch.setattr(voco, "processes", lambda: 2)
    batch = make_views(2, batch=4, extent=EXTENT)
    losses, together = two_as_one(gather, make_method().train(), batch, atol=1e-5)
    assert sum(losses) / 2 == pytest.approx(together, rel=1e-5)


@pytest.mark.parametrize(
    ("cells", "extent"), [((1, 1, 1), EXTENT), ((4, 4, 4), EXTENT), ((2, 2, 2), (1, 4, 1))]
)
def test_cells_that_are_too_few_or_too_small_are_refused(make_scope, cells, extent):
    with pytest.raises(UserError, match=r"cells .*coarsest level"):
        voco_grid(make_scope(2, extent=extent), replace(CONFIG, cells=cells))


def test_a_network_without_poolings_has_cells_too(architecture, make_scope):
    flat = replace(architecture, topology=Topology(features=(4,), kernels=((3, 3, 3),), strides=()))
    grid = voco_grid(replace(make_scope(2, extent=EXTENT), architecture=flat), CONFIG)
    assert grid.extent == grid.size == (4, 8, 4)


def test_a_few_steps_locate_crops(make_method, train, noisy):
    """Two volumes whose eight octants differ in their stripes."""
    z, y, x = torch.meshgrid(*(torch.arange(float(n)) for n in EXTENT), indexing="ij")
    rates = torch.where(z < 4, 0.5, 2.5) * torch.where(y < 8, 1.0, 0.3) * torch.where(x < 4, 1.0, 1.7)
    volumes = torch.stack([torch.sin(rates * (y + z + x)), torch.sin(rates * (y - x))])[:, None]
    results = train(make_method(crops=8), lambda step: noisy(volumes, 0.1, step), 30)
    losses = [float(result.loss) for result in results]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize(
    "values", [{"cells": [0, 1, 1]}, {"crops": 0}, {"regularisation": -1}, {"dimension": 1}, {"cell": 2}]
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(VocoConfig, values, "options")
