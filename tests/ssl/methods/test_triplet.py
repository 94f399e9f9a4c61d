"""The triplet loss against plain loops, which negatives are taken, and what of the network it reaches."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fewvox.data.settings import SettingsError, parse
from fewvox.ssl.method import Views
from fewvox.ssl.methods import triplet
from fewvox.ssl.methods.triplet import (
    Triplet,
    TripletConfig,
    mined,
    squared_distances,
    triplet_losses,
)
from fewvox.ssl.pretrain import reached_blocks

CONFIG = TripletConfig(hidden=16, dimension=8)
PICKING = ("all", "semi_hard", "hardest")
ONE_EACH = ("random", "semi_hard", "hardest")


def unit(batch: int, size: int, seed: int) -> torch.Tensor:
    z = torch.randn(batch, size, generator=torch.Generator().manual_seed(seed))
    return F.normalize(z, dim=1)


def squared(a, b) -> torch.Tensor:
    return torch.stack([(x - y) ** 2 for x, y in zip(a, b, strict=True)]).sum()


def by_loops(anchors, positives, margin: float, how: str = "all") -> torch.Tensor:
    """Hinges of every anchor with its positive against other positives: all, or the one that is asked for."""
    hinges = []
    for i, anchor in enumerate(anchors):
        near = squared(anchor, positives[i])
        far = [squared(anchor, positive) for j, positive in enumerate(positives) if j != i]
        if how == "hardest":
            far = [min(far)]
        if how == "semi_hard":
            farther = [d for d in far if d > near]
            far = [min(farther) if farther else max(far)]
        hinges += [torch.clamp(near - d + margin, min=0) for d in far]
    return torch.stack(hinges)


def losses_of(anchors, positives, margin: float, how="all", seed=0) -> torch.Tensor:
    """The same by the code that is tested; each row is of a volume of its own."""
    far = squared_distances(anchors, positives)
    other = ~torch.eye(len(anchors), dtype=torch.bool)
    negative = mined(far.diagonal(), far, other, how, seed)
    return triplet_losses(far.diagonal(), far, margin=margin)[negative]


@pytest.fixture
def make_triplet(fresh_method, make_scope):
    """The method on a fresh network; keywords replace settings, or what it is built for."""

    def make(volumes=4, steps=100, batch=3, **fields) -> Triplet:
        config = replace(CONFIG, **fields)
        scope = make_scope(config.local_views + 1, volumes=volumes, steps=steps, batch=batch)
        return fresh_method(Triplet, config, scope)

    return make


@pytest.mark.parametrize("how", PICKING)
@pytest.mark.parametrize("margin", [0.05, 0.2, 4.0])
@pytest.mark.parametrize("batch", [2, 3, 7])
def test_losses_and_gradients_are_those_of_plain_loops(batch, margin, how):
    inputs = unit(batch, 5, 0).requires_grad_(), unit(batch, 5, 1).requires_grad_()
    found, expected = losses_of(*inputs, margin, how), by_loops(*inputs, margin, how)
    assert len(found) == batch * ((batch - 1) if how == "all" else 1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    slopes = (torch.autograd.grad(loss.mean(), inputs) for loss in (found, expected))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("how", ["all", *ONE_EACH])
def test_collapsed_embeddings_lose_exactly_the_margin(how):
    """Each of them, so that the mean is it too: half of them hinged away would look like progress."""
    same = unit(1, 8, 0).expand(5, 8).clone().requires_grad_()
    losses = losses_of(same, same, 0.25, how)
    assert losses.tolist() == [0.25] * len(losses)
    losses.mean().backward()
    assert torch.isfinite(same.grad).all()


def test_embeddings_that_tell_all_volumes_apart_lose_nothing():
    """Squared distance 2 between volumes, 0 within: no margin up to 2 is left."""
    apart = torch.eye(4)
    assert losses_of(apart, apart, 2.0).sum() == 0
    assert losses_of(apart, apart, 2.5).tolist() == [0.5] * 12


def test_swapped_positives_lose_more_than_the_margin():
    swapped = torch.eye(2).flip(0)
    assert losses_of(torch.eye(2), swapped, 0.2).tolist() == pytest.approx([2.2] * 2)


@pytest.mark.parametrize(
    ("near", "how", "chosen"),
    [
        (0.5, "hardest", 0),
        (0.5, "semi_hard", 2),
        # as near as the positive is not farther
        (1.0, "semi_hard", 3),
        # none is farther: the farthest
        (3.0, "semi_hard", 3),
        (0.1, "semi_hard", 0),
    ],
)
def test_the_one_that_is_mined(near, how, chosen):
    """The last candidate is of the anchor's own volume, nearest and farthest of all."""
    for own in (0.0, 3.9, 4.0):
        far = torch.tensor([[0.4, 0.3, 1.0, 2.0, own]])
        other = torch.tensor([[True, False, True, True, False]])
        assert mined(torch.tensor([near]), far, other, how, 0).nonzero().tolist() == [[0, chosen]]


