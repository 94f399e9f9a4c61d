"""The triplet loss against plain loops, and what of the network it reaches."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fewvox.data.settings import SettingsError, parse
from fewvox.seg.networks.registry import build
from fewvox.ssl.method import Views
from fewvox.ssl.methods.triplet import Triplet, TripletConfig, triplet_losses
from fewvox.ssl.pretrain import reached_blocks

CONFIG = TripletConfig(hidden=16, dimension=8)


def unit(batch: int, size: int, seed: int) -> torch.Tensor:
    z = torch.randn(batch, size, generator=torch.Generator().manual_seed(seed))
    return F.normalize(z, dim=1)


def by_loops(anchors, positives, margin: float) -> list[list[float]]:
    """Hinges of every anchor with its positive against each other positive."""
    rows = []
    for i, anchor in enumerate(anchors.tolist()):
        distances = [
            sum((a - p) ** 2 for a, p in zip(anchor, positive, strict=True))
            for positive in positives.tolist()
        ]
        others = [d for j, d in enumerate(distances) if j != i]
        rows.append([max(0.0, distances[i] - d + margin) for d in others])
    return rows


@pytest.fixture
def make_triplet(architecture, make_scope):
    """The method on a fresh network; keywords replace settings."""

    def make(**fields) -> Triplet:
        config = replace(CONFIG, **fields)
        torch.manual_seed(0)
        return Triplet(build(architecture, 0), Triplet.heads(make_scope(), config), config, make_scope())

    return make


@pytest.mark.parametrize("margin", [0.05, 0.2, 4.0])
@pytest.mark.parametrize("batch", [2, 3, 7])
def test_losses_are_those_of_plain_loops(margin, batch):
    anchors, positives = unit(batch, 5, 0), unit(batch, 5, 1)
    found = triplet_losses(anchors, positives, margin=margin)
    assert found.shape == (batch, batch - 1)
    torch.testing.assert_close(
        found, torch.tensor(by_loops(anchors, positives, margin)), atol=1e-6, rtol=1e-5
    )


def test_collapsed_embeddings_lose_exactly_the_margin():
    """Each of them, so that the mean is it too: half of them hinged away would look like progress."""
    # a power of two has no rounding in the distances
    same = torch.tensor([[1.0, 0.0, 0.0]]).expand(5, 3)
    assert triplet_losses(same, same, margin=0.25).tolist() == [[0.25] * 4] * 5


def test_embeddings_that_tell_all_volumes_apart_lose_nothing():
    """Squared distance 2 between volumes, 0 within: no margin up to 2 is left."""
    apart = torch.eye(4)
    assert triplet_losses(apart, apart, margin=2.0).sum() == 0
    assert triplet_losses(apart, apart, margin=2.5).flatten().tolist() == [0.5] * 12


def test_swapped_positives_lose_more_than_the_margin():
    swapped = torch.eye(2).flip(0)
    assert triplet_losses(torch.eye(2), swapped, margin=0.2).flatten().tolist() == pytest.approx([2.2] * 2)


def test_the_loss_is_the_mean_over_both_directions(make_triplet, make_views):
    method, batch = make_triplet().eval(), make_views()
    first, second = (method.embed(view) for view in batch.views)
    result = method(batch, 0)
    rows = [*by_loops(first, second, 0.2), *by_loops(second, first, 0.2)]
    hinges = torch.tensor(rows).flatten()
    torch.testing.assert_close(result.loss, hinges.mean(), atol=1e-5, rtol=1e-5)
    assert result.logs["active_triplets"] == pytest.approx((hinges > 0).double().mean().item())
    torch.testing.assert_close(result.embeddings, first, atol=1e-5, rtol=0)


def test_views_of_another_extent_are_embedded_by_the_same_head(make_triplet, make_views):
    """In training too, where the head takes the mean over both views off."""
    method, batch = make_triplet(), make_views(extent=(4, 8, 4))
    first, second = batch.views
    together = method.train().embed(torch.cat([first, second]))
    torch.testing.assert_close(method.embed(first, second), together, atol=1e-5, rtol=0)
    smaller = replace(batch, views=(first, second[:, :, :2, :4, :2]))
    result = method(smaller, 0)
    assert torch.isfinite(result.loss)
    assert result.embeddings is not None
    assert result.embeddings.shape == (3, 8)


def test_which_view_comes_first_does_not_matter(make_triplet, make_views):
    method, batch = make_triplet().eval(), make_views()
    swapped = replace(batch, views=batch.views[::-1])
    torch.testing.assert_close(method(batch, 0).loss, method(swapped, 0).loss, atol=1e-6, rtol=1e-5)


def test_embeddings_are_unit_vectors(make_triplet, make_views):
    z = make_triplet().embed(make_views().views[0])
    assert z.shape == (3, 8)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(
    ("blocks", "reached"),
    [
        (None, ("encoder", "decoder")),
        (("decoder.1",), ("encoder", "decoder")),
        (("decoder.0",), ("encoder", "decoder.0")),
        (("encoder.2",), ("encoder",)),
        (("encoder.0",), ("encoder.0",)),
        (("encoder.1", "decoder.0"), ("encoder", "decoder.0")),
    ],
)
def test_the_loss_reaches_what_the_embedded_features_are_made_of(make_triplet, make_views, blocks, reached):
    """By default encoder and decoder wholly; the output never."""
    method = make_triplet(blocks=blocks)
    assert reached_blocks(method, make_views()) == reached
    # found on a copy
    assert all(p.grad is None for p in method.parameters())


def test_every_tensor_of_encoder_and_decoder_learns(make_triplet, make_views):
    """A gradient that is there and 0 would teach nothing."""
    method = make_triplet()
    method(make_views(extent=(8, 16, 8)), 0).loss.backward()
    gradients = {name: p.grad for name, p in method.network.named_parameters()}
    idle = [n for n, g in gradients.items() if not n.startswith("output.") and (g is None or g.norm() == 0)]
    assert idle == []


def test_a_few_steps_pull_the_views_of_volumes_together(make_triplet, views_of):
    """Four volumes of different grain, two noisy views each."""
    waves = [torch.sin(torch.arange(8) * w) for w in (0.4, 0.9, 1.7, 2.9)]
    grain = torch.stack([w[None, :, None] * w[None, None, :4] * torch.ones(4, 1, 1) for w in waves])[:, None]

    def views(step: int) -> Views:
        noise = torch.randn(2, 4, 1, 4, 8, 4, generator=torch.Generator().manual_seed(step))
        return views_of(grain + 0.3 * noise[0], grain + 0.3 * noise[1], seed=step)

    method = make_triplet(margin=0.5)
    optimiser = torch.optim.AdamW(method.parameters(), lr=3e-3)
    losses = []
    for step in range(30):
        loss = method(views(step), step).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < sum(losses[:5]) / 3
    assert math.isfinite(losses[-1])


@pytest.mark.parametrize("values", [{"margin": 0}, {"margin": 5}, {"dimension": 1}, {"margins": 0.2}])
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(TripletConfig, values, "options")
