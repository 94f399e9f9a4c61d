"""What is mixed into which view, and that the loss is the paper's for the map of levels."""

import math

import numpy as np
import pytest
import torch
from fewvox.data.augment.blocks import draw_blocks
from fewvox.data.augment.draws import Draws
from fewvox.data.settings import SettingsError, parse
from fewvox.ssl.methods.volume_fusion import VolumeFusion, VolumeFusionConfig, draw_levels, fused
from fewvox.ssl.pretrain import reached_blocks
from torch import nn


def levels_of(batch, config=None) -> torch.Tensor:
    """The levels (B, Z, Y, X) that the method draws for a batch."""
    extent = tuple(batch.views[0].shape[2:])
    config = config or VolumeFusionConfig()
    drawn = [draw_levels(extent, config, Draws((batch.seed, i))) for i in range(len(batch.cases))]
    return torch.from_numpy(np.stack(drawn))


@pytest.fixture
def make_fusion(fresh_method, make_scope, painter):
    """The method on a fresh network, or on one that gives the logits it is told."""

    def make(tell=None, **fields) -> VolumeFusion:
        config, scope = VolumeFusionConfig(**fields), make_scope(1)
        if tell is not None:
            return VolumeFusion(painter(lambda shown: tell), nn.Identity(), config, scope)
        return fresh_method(VolumeFusion, config, scope)

    return make


def by_loops(logits: list, levels: list) -> float:
    """Half the mean cross-entropy and half of one minus the soft Dice of classes 1 to K, of one item."""
    classes, voxels = len(logits), len(levels)
    told = []
    for v in range(voxels):
        powers = [math.exp(logits[k][v]) for k in range(classes)]
        told.append([power / sum(powers) for power in powers])
    entropy = -sum(math.log(told[v][levels[v]]) for v in range(voxels)) / voxels
    dice = []
    for k in range(1, classes):
        both = sum(told[v][k] for v in range(voxels) if levels[v] == k)
        every = sum(told[v][k] for v in range(voxels)) + sum(level == k for level in levels)
        dice.append((2 * both + 1e-5) / (every + 1e-5))
    return 0.5 * entropy + 0.5 * (1 - sum(dice) / len(dice))


def test_levels_are_those_of_blocks_drawn_one_over_the_other():
    config = VolumeFusionConfig(levels=3, blocks=(4, 9))
    for seed in range(5):
        draws = Draws((seed,))
        expected = [[[0] * 10 for _ in range(8)] for _ in range(6)]
        count = int(draws.numbers.integers(4, 9, endpoint=True))
        for (z, y, x), (dz, dy, dx) in draw_blocks((6, 8, 10), count, config.edge, draws).tolist():
            level = int(draws.numbers.integers(1, 3, endpoint=True))
            for k in range(z, z + dz):
                for j in range(y, y + dy):
                    for i in range(x, x + dx):
                        expected[k][j][i] = level
        assert draw_levels((6, 8, 10), config, Draws((seed,))).tolist() == expected


def test_all_levels_are_as_frequent_and_some_of_a_view_is_left():
    maps = [draw_levels((16, 16, 16), VolumeFusionConfig(), Draws((seed,))) for seed in range(300)]
    shares = np.bincount(np.concatenate([m.flatten() for m in maps]), minlength=5) / (300 * 16**3)
    assert shares[1:].tolist() == pytest.approx([shares[1:].mean()] * 4, rel=0.1)
    assert 0.3 < shares[0] < 0.5
    assert len({m.tobytes() for m in maps}) == 300


def test_a_fused_view_is_mixed_voxel_by_voxel():
    generator = torch.Generator().manual_seed(0)
    background, foreground = torch.randn(2, 2, 3, 2, 3, 2, generator=generator).unbind()
    levels = torch.randint(0, 5, (2, 1, 2, 3, 2), generator=generator)
    found = fused(background, foreground, levels, 4)
    for b, c, z, y, x in np.ndindex(found.shape):
        share = int(levels[b, 0, z, y, x]) / 4
        mixed = share * float(foreground[b, c, z, y, x]) + (1 - share) * float(background[b, c, z, y, x])
        assert float(found[b, c, z, y, x]) == pytest.approx(mixed, rel=1e-5, abs=1e-6)
    # neither of both is changed where it stands alone
    assert torch.equal(found[(levels == 0).expand_as(found)], background[(levels == 0).expand_as(found)])
    assert torch.equal(found[(levels == 4).expand_as(found)], foreground[(levels == 4).expand_as(found)])


