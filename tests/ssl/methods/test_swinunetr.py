"""What of a view is replaced, restored, told and found, and that the three losses are the paper's."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fewvox.data.augment.draws import Draws
from fewvox.data.settings import SettingsError, parse
from fewvox.seg.networks.registry import Architecture
from fewvox.seg.networks.topology import Topology
from fewvox.ssl.method import Scope
from fewvox.ssl.methods import swinunetr
from fewvox.ssl.methods.swinunetr import Swinunetr, SwinunetrConfig, corrupted, draw_replaced, exchanged
from fewvox.ssl.pretrain import reached_blocks
from fewvox.ssl.quarter_turns import Turn

# both axes of a slice are pooled alike, so that it has quarter turns
STRIDES = ((1, 2, 2), (2, 2, 2))
ARCHITECTURE = Architecture(
    in_channels=1,
    classes=2,
    topology=Topology(features=(4, 8, 16), kernels=((3, 3, 3),) * 3, strides=STRIDES),
)
EXTENT = (4, 8, 8)


@pytest.fixture
def make_swinunetr(fresh_method):
    """The method on a fresh network; keywords replace settings."""

    def make(extent=EXTENT, **fields) -> Swinunetr:
        cases, config = ("c0", "c1", "c2"), replace(SwinunetrConfig(dimension=8), **fields)
        scope = Scope(
            architecture=ARCHITECTURE, shapes=(extent,) * 2, cases=cases, subjects=cases, steps=10, batch=3
        )
        return fresh_method(Swinunetr, config, scope)

    return make


@pytest.fixture
def batch_of(make_views):
    """Two views of three volumes."""
    return lambda extent=EXTENT, **fields: make_views(2, extent=extent, **fields)


def watched(method: Swinunetr) -> dict[str, torch.Tensor]:
    """What the method will give to its network and get from its heads."""
    seen: dict[str, torch.Tensor] = {}
    encode = method.network.encode

    def note(name):
        return lambda module, inputs, output: seen.update({name: output})

    def encoding(images):
        seen["given"] = images
        return encode(images)

    method.network.encode = encoding  # type: ignore[method-assign]
    for name in ("paint", "rotation", "contrast"):
        getattr(method.head, name).register_forward_hook(note(name))
    return seen


def turned_views(method: Swinunetr, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The views of both kinds one after the other, turned, and the numbers of their turns."""
    views = torch.cat(batch.views)
    numbers = method.turns.draw(len(views), torch.Generator().manual_seed(batch.seed))
    return method.turns.turned(views, numbers), numbers


def mean_absolute(restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    pairs = zip(restored.flatten(), clean.flatten(), strict=True)
    return sum(abs(r - c) for r, c in pairs) / clean.numel()  # type: ignore[return-value]


def cross_entropy(logits: torch.Tensor, classes: list[int]) -> torch.Tensor:
    """Mean over rows of -log of the true class's softmax."""
    rows = [row[k].exp() / sum(value.exp() for value in row) for row, k in zip(logits, classes, strict=True)]
    return -sum(p.log() for p in rows) / len(rows)  # type: ignore[return-value]


def contrast(z: torch.Tensor, temperature: float) -> torch.Tensor:
    """Equation 4: each row against all others; row i of the first half belongs to row i of the second."""
    z = torch.stack([row / row.square().sum().sqrt() for row in z])
    half, losses = len(z) // 2, []
    for i, row in enumerate(z):
        powers = {j: ((row * other).sum() / temperature).exp() for j, other in enumerate(z) if j != i}
        losses.append(-(powers[(i + half) % len(z)] / sum(powers.values())).log())
    return sum(losses) / len(losses)  # type: ignore[return-value]


def test_losses_and_gradients_are_those_of_plain_loops(make_swinunetr, batch_of):
    method, batch = make_swinunetr(in_painting=0.5, rotation=2.0, contrast=3.0, temperature=0.3), batch_of()
    seen = watched(method)
    result = method(batch, 0)
    names = ("paint", "rotation", "contrast")
    clean, numbers = turned_views(method, batch)
    found = torch.autograd.grad(result.loss, [seen[name] for name in names])
    leaves = {name: seen[name].detach().double().requires_grad_() for name in names}
    terms = {
        "in_painting": mean_absolute(leaves["paint"], clean.double()),
        "rotation": cross_entropy(leaves["rotation"], numbers.tolist()),
        "contrast": contrast(leaves["contrast"], 0.3),
    }
    loss = 0.5 * terms["in_painting"] + 2 * terms["rotation"] + 3 * terms["contrast"]
    for name, term in terms.items():
        torch.testing.assert_close(result.logs[f"loss/{name}"].double(), term.detach(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(result.loss.detach().double(), loss.detach(), atol=1e-6, rtol=1e-5)
    expected = torch.autograd.grad(loss, list(leaves.values()))
    for gradient, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient.double(), reference, atol=1e-7, rtol=1e-4)


def test_by_default_all_three_weigh_as_much(make_swinunetr, batch_of):
    """The paper's (1, 1, 1)."""
    result = make_swinunetr()(batch_of(), 0)
    terms = [result.logs[f"loss/{name}"] for name in ("in_painting", "rotation", "contrast")]
    torch.testing.assert_close(result.loss.detach(), torch.stack(terms).sum())


def test_the_network_is_given_turned_views_with_blocks_of_others(make_swinunetr, batch_of):
    method, batch = make_swinunetr(), batch_of()
    before = [view.clone() for view in batch.views]
    seen = watched(method)
    method(batch, 0)
    clean, _ = turned_views(method, batch)
    first, second = clean.chunk(2)
    expected = [exchanged(first, method.config, (0, 0)), exchanged(second, method.config, (0, 1))]
    assert torch.equal(seen["given"], torch.cat(expected))
    assert all(torch.equal(*pair) for pair in zip(before, batch.views, strict=True))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.9])
