"""The dense triplet loss against plain loops, and that points of two turned views are the same places."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fewvox.data.augment.spatial import patch_map
from fewvox.data.errors import UserError
from fewvox.data.settings import SettingsError, parse
from fewvox.data.warp import warp
from fewvox.ssl import correspondence
from fewvox.ssl.correspondence import SharedPlaces, shared_places
from fewvox.ssl.method import Views
from fewvox.ssl.methods.dense_triplet import (
    DenseTriplet,
    DenseTripletConfig,
    dense_triplet_loss,
    far_apart,
)
from fewvox.ssl.pretrain import reached_blocks
from torch import nn

CONFIG = DenseTripletConfig(points=16, hidden=16, dimension=8)
EXTENT = (4, 8, 4)


def normal(batch: int, points: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(batch, points, size, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def unit(batch: int, points: int, size: int, seed: int) -> torch.Tensor:
    return F.normalize(normal(batch, points, size, seed), dim=2)


def pairs_apart(batch: int, points: int, seed: int, share=0.6) -> torch.Tensor:
    """Some pairs of places, symmetric, none of a place with itself."""
    drawn = torch.rand(batch, points, points, generator=torch.Generator().manual_seed(seed)) < share
    return (drawn | drawn.transpose(1, 2)) & ~torch.eye(points, dtype=torch.bool)


def by_loops(first, second, apart, used, margin: float, across: float) -> tuple[torch.Tensor, float]:
    """The loss over all anchors, positives and negatives one by one, and the share of hinges above 0."""
    batch, points, _ = first.shape
    places = list(itertools.product(range(batch), range(points)))
    hinges: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for anchors, others in ((first, second), (second, first)):
        for (b, n), (c, m) in itertools.product(places, places):
            if not (used[b] and used[c]) or (b == c and not apart[b, n, m]):
                continue
            near = ((anchors[b, n] - others[b, n]) ** 2).sum()
            far = ((anchors[b, n] - others[c, m]) ** 2).sum()
            hinges[b == c].append((near - far + margin).clamp(min=0))
    same, other = hinges[True], hinges[False]
    share = 0.0 if not other else 1.0 if not same else across
    loss, active = torch.zeros(()), 0.0
    for weight, kind in ((1 - share, same), (share, other)):
        if kind:
            loss = loss + weight * torch.stack(kind).mean()
            active += weight * sum(float(h.detach()) > 0 for h in kind) / len(kind)
    return loss, active


class Shows(nn.Module):
    """Stands for a network whose features are what it is shown."""

    def encode(self, images):
        return [images] * 3

    def decode(self, encoded):
        return encoded[:2]


@pytest.fixture
def make_method(fresh_method, make_scope):
    """The method on a fresh network; keywords replace settings."""

    def make(**fields) -> DenseTriplet:
        return fresh_method(DenseTriplet, replace(CONFIG, **fields), make_scope())

    return make


@pytest.mark.parametrize("across", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("margin", [0.05, 0.2, 4.0])
@pytest.mark.parametrize("used", [(1, 1), (1, 0), (0, 1, 1), (1,), (0, 0)])
def test_loss_and_gradient_are_those_of_plain_loops(margin, across, used):
    """Also where items are left out, one alone is left, or none.

    Gradients are those of vectors before they are normalised: along unit vectors themselves a distance and
    what stands for it here go on otherwise.
    """
    batch, used_B = len(used), torch.tensor(used) > 0
    before = normal(batch, 4, 5, 0), normal(batch, 4, 5, 1)
    first, second = (F.normalize(z, dim=2) for z in before)
    apart = pairs_apart(batch, 4, 2)
    loss, active = dense_triplet_loss(first, second, apart, used_B, margin=margin, across=across)
    expected, expected_active = by_loops(first, second, apart, used_B, margin, across)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-5)
    assert float(active) == pytest.approx(expected_active, abs=1e-6)
    found = torch.autograd.grad(loss, before, retain_graph=True)
    if expected.requires_grad:
        gradients = torch.autograd.grad(expected, before, allow_unused=True)
        for g, e in zip(found, gradients, strict=True):
            torch.testing.assert_close(g, torch.zeros_like(g) if e is None else e, atol=1e-6, rtol=1e-4)
    else:
        assert all(float(g.abs().sum()) == 0 for g in found)


def test_where_no_places_are_far_enough_other_volumes_have_all_the_weight():
    first, second = unit(3, 4, 5, 0), unit(3, 4, 5, 1)
    none, all_used = torch.zeros(3, 4, 4, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    loss, _ = dense_triplet_loss(first, second, none, all_used, margin=0.2, across=0.1)
    only, _ = dense_triplet_loss(first, second, none, all_used, margin=0.2, across=1.0)
    assert float(loss.detach()) == pytest.approx(float(only.detach()))
    assert float(loss.detach()) > 0.05


def test_collapsed_points_lose_the_margin():
    # a power of two has no rounding in the distances
    same = torch.tensor([1.0, 0, 0]).expand(3, 4, 3)
    loss, active = dense_triplet_loss(
        same, same, pairs_apart(3, 4, 0), torch.ones(3, dtype=torch.bool), margin=0.25, across=0.5
    )
    assert float(loss) == pytest.approx(0.25, rel=1e-6)
    assert float(active) == pytest.approx(1)


def test_points_that_tell_all_places_apart_lose_nothing():
    apart = torch.eye(12).view(3, 4, 12)
    everywhere = ~torch.eye(4, dtype=torch.bool).expand(3, 4, 4)
    used = torch.ones(3, dtype=torch.bool)
    assert float(dense_triplet_loss(apart, apart, everywhere, used, margin=2.0, across=0.5)[0]) == 0
    assert float(dense_triplet_loss(apart, apart, everywhere, used, margin=2.5, across=0.5)[0]) == 0.5


def test_places_are_negatives_where_they_are_far_apart_in_both_views():
    """By plain loops; the second view is twice as large, so that places are nearer in it."""
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(2, 9, 3, generator=generator, dtype=torch.float64) * torch.tensor(EXTENT)
    second = first[..., [1, 0, 2]] * torch.tensor([0.5, 2.0, 0.7])
    places = SharedPlaces(first=first, second=second, found=torch.ones(2, dtype=torch.bool))
    found = far_apart(places, (EXTENT, EXTENT), 0.5)
    for b, n, m in itertools.product(range(2), range(9), range(9)):
        shares = [
            math.dist(*([p / e for p, e in zip(view[b, k].tolist(), EXTENT, strict=True)] for k in (n, m)))
            for view in (first, second)
        ]
        assert bool(found[b, n, m]) == (min(shares) >= 0.5)
    assert 0 < int(found.sum()) < 2 * 9 * 8


def test_no_place_is_a_negative_of_itself():
    places = SharedPlaces(first=torch.zeros(1, 3, 3), second=torch.zeros(1, 3, 3), found=torch.ones(1) > 0)
    assert far_apart(places, (EXTENT, EXTENT), 0.0).tolist() == [(~torch.eye(3, dtype=torch.bool)).tolist()]


def test_points_of_two_turned_views_have_the_features_of_one_place(make_method):
    """Volumes that tell their places, seen by a network that shows them: positives equal their anchors."""
    volume = torch.stack(torch.meshgrid(*(torch.arange(20.0) - 9.5 for _ in range(3)), indexing="ij"))
    c, s = math.cos(0.4), math.sin(0.4)
    turns = [
        np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        np.diag([-1, 1, 0.8]) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
    ]
    affines = [patch_map(t, np.array([9.5, 9, 10]), (np.array((6, 8, 8)) - 1) / 2) for t in turns]
    views = tuple(warp(volume, a, (6, 8, 8))[None] for a in affines)
    maps = tuple(torch.from_numpy(a)[None] for a in affines)
    method = make_method(across=0.0, points=40)
    method.network, method.head.layers = Shows(), nn.Identity()
    result = method(Views(views=views, maps=maps, cases=("c0",)), 0)
    assert result.logs["left_out"] == 0
    generator = torch.Generator().manual_seed(0)
    places = shared_places(maps, ((6, 8, 8), (6, 8, 8)), 40, generator)
    vectors = F.normalize(correspondence.to_volume(maps[0], places.first) - 9.5, dim=2).float()
    # a place between the outermost voxels and the edge is read at the voxel
    inside = torch.ones(40, dtype=torch.bool)
    for of_view in (places.first, places.second):
        inside &= ((of_view >= 0) & (of_view <= torch.tensor((5, 7, 7)))).all(dim=2)[0]
    assert inside.sum() > 15
    torch.testing.assert_close(result.embeddings[inside], vectors[0, inside], atol=1e-4, rtol=0)
    second = method.head(method.network, views[1:], (places.second,))[0]
    torch.testing.assert_close(second[0, inside], vectors[0, inside], atol=1e-4, rtol=0)


def test_the_loss_is_that_of_the_points_of_both_views(make_method, make_views, shift):
    method, batch = make_method(points=6).eval(), make_views(2)
    batch = replace(batch, maps=(batch.maps[0], shift(3, 0.5, 1, 0)))
    result = method(batch, 0)
    places = shared_places(batch.maps, (EXTENT, EXTENT), 6, torch.Generator().manual_seed(batch.seed))
    first, second = (
        method.head(method.network, (view,), (of_view,))[0]
        for view, of_view in zip(batch.views, (places.first, places.second), strict=True)
    )
    apart = far_apart(places, (EXTENT, EXTENT), CONFIG.distance)
    expected, active = by_loops(first, second, apart, [True] * 3, 0.2, CONFIG.across)
    torch.testing.assert_close(result.loss, expected, atol=1e-5, rtol=1e-4)
    assert float(result.logs["active_triplets"]) == pytest.approx(active, abs=1e-3)


def test_an_item_whose_views_share_too_little_changes_nothing(make_method, make_views, shift):
    method, batch = make_method(), make_views(2)
    far = shift(3, 0, 0, 0)
    far[1, 0, 3] = 50
    batch = replace(batch, maps=(batch.maps[0], far))
    result = method(batch, 0)
    assert result.logs["left_out"] == 1
    other = torch.where(torch.arange(3)[:, None, None, None, None] == 1, 7.0, batch.views[0])
    changed = method(replace(batch, views=(other, batch.views[1])), 0)
    torch.testing.assert_close(changed.loss, result.loss, atol=1e-6, rtol=1e-5)


def test_a_batch_without_any_shared_place_has_a_loss_of_0(make_method, make_views, shift):
    method, batch = make_method(), make_views(2)
    result = method(replace(batch, maps=(batch.maps[0], shift(3, 0, 50, 0))), 0)
    assert result.logs["left_out"] == 3
    assert float(result.loss.detach()) == 0
    result.loss.backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in method.parameters())


@pytest.mark.parametrize(
    ("block", "reached"),
    [
        (None, ("encoder", "decoder")),
        ("decoder", ("encoder", "decoder")),
        ("decoder.0", ("encoder", "decoder.0")),
        ("encoder.2", ("encoder",)),
        ("encoder.1", ("encoder.0", "encoder.1")),
    ],
)
def test_the_loss_reaches_what_the_read_features_are_made_of(make_method, make_views, block, reached):
    assert reached_blocks(make_method(block=block), make_views(2, extent=(8, 16, 8))) == reached


def test_an_unknown_block_is_answered_with_the_known_ones(make_method):
    with pytest.raises(UserError, match=r"bottleneck.*The network has: encoder, decoder, encoder\.0"):
        make_method(block="bottleneck")


def test_other_volumes_are_asked_for_where_they_are_negatives():
    assert DenseTriplet.views(CONFIG).volumes == 2
    assert DenseTriplet.views(replace(CONFIG, across=0.0)).volumes == 1


def test_an_embedding_is_that_of_the_place_in_the_middle(make_method, make_views):
    method, view = make_method().eval(), make_views(1).views[0]
    features = method.network.features(view)
    around = features[:, :, 1:3, 3:5, 1:3].mean(dim=(2, 3, 4))
    torch.testing.assert_close(method.embed(view), F.normalize(method.head.layers(around), dim=1))


def test_a_few_steps_tell_places_apart(make_method, train, noisy):
    """Volumes of noise, of which the views see the same with a little noise of their own."""
    volumes = torch.randn(3, 1, *EXTENT, generator=torch.Generator().manual_seed(0))
    results = train(make_method(margin=0.5), lambda step: noisy(volumes, 0.1, step), 25)
    losses = [float(result.loss) for result in results]
    assert sum(losses[-5:]) < sum(losses[:5]) / 3


@pytest.mark.parametrize(
    "values", [{"margin": 0}, {"points": 1}, {"distance": 1}, {"across": 1.5}, {"dimension": 1}, {"point": 3}]
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(DenseTripletConfig, values, "options")