def test_the_network_is_shown_each_view_mixed_with_the_next_item_s(make_fusion, make_views):
    batch = make_views(1)
    before = batch.views[0].clone()
    method = make_fusion(tell=torch.zeros(3, 5, 4, 8, 4))
    method(batch, 0)
    levels, view = levels_of(batch), batch.views[0]
    for i in range(3):
        own, mixed = levels[i] == 0, levels[i] == 2
        assert torch.equal(method.network.shown[i, 0][own], view[i, 0][own])
        half = (view[i, 0] + view[(i + 1) % 3, 0]) / 2
        torch.testing.assert_close(method.network.shown[i, 0][mixed], half[mixed])
        full = levels[i] == 4
        assert torch.equal(method.network.shown[i, 0][full], view[(i + 1) % 3, 0][full])
    assert torch.equal(view, before)


def test_loss_and_gradient_are_those_of_plain_loops(make_fusion, make_views):
    batch = make_views(1, batch=2, extent=(2, 4, 2))
    logits = torch.randn(2, 5, 2, 4, 2, generator=torch.Generator().manual_seed(5), requires_grad=True)
    result = make_fusion(tell=logits)(batch, 0)
    (gradient,) = torch.autograd.grad(result.loss, logits)
    levels = levels_of(batch).flatten(1).tolist()
    flat = logits.detach().double().flatten(2).tolist()

    def loss() -> float:
        return sum(by_loops(flat[b], levels[b]) for b in range(2)) / 2

    assert float(result.loss.detach()) == pytest.approx(loss(), rel=1e-5)
    # in central differences
    for b, k, v in [(0, 0, 0), (0, 1, 5), (0, 4, 11), (1, 2, 3), (1, 3, 15), (1, 0, 8)]:
        here = flat[b][k][v]
        flat[b][k][v] = here + 1e-4
        above = loss()
        flat[b][k][v] = here - 1e-4
        below = loss()
        flat[b][k][v] = here
        slope = float(gradient.flatten(2)[b, k, v])
        assert slope == pytest.approx((above - below) / 2e-4, rel=1e-3, abs=1e-6)


def test_the_loss_of_a_batch_is_the_mean_of_its_items(make_fusion, make_views):
    """So that two processes have the loss of one; a Dice of the whole batch would not be a mean."""
    batch = make_views(1, batch=2)
    logits, levels = torch.randn(2, 5, 4, 8, 4), levels_of(batch)
    expected = [by_loops(logits[b].flatten(1).tolist(), levels[b].flatten().tolist()) for b in range(2)]
    assert float(make_fusion(tell=logits)(batch, 0).loss) == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_true_levels_lose_nothing_and_are_all_right(make_fusion, make_views):
    batch = make_views(1)
    truth = nn.functional.one_hot(levels_of(batch), 5).movedim(-1, 1).float()
    # the smoothing of an absent class leaves a trace
    told = make_fusion(tell=50 * truth)(batch, 0)
    assert float(told.loss) == pytest.approx(0, abs=0.02)
    assert float(told.logs["accuracy"]) == 1
    nothing = make_fusion(tell=50 * truth.roll(1, dims=1))(batch, 0)
    assert float(nothing.logs["accuracy"]) == 0
    assert float(nothing.loss) > 10


def test_other_levels_have_other_outputs(make_fusion, make_views):
    method, batch = make_fusion(levels=2), make_views(1)
    assert method.head.out_channels == 3
    assert torch.isfinite(method(batch, 0).loss)
    assert levels_of(batch, VolumeFusionConfig(levels=2)).unique().tolist() == [0, 1, 2]


def test_a_batch_s_own_seed_decides(make_fusion, make_views, check_seed_decides):
    check_seed_decides(make_fusion(), make_views(1))


def test_flat_views_have_a_finite_loss_and_gradient(make_fusion, views_of, check_finite):
    check_finite(make_fusion(), views_of(torch.ones(2, 1, 4, 8, 4)))


def test_the_loss_reaches_encoder_and_decoder_wholly(make_fusion, make_views):
    assert reached_blocks(make_fusion(), make_views(1)) == ("encoder", "decoder")


def test_a_few_steps_tell_how_much_of_another_volume_there_is(make_fusion, views_of, train):
    """A few blocks of one grey value in another one: what is less is foreground."""
    view = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1, 1).expand(2, 1, 4, 16, 8)
    noise = torch.randn(2, 1, 4, 16, 8, generator=torch.Generator().manual_seed(0))
    method = make_fusion(levels=1, blocks=(1, 2), edge=(0.25, 0.5))
    results = train(method, lambda step: views_of(view + 0.1 * noise, seed=step), 40, lr=1e-2)
    losses = [float(result.loss) for result in results]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize(
    "values", [{"levels": 0}, {"blocks": [5, 2]}, {"blocks": [0, 2]}, {"edge": [0.1, 1.2]}, {"classes": 5}]
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(VolumeFusionConfig, values, "options")