def test_blocks_are_drawn_until_the_share_is_covered_and_no_longer(share):
    for seed in range(5):
        replaced = draw_replaced((8, 16, 12), share, (0.05, 0.25), Draws((seed,)))
        # the last block, of 2 x 4 x 3 voxels at most, is what there can be too much
        assert share <= replaced.mean() < share + 24 / replaced.size + 1e-9 or share == replaced.mean() == 0


def test_replaced_voxels_are_noise_or_another_view_s_in_all_channels():
    """A view of ones, and another one of twos in which noise hardly ever falls."""
    view, other = torch.ones(2, 8, 16, 12), torch.full((2, 8, 16, 12), 2.0)
    shares = []
    for seed in range(40):
        config = SwinunetrConfig()
        found = corrupted(view, other, config, Draws((seed,)))
        kept, foreign = found == 1, found == 2
        noise = ~kept & ~foreign
        assert torch.equal(noise[0], noise[1])
        assert torch.equal(foreign[0], foreign[1])
        # noise is drawn for each channel
        assert not noise.any() or not torch.equal(found[0][noise[0]], found[1][noise[1]])
        shares.append((noise.float().mean(), foreign.float().mean()))
    most = torch.tensor(shares).amax(dim=0)
    assert 0.2 < most[0] < 0.32
    assert 0.2 < most[1] < 0.32
    assert torch.equal(view, torch.ones_like(view))
    only_foreign = corrupted(view, other, SwinunetrConfig(noise=(0, 0), foreign=(0.2, 0.2)), Draws((0,)))
    assert only_foreign.unique().tolist() == [1, 2]
    assert 0.2 <= (only_foreign == 2).float().mean() < 0.22
    # they lie over the noise
    most = corrupted(view, other, SwinunetrConfig(noise=(0.9, 0.9), foreign=(0.9, 0.9)), Draws((0,)))
    assert (most == 2).float().mean() >= 0.9


def test_a_view_never_gets_blocks_of_its_own():
    views = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 1, 2, 4, 4)
    config = SwinunetrConfig(noise=(0, 0), foreign=(0.3, 0.3))
    donors = set()
    for seed in range(20):
        for i, view in enumerate(exchanged(views, config, (seed, 0))):
            values = set(view.unique().tolist())
            assert len(values) == 2
            donors |= {(i, *(values - {i}))}
    # each from each other
    assert len(donors) == 12


def test_turns_are_about_z_and_all_four_where_a_slice_is_square(make_swinunetr):
    method = make_swinunetr()
    assert method.turns.turns == (Turn(0, 0), Turn(0, 1), Turn(0, 2), Turn(0, 3))
    assert method.head.rotation.out_features == 4
    assert Swinunetr.views(SwinunetrConfig()).upright


def test_oblong_slices_are_cropped_to_squares(make_swinunetr, batch_of):
    method = make_swinunetr(extent=(4, 12, 8))
    assert method.turns.extent == (4, 8, 8)
    seen = watched(method)
    assert torch.isfinite(method(batch_of((4, 12, 8)), 0).loss)
    assert seen["given"].shape == (6, 1, 4, 8, 8)


