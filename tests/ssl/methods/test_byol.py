"""The loss against plain loops, how the target follows, and that a collapse shows although its loss is 0."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fewvox.data.settings import SettingsError, parse
from fewvox.ssl.methods import byol
from fewvox.ssl.methods.byol import Byol, ByolConfig, byol_loss, spread
from fewvox.ssl.monitors import measure

CONFIG = ByolConfig(hidden=16, dimension=8)


def by_loops(predictions, targets) -> torch.Tensor:
    """Equation 2 as it is first written: squared distance of normalised vectors; mean over items."""
    losses = []
    for q, z in zip(predictions.double(), targets.double().detach(), strict=True):
        q_norm, z_norm = (sum(v * v for v in vector) ** 0.5 for vector in (q, z))
        losses.append(sum((a / q_norm - b / z_norm) ** 2 for a, b in zip(q, z, strict=True)))
    return torch.stack(losses).mean()


def parameters_of(module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


@pytest.fixture
def make_byol(fresh_method, make_scope):
    """The method on a fresh network; `steps` is the length of the training, keywords replace settings."""

    def make(steps=10, **fields) -> Byol:
        return fresh_method(Byol, replace(CONFIG, **fields), make_scope(steps=steps))

    return make


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_loss_and_gradient_are_those_of_the_formula(vectors, batch):
    predictions, targets = vectors(batch, 6, 0), vectors(batch, 6, 1)
    found, expected = byol_loss(predictions, targets), by_loops(predictions, targets).float()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(loss, predictions)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)
    assert torch.autograd.grad(byol_loss(predictions, targets), targets, allow_unused=True)[0] is None


@pytest.mark.parametrize(("factor", "loss"), [(3.0, 0.0), (-0.5, 4.0)])
def test_only_directions_count(vectors, factor, loss):
    z = vectors(3, 6, 0).detach()
    assert float(byol_loss(z, factor * z)) == pytest.approx(loss, abs=1e-5)


def test_a_vector_of_zeros_has_a_finite_loss_and_gradient():
    zeros = torch.zeros(2, 4, requires_grad=True)
    loss = byol_loss(zeros, torch.ones(2, 4))
    loss.backward()
    assert float(loss.detach()) == 2
    assert torch.isfinite(zeros.grad).all()


def test_each_view_predicts_the_target_of_the_other(make_byol, make_views):
    method, batch = make_byol(), make_views()
    with torch.no_grad():
        # the target is another network than the online one
        for p in (*method.target_network.parameters(), *method.target_projector.parameters()):
            p.mul_(1.3)
    projections = method.head.projector(method.network, *batch.views)
    predictions = method.head.predictor(projections).chunk(2)
    targets = method.target_projector(method.target_network, *batch.views).chunk(2)
    expected = by_loops(predictions[0], targets[1]) + by_loops(predictions[1], targets[0])
    result = method(batch, 0)
    torch.testing.assert_close(result.loss, expected.float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.embeddings, F.normalize(projections[:3], dim=1), atol=1e-5, rtol=0)
    swapped = method(replace(batch, views=batch.views[::-1]), 0)
    torch.testing.assert_close(result.loss, swapped.loss, atol=1e-6, rtol=1e-5)


def test_the_target_begins_as_the_online_network_and_learns_by_no_gradient(make_byol, make_views):
    method = make_byol()
    assert torch.equal(parameters_of(method.target_network), parameters_of(method.network))
    assert torch.equal(parameters_of(method.target_projector), parameters_of(method.head.projector))
    method(make_views(), 0).loss.backward()
    targets = [*method.target_network.parameters(), *method.target_projector.parameters()]
    assert not any(p.requires_grad or p.grad is not None for p in targets)


@pytest.mark.parametrize(("step", "momentum"), [(0, 0.6), (5, 0.8), (10, 1.0)])
def test_the_target_follows_as_equation_1_has_it(make_byol, step, momentum):
    """From the momentum of the settings at the first step to 1 at the last, halfway in between."""
    method = make_byol(steps=11, momentum=0.6)
    with torch.no_grad():
        for p in (*method.network.parameters(), *method.head.parameters()):
            p.add_(0.5)
    pairs = [(method.target_network, method.network), (method.target_projector, method.head.projector)]
    expected = [momentum * parameters_of(t) + (1 - momentum) * parameters_of(o) for t, o in pairs]
    method.after_step(step)
    for (target, _), weights in zip(pairs, expected, strict=True):
        torch.testing.assert_close(parameters_of(target), weights, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("steps", "momentum"), [(100, 0.9), (1000, 1 - 1 / 14.142), (312_500, 0.996), (10**6, 0.996)]
)
def test_the_momentum_suits_the_length_of_the_training(make_byol, steps, momentum):
    """The paper's 250 steps of memory would be the whole of a short one."""
    assert make_byol(steps=steps).momentum == pytest.approx(momentum, abs=1e-5)
    assert make_byol(steps=steps, momentum=0.99).momentum == 0.99


def test_the_online_network_is_kept(make_byol):
    """Section 3.1: at the end, only the online encoder."""
    method = make_byol()
    assert method.exported_network() is method.network


def test_a_collapse_has_no_loss_and_shows_in_the_spread(make_byol, make_views):
    method = make_byol()
    with torch.no_grad():
        for layers in (method.head.projector.layers, method.target_projector.layers, method.head.predictor):
            layers[-1].weight.zero_()
            layers[-1].bias.fill_(1.0)
    result = method(make_views(), 0)
    assert float(result.loss.detach()) == pytest.approx(0, abs=1e-5)
    assert float(result.logs["target_spread"]) == pytest.approx(0, abs=1e-5)
    assert method.resting_loss() is None


def test_the_spread_is_that_of_the_monitors(vectors):
    z = vectors(7, 5, 0).detach()
    expected = measure(F.normalize(z, dim=1), ["a"] * 7).spread
    assert float(spread(3 * z)) == pytest.approx(expected, rel=1e-5)
    # everywhere alike
    assert float(spread(torch.cat([torch.eye(4), -torch.eye(4)]))) == pytest.approx(1)


def test_two_processes_are_one_with_the_batch_of_both(make_byol, make_views, two_as_one):
    losses, together = two_as_one(byol, make_byol(), make_views(batch=4))
    assert sum(losses) / 2 == pytest.approx(together, rel=1e-5)


def test_the_spread_is_of_all_processes(make_byol, make_views, monkeypatch):
    seen = []
    monkeypatch.setattr(byol, "gathered", lambda z: seen.append(z) or torch.eye(4))
    assert float(make_byol()(make_views(), 0).logs["target_spread"]) == pytest.approx(0.75**0.5)
    assert [z.shape for z in seen] == [(6, 8)]


def test_mixed_precision_does_not_touch_the_loss(vectors):
    z, target = vectors(4, 64, 0), vectors(4, 64, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = byol_loss(z.bfloat16(), target.bfloat16())
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, byol_loss(z.bfloat16().float(), target.bfloat16().float()))


def test_a_few_steps_predict_the_target_without_collapse(train_by_name):
    results = train_by_name("byol")
    losses = [float(result.loss) for result in results]
    assert losses[0] > 3
    assert sum(losses[-5:]) / 5 < 2.2
    assert min(float(result.logs["target_spread"]) for result in results) > 0.6


@pytest.mark.parametrize("values", [{"momentum": 1}, {"momentum": -0.1}, {"dimension": 1}, {"tau": 0.9}])
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(ByolConfig, values, "options")
