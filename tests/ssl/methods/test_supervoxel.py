"""Supervoxels, their prototypes and their loss against plain loops, and how labels come to another view."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fewvox.data.augment.spatial import patch_map
from fewvox.data.settings import SettingsError, parse
from fewvox.data.warp import warp
from fewvox.ssl import correspondence
from fewvox.ssl.correspondence import shared_places
from fewvox.ssl.method import Views
from fewvox.ssl.methods import supervoxel
from fewvox.ssl.methods.supervoxel import (
    Supervoxel,
    SupervoxelConfig,
    cube_extent,
    prototypes,
    pseudo_masks,
    steps_of,
    supervoxel_losses,
    supervoxels,
)
from fewvox.ssl.pretrain import reached_blocks
from torch import nn

CONFIG = SupervoxelConfig(supervoxels=8, points=64, dimension=8)
CUBES = torch.ones(1, 3)


def octants(edge: int = 12) -> torch.Tensor:
    """A volume (3, edge, edge, edge) whose octants are constant, each pointing another way."""
    colours = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3))) * torch.tensor([1.0, 2.0, 4.0])
    half = (torch.arange(edge) >= edge // 2).long()
    number = 4 * half[:, None, None] + 2 * half[None, :, None] + half[None, None, :]
    return colours[number].permute(3, 0, 1, 2)


class Shows(nn.Module):
    """Stands for a network whose features are what it is shown."""

    def features(self, images):
        return images


@pytest.fixture
def make_method(fresh_method, make_scope):
    """The method on a fresh network; keywords replace settings."""

    def make(**fields) -> Supervoxel:
        return fresh_method(Supervoxel, replace(CONFIG, **fields), make_scope())

    return make


@pytest.mark.parametrize(
    ("extent", "steps", "most", "expected"),
    [
        ((32, 32, 32), (1, 1, 1), 32**3, (32, 32, 32)),
        ((128, 128, 128), (1, 1, 1), 32**3, (32, 32, 32)),
        # none is finer than the finest step
        ((16, 16, 16), (1, 1, 1), 32**3, (16, 16, 16)),
        # thick slices are cut into cubes
        ((10, 40, 40), (4, 1, 1), 10**9, (40, 40, 40)),
        ((16, 64, 64), (4, 1, 1), 32**3, (32, 32, 32)),
        ((1, 256, 256), (5, 1, 1), 32**3, (1, 181, 181)),
        ((1, 1, 1), (1, 1, 1), 512, (1, 1, 1)),
    ],
)
def test_views_are_brought_to_so_many_cubes(extent, steps, most, expected):
    assert cube_extent(extent, steps, most) == expected


def test_steps_are_lengths_along_the_axes_of_a_view():
    """A view turned a quarter about z and twice as large as its voxels, in a volume of thick slices."""
    affine = torch.tensor([[[1.0, 0, 0, 5], [0, 0, 2, 1], [0, -2, 0, 9]]], dtype=torch.float64)
    assert steps_of(affine, (3.0, 0.5, 1.0)).tolist() == [[3, 2, 1]]
    assert steps_of(affine, None).tolist() == [[1, 2, 2]]


def test_supervoxels_keep_to_the_borders_of_what_is_there():
    """A ball in noise: far fewer voxels than with cubes lie in a supervoxel mostly of the other kind."""
    z, y, x = np.mgrid[:24, :24, :24] - 11.5
    ball = z**2 + y**2 + x**2 < 8**2
    image = 3.0 * ball + np.random.default_rng(0).normal(0, 0.3, ball.shape)
    found = supervoxels(image, replace(CONFIG, supervoxels=64))
    cubes = np.arange(24) // 6
    cubes = 16 * cubes[:, None, None] + 4 * cubes[None, :, None] + cubes[None, None, :]
    assert found.shape == ball.shape
    assert sorted(np.unique(found)) == list(range(found.max() + 1))
    assert 40 < found.max() < 100

    def astray(pieces: np.ndarray) -> float:
        sizes, inside = np.bincount(pieces.ravel()), np.bincount(pieces.ravel(), ball.ravel())
        return np.minimum(inside, sizes - inside).sum() / ball.sum()

    assert astray(found) < 0.4 * astray(cubes)


def test_a_single_bright_voxel_does_not_flatten_the_rest():
    image = np.zeros((16, 16, 16))
    image[:, :5] = 1.0
    bright = image.copy()
    bright[15, 15, 15] = 1000
    for shown in (image, bright):
        found = supervoxels(shown, replace(CONFIG, smoothing=0.0, compactness=0.01))
        assert not set(found[:14, :5].ravel()) & set(found[:14, 5:].ravel())


def test_a_flat_image_has_supervoxels_too():
    found = supervoxels(np.ones((8, 8, 8)), CONFIG)
    assert len(np.unique(found)) == 8


def test_masks_of_a_view_are_numbered_without_a_gap_and_of_each_view_alone():
    views = torch.randn(2, 3, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    config = replace(CONFIG, supervoxels=40, resolution=512)
    masks = pseudo_masks(views, CUBES.expand(2, 3), config)
    assert masks.shape == (2, 6, 16, 16)
    assert masks.dtype == torch.int64
    for view, mask in zip(views, masks, strict=True):
        assert mask.unique().tolist() == list(range(int(mask.max()) + 1))
        assert torch.equal(pseudo_masks(view[None], CUBES, config)[0], mask)
    assert not torch.equal(masks[0], masks[1])


def test_of_several_channels_the_mean_is_segmented():
    generator = torch.Generator().manual_seed(0)
    view, other = (torch.randn(1, 1, 8, 8, 8, generator=generator) for _ in range(2))
    both, config = torch.cat([view + other, view - other], dim=1), replace(CONFIG, compactness=0.02)
    found = pseudo_masks(both, CUBES, config)
    assert torch.equal(found, pseudo_masks(view, CUBES, config))
    assert not torch.equal(found, pseudo_masks(both[:, :1], CUBES, config))


def test_no_number_is_left_of_a_supervoxel_that_lies_between_the_slices(monkeypatch):
    """Cubes are finer than thick slices: here each layer of them is a supervoxel, and few are met."""
    monkeypatch.setattr(supervoxel, "supervoxels", lambda image, config: np.indices(image.shape)[0])
    mask = pseudo_masks(torch.zeros(1, 1, 4, 16, 16), torch.tensor([[9.0, 1, 1]]), CONFIG)
    assert mask[0, :, 0, 0].tolist() == [0, 1, 2, 3]


def test_supervoxels_of_thick_slices_are_as_thick_as_wide():
    """In length: of 8 slices each four times as thick, a supervoxel covers two and not eight."""
    view = torch.zeros(1, 1, 8, 32, 32)
    mask = pseudo_masks(view, torch.tensor([[4.0, 1, 1]]), replace(CONFIG, supervoxels=64))[0]
    for number in mask.unique():
        z, y, x = (at.unique().numel() for at in (mask == number).nonzero(as_tuple=True))
        assert (4 * z, y, x) == (8, 8, 8)


def test_prototypes_are_means_over_supervoxels_as_in_plain_loops():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 2, 4, 3, generator=generator, requires_grad=True)
    masks = torch.randint(4, (2, 2, 4, 3), generator=generator)
    found = prototypes(features, masks, 5)
    assert found.shape == (2, 5, 3)
    for b, k in itertools.product(range(2), range(5)):
        members = [features[b, :, z, y, x] for z, y, x in (masks[b] == k).nonzero().tolist()]
        expected = torch.stack(members).mean(dim=0) if members else torch.zeros(3)
        torch.testing.assert_close(found[b, k], expected)
    found[0, 1, 2].backward()
    assert features.grad is not None
    share = (masks[0] == 1).float() / (masks[0] == 1).sum()
    torch.testing.assert_close(features.grad[0, 2], share)
    assert float(features.grad[1].abs().sum()) == 0


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_losses_and_gradients_are_those_of_plain_loops(temperature):
    generator = torch.Generator().manual_seed(0)
    points, means = (torch.randn(2, n, 4, generator=generator).requires_grad_() for n in (6, 5))
    numbers, targets = torch.tensor([5, 3]), torch.randint(3, (2, 6), generator=generator)
    found, right = supervoxel_losses(
        F.normalize(points, dim=2), targets, F.normalize(means, dim=2), numbers, temperature=temperature
    )
    expected, told = [], []
    for b in range(2):
        costs = []
        for n in range(6):
            cosines = [F.cosine_similarity(points[b, n], means[b, k], dim=0) for k in range(int(numbers[b]))]
            shares = torch.stack([torch.exp(c / temperature) for c in cosines])
            costs.append(-torch.log(shares[targets[b, n]] / shares.sum()))
            told.append(
                max(range(len(cosines)), key=lambda k: float(cosines[k].detach())) == int(targets[b, n])
            )
        expected.append(torch.stack(costs).mean() / math.log(int(numbers[b])))
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-4)
    assert right.tolist() == pytest.approx([sum(told[:6]) / 6, sum(told[6:]) / 6])
    for g, e in zip(
        torch.autograd.grad(found.sum(), (points, means)),
        torch.autograd.grad(torch.stack(expected).sum(), (points, means)),
        strict=True,
    ):
        torch.testing.assert_close(g, e, atol=1e-4, rtol=1e-3)


def test_collapsed_voxels_lose_exactly_one_whatever_the_number_of_supervoxels():
    same = torch.tensor([1.0, 0, 0]).expand(3, 9, 3)
    targets = torch.zeros(3, 9, dtype=torch.int64)
    losses, _ = supervoxel_losses(same, targets, same, torch.tensor([2, 5, 9]), temperature=0.05)
    assert losses.tolist() == pytest.approx([1, 1, 1], rel=1e-6)


def turned_octants() -> Views:
    """Two views of octants, turned against each other, one of them mirrored and scaled."""
    c, s = math.cos(0.3), math.sin(0.3)
    turns = [np.eye(3), np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag([-0.8, 0.8, 0.8])]
    affines = [patch_map(t, np.array([5.5, 5.5, 5.7]), np.array([4.5, 4.5, 4.5])) for t in turns]
    return Views(
        views=tuple(warp(octants(), a, (10, 10, 10))[None] for a in affines),
        maps=tuple(torch.from_numpy(a)[None] for a in affines),
        cases=("c0",),
        seed=3,
    )


def test_a_network_that_tells_the_octants_tells_the_supervoxels_in_a_turned_view(make_method):
    """Which it would not with labels that were carried elsewhere: mirrored octants have other colours."""
    method, batch = make_method(points=500, compactness=0.01, smoothing=0.0), turned_octants()
    method.network, method.head = Shows(), nn.Identity()
    result = method(batch, 0)
    assert result.logs["supervoxels"] == 8
    # the rest lies on borders
    assert result.logs["points_told"] > 0.9
    wrong = replace(batch, maps=(batch.maps[0], batch.maps[0]))
    assert method(wrong, 0).logs["points_told"] < 0.6


def test_the_loss_is_that_of_the_labels_at_the_places_of_the_first_view(make_method):
    """Carried over by hand: from the second view's place to the volume's, to the first's nearest voxel."""
    method, batch = make_method(points=30), turned_octants()
    method.network, method.head = Shows(), nn.Identity()
    result = method(batch, 0)
    first, second = (m[0].numpy() for m in batch.maps)
    places = (
        shared_places(batch.maps, ((10,) * 3,) * 2, 30, torch.Generator().manual_seed(3)).second[0].numpy()
    )
    in_volume = places @ second[:, :3].T + second[:, 3]
    in_first = (in_volume - first[:, 3]) @ np.linalg.inv(first[:, :3]).T
    masks = pseudo_masks(batch.views[0], CUBES, method.config)
    targets = [int(masks[(0, *np.clip(np.rint(p), 0, 9).astype(int))]) for p in in_first]
    means = prototypes(batch.views[0], masks, int(masks.max()) + 1)
    read = correspondence.read_at(batch.views[1], torch.from_numpy(places)[None], (10,) * 3)
    cosines = F.cosine_similarity(read[0][:, None], means[0][None], dim=2)
    expected = F.cross_entropy(cosines / 0.05, torch.tensor(targets)) / math.log(means.shape[1])
    torch.testing.assert_close(result.loss, expected, atol=1e-4, rtol=1e-4)