def test_slices_that_are_pooled_unevenly_have_half_turns_alone(fresh_method, make_scope, make_views):
    """The network of the other tests halves y more often than x."""
    method = fresh_method(Swinunetr, SwinunetrConfig(dimension=8), make_scope(2))
    assert method.turns.turns == (Turn(0, 0), Turn(0, 2))
    assert method.head.rotation.out_features == 2
    assert torch.isfinite(method(make_views(2), 0).loss)


def test_embeddings_are_unit_vectors_of_whole_views(make_swinunetr, batch_of):
    method, batch = make_swinunetr(), batch_of()
    z = method.embed(batch.views[0])
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3))
    result = method(batch, 0)
    assert result.embeddings is not None
    assert result.embeddings.shape == (3, 8)
    torch.testing.assert_close(result.embeddings.norm(dim=1), torch.ones(3))


def test_perfect_heads_lose_what_is_left(make_swinunetr, batch_of, monkeypatch):
    """Nothing for restored views and told turns; opposite pairs lose what equation 4 has left."""
    method, batch = make_swinunetr(temperature=0.01), batch_of()
    clean, numbers = turned_views(method, batch)
    monkeypatch.setattr(method.head.paint, "forward", lambda features: clean)
    monkeypatch.setattr(method.head.rotation, "forward", lambda pooled: 100 * F.one_hot(numbers, 4).float())
    monkeypatch.setattr(method.head.contrast, "forward", lambda pooled: torch.eye(3, 8).repeat(2, 1))
    result = method(batch, 0)
    assert float(result.loss) == pytest.approx(0, abs=1e-6)
    assert result.logs["turns_told"] == result.logs["pairs_found"] == 1
    assert result.logs["loss_of_a_copy"] > 0
    monkeypatch.setattr(method.head.contrast, "forward", lambda pooled: torch.ones(6, 8))
    assert float(method(batch, 0).loss) == pytest.approx(math.log(5), rel=1e-5)


def test_two_processes_have_the_loss_and_gradients_of_one(make_swinunetr, batch_of, two_as_one):
    """Where nothing is drawn: neither replaced nor turned."""
    method, whole = (make_swinunetr(noise=(0, 0), foreign=(0, 0), rotation=0.0) for _ in range(2))
    method.turns = whole.turns = replace(method.turns, turns=(Turn(0, 0),) * 4)
    losses, together = two_as_one(swinunetr, method, batch_of(batch=4), whole=whole, atol=1e-5)
    assert sum(losses) / 2 == pytest.approx(together, rel=1e-5)


def test_a_batch_s_own_seed_decides(make_swinunetr, batch_of, check_seed_decides):
    check_seed_decides(make_swinunetr(), batch_of())


def test_flat_views_have_a_finite_loss_and_gradient(make_swinunetr, views_of, check_finite):
    flat = torch.zeros(2, 1, *EXTENT)
    check_finite(make_swinunetr(), views_of(flat, flat))


def test_the_loss_reaches_encoder_and_decoder_wholly(make_swinunetr, batch_of):
    assert reached_blocks(make_swinunetr(), batch_of()) == ("encoder", "decoder")
    without = make_swinunetr(in_painting=0.0)
    without(batch_of(), 0).loss.backward()
    assert all(p.grad is None or p.grad.norm() == 0 for p in without.network.decoder.parameters())


def test_a_few_steps_restore_tell_and_find(make_swinunetr, train, noisy):
    """Three volumes of stripes along y that begin dark and end bright, each of its own width."""
    rows = torch.stack([torch.arange(16) % width / width * 2 - 1 for width in (3, 5, 8)])
    volumes = rows.view(3, 1, 1, 16, 1).expand(3, 1, 4, 16, 16)
    method = make_swinunetr(extent=(4, 16, 16), noise=(0, 0.1), foreign=(0, 0.1))
    results = train(method, lambda step: noisy(volumes, 0.1, step), 30, lr=1e-2)
    for name in ("in_painting", "rotation", "contrast"):
        losses = [float(result.logs[f"loss/{name}"]) for result in results]
        assert sum(losses[-8:]) < 0.8 * sum(losses[:8]), name


@pytest.mark.parametrize(
    "values",
    [
        {"noise": [0, 1]},
        {"foreign": [0.3, 0.1]},
        {"edge": [0, 2]},
        {"temperature": 0},
        {"rotation": -1},
        {"in_painting": 0, "rotation": 0, "contrast": 0},
        {"weights": [1, 1, 1]},
    ],
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(SwinunetrConfig, values, "options")