def test_random_negatives_are_one_of_each_other_volume_as_often():
    far, other = torch.zeros(3, 4, 4), ~torch.eye(4, dtype=torch.bool)
    drawn = torch.stack([mined(far[..., 0], far, other, "random", seed) for seed in range(300)]).float()
    assert (drawn.sum(dim=-1) == 1).all()
    expected = (other.float() / 3).expand(3, 4, 4)
    torch.testing.assert_close(drawn.mean(dim=0), expected, atol=0.12, rtol=0)
    assert torch.equal(mined(far[..., 0], far, other, "random", 7).float(), drawn[7])


@pytest.mark.parametrize("how", ["all", *ONE_EACH])
def test_a_volume_that_two_processes_hold_is_never_its_own_negative(how):
    """Its rows are the same here, so that it would be the nearest."""
    z = torch.eye(3)[[0, 1, 0, 2]]
    volume = torch.tensor([0, 1, 0, 2])
    far = squared_distances(z, z)
    for seed in range(20):
        negative = mined(far.diagonal(), far, volume[:, None] != volume, how, seed)
        assert not negative[[0, 2, 0, 2], [0, 0, 2, 2]].any()
        assert negative.any(dim=1).all()


@pytest.mark.parametrize("local_views", [1, 2])
@pytest.mark.parametrize("how", PICKING)
def test_the_loss_is_the_mean_over_all_pairs_of_views_both_ways(make_triplet, make_views, how, local_views):
    method = make_triplet(negatives=how, local_views=local_views).eval()
    batch = make_views(count=1 + local_views)
    z = [method.embed(view).detach() for view in batch.views]
    result = method(batch, 0)
    hinges = torch.cat([by_loops(a, p, 0.2, how) for a in z for p in z if a is not p])
    torch.testing.assert_close(result.loss, hinges.mean(), atol=1e-5, rtol=1e-5)
    assert result.logs["active_triplets"] == pytest.approx((hinges > 0).double().mean().item())
    torch.testing.assert_close(result.embeddings, z[0], atol=1e-5, rtol=0)


def test_random_negatives_go_by_the_batch_s_own_seed(make_triplet, make_views):
    method = make_triplet(negatives="random").eval()
    batches = [replace(make_views(), seed=seed) for seed in (1, 1, *range(2, 9))]
    torch.manual_seed(5)
    losses = [float(method(batch, step).loss.detach()) for step, batch in enumerate(batches)]
    assert losses[0] == losses[1]
    assert len(set(losses)) > 2


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


@pytest.mark.parametrize("how", PICKING)
def test_which_view_comes_first_does_not_matter(make_triplet, make_views, how):
    method, batch = make_triplet(negatives=how).eval(), make_views()
    swapped = replace(batch, views=batch.views[::-1])
    torch.testing.assert_close(method(batch, 0).loss, method(swapped, 0).loss, atol=1e-6, rtol=1e-5)


def test_embeddings_are_unit_vectors_of_single_precision(make_triplet, make_views):
    method, view = make_triplet(), make_views().views[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = method.embed(view)
        mixed = losses_of(z, z.flip(1), 0.2)
    assert z.shape == (3, 8)
    assert z.dtype == mixed.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3))
    assert torch.equal(mixed, losses_of(z, z.flip(1), 0.2))


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


@pytest.mark.parametrize("how", ["all", *ONE_EACH, "index"])
def test_two_processes_are_one_on_the_union_of_their_batches(
    make_triplet, two_as_one, halves_of, make_views, how
):
    """Where an index is asked for, it knows every volume."""
    method, batch = make_triplet(negatives=how, neighbours=3), make_views(batch=4)
    if method.memory is not None:
        method.memory.keep(unit(8, 8, 5).view(2, 4, 8), torch.arange(4))
        method.memory.refresh()
    first, second = halves_of(batch)
    losses, together = two_as_one(triplet, method, batch, (first, replace(second, seed=9)), atol=1e-5)
    assert losses == pytest.approx([together] * 2, rel=1e-5)


@pytest.mark.parametrize("how", ["all", *ONE_EACH])
def test_a_volume_in_the_batches_of_two_processes_is_not_its_own_negative(
    make_triplet, in_two_processes, make_views, how
):
    """Both hold the same two volumes here: there is nothing to tell apart that one process has not."""
    method, batch = make_triplet(negatives=how), make_views(batch=2)
    losses, _ = in_two_processes(triplet, method, (batch, batch))
    assert losses == pytest.approx([float(method(batch, 0).loss.detach())] * 2, rel=1e-4)