def test_items_that_share_too_little_or_are_one_supervoxel_change_nothing(
    make_method, make_views, shift, monkeypatch
):
    method, batch = make_method(), make_views(2, batch=4)
    far = shift(4, 0, 0, 0)
    far[1, 0, 3] = 50
    batch = replace(batch, maps=(batch.maps[0], far))
    cut = supervoxel.pseudo_masks

    def last_is_one(*arguments):
        masks = cut(*arguments).clone()
        masks[3] = 0
        return masks

    monkeypatch.setattr(supervoxel, "pseudo_masks", last_is_one)
    result = method(batch, 0)
    assert result.logs["left_out"] == 2
    left_out = (torch.arange(4) % 2 == 1)[:, None, None, None, None]
    changed = tuple(torch.where(left_out, view.flip(0), view) for view in batch.views)
    torch.testing.assert_close(
        method(replace(batch, views=changed), 0).loss, result.loss, atol=1e-6, rtol=1e-5
    )
    none = method(replace(batch, maps=(batch.maps[0], shift(4, 0, 50, 0))), 0)
    assert float(none.loss.detach()) == 0
    assert none.logs["left_out"] == 4


def test_the_spacing_of_the_volumes_reaches_the_supervoxels(make_method, make_views, monkeypatch):
    asked = []
    monkeypatch.setattr(
        supervoxel, "pseudo_masks", lambda view, steps, config: asked.append(steps) or view[:, 0].gt(0).long()
    )
    method = make_method()
    method.scope = replace(method.scope, spacing=(3.0, 1.0, 0.5))
    method(make_views(2), 0)
    assert asked[0].tolist() == [[3, 1, 0.5]] * 3


def test_the_loss_reaches_encoder_and_decoder_wholly(make_method, make_views):
    assert reached_blocks(make_method(), make_views(2)) == ("encoder", "decoder")


def test_an_embedding_is_that_of_the_place_in_the_middle(make_method, make_views):
    method, view = make_method().eval(), make_views(1).views[0]
    around = method.network.features(view)[:, :, 1:3, 3:5, 1:3].mean(dim=(2, 3, 4))
    torch.testing.assert_close(method.embed(view), F.normalize(method.head(around), dim=1))


def test_a_few_steps_segment_octants(make_method, train, noisy):
    """Seen twice, with noise."""
    volume = octants(8)[:1] + octants(8)[1:2] / 2 + octants(8)[2:] / 4
    volumes = volume.expand(2, 1, 8, 8, 8)
    results = train(make_method(points=256), lambda step: noisy(volumes, 0.2, step), 15)
    losses = [float(result.loss) for result in results]
    assert sum(losses[-3:]) < sum(losses[:3]) / 2


@pytest.mark.parametrize(
    "values",
    [
        {"supervoxels": 1},
        {"resolution": 10},
        {"smoothing": -1},
        {"compactness": 0},
        {"temperature": 0},
        {"block": "x"},
    ],
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(SupervoxelConfig, values, "options")