def test_before_there_is_an_index_all_of_the_batch_are_negatives(make_triplet, make_views):
    batch = make_views()
    losses = [make_triplet(negatives=how)(batch, 0).loss for how in ("index", "all")]
    assert torch.equal(*losses)


@pytest.mark.parametrize("neighbours", [1, 3, 20])
def test_with_an_index_each_view_is_compared_with_one_of_the_nearest_too(
    make_triplet, make_views, neighbours
):
    """Each view is in the index itself, as after a step, and would be its own nearest."""
    method, batch = make_triplet(negatives="index", neighbours=neighbours).eval(), make_views()
    z, hinges = [method.embed(view).detach() for view in batch.views], []
    known = torch.cat([torch.stack(z), unit(2, 8, 5).view(2, 1, 8)], dim=1)
    method.memory.keep(known, torch.arange(4))
    method.memory.refresh()
    for a, p in ((0, 1), (1, 0)):
        for i in range(3):
            others = [known[v, n] for n in range(4) if n != i for v in range(2)]
            near, far = squared(z[a][i], z[p][i]), sorted(squared(z[a][i], row) for row in others)
            farther = [d for d in far[:neighbours] if d > near]
            far = [farther[0] if farther else far[:neighbours][-1]]
            far += [squared(z[a][i], z[p][j]) for j in range(3) if j != i]
            hinges += [max(0.0, float(near - d + 0.2)) for d in far]
    assert float(method(batch, 0).loss.detach()) == pytest.approx(sum(hinges) / len(hinges), rel=1e-4)


def test_a_collapse_rests_at_the_margin_with_an_index_too(make_triplet, make_views):
    method, batch = make_triplet(negatives="index"), make_views()
    last = method.head.layers[-1]
    torch.nn.init.zeros_(last.weight)
    method.memory.keep(F.normalize(last.bias.detach(), dim=0).expand(2, 4, 8), torch.arange(4))
    method.memory.refresh()
    assert float(method(batch, 0).loss.detach()) == pytest.approx(method.resting_loss(), rel=1e-5)


def test_the_index_is_made_anew_every_so_many_steps(make_triplet, make_views):
    method, batch, volumes = make_triplet(negatives="index", refresh=3).train(), make_views(), []
    for step in range(4):
        method(batch, step)
        method.after_step(step)
        volumes.append(method.memory.volumes)
    assert volumes == [0, 0, 3, 3]
    method.memory.latest.zero_()
    method.eval()(batch, 4)
    assert not method.memory.latest.any()


@pytest.mark.parametrize(
    ("volumes", "batch", "steps", "refresh"), [(20, 3, 1000, 7), (300, 2, 1000, 100), (20, 4, 5, 1)]
)
def test_the_index_is_made_anew_once_every_volume_was_seen(make_triplet, volumes, batch, steps, refresh):
    """And ten times in a training that is too short for that."""
    method = make_triplet(volumes, steps, batch, negatives="index")
    assert method.refresh == refresh


def test_a_resumed_training_has_the_index_it_had(make_triplet, make_views, train):
    """Stopped between two refreshes, when the latest embeddings are others than those in the index."""

    def losses(method: Triplet, first: int, last: int) -> list[float]:
        optimiser = torch.optim.SGD(method.parameters(), lr=1e-2)
        batch_at, count = lambda step: make_views(seed=step), last - first
        results = train(method, batch_at, count, optimiser=optimiser, first=first)
        return [float(result.loss) for result in results]

    whole, first, second = (make_triplet(negatives="index", refresh=2, neighbours=2) for _ in range(3))
    expected = losses(whole, 0, 6)
    assert losses(first, 0, 3) == expected[:3]
    assert not torch.equal(first.memory.latest, first.memory.indexed)
    second.load_state_dict(first.state_dict(), strict=True)
    assert losses(second, 3, 6) == expected[3:]


@pytest.mark.parametrize("how", ["all", "semi_hard", "index"])
def test_a_few_steps_pull_the_views_of_volumes_together(make_triplet, train, noisy, grains, how):
    def views(step: int) -> Views:
        return noisy(grains, 0.3, step)

    def loss() -> float:
        """Of all triplets, however they are mined in the training."""
        first, second = (method.eval().embed(view).detach() for view in views(99).views)
        return float(losses_of(first, second, 0.5).mean())

    method = make_triplet(margin=0.5, negatives=how, refresh=2)
    before = loss()
    train(method.train(), views, 35)
    assert loss() < before / 2


@pytest.mark.parametrize(
    "values",
    [
        {"margin": 0},
        {"margin": 5},
        {"dimension": 1},
        {"margins": 0.2},
        {"local_views": 0},
        {"negatives": "hard"},
        {"neighbours": 0},
        {"refresh": 0},
    ],
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(TripletConfig, values, "options")
