"""ArcFace against plain loops with an arccos, its margin, its classes and what a collapse costs."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from fewvox.data.errors import UserError
from fewvox.data.settings import SettingsError, parse, plain
from fewvox.ssl.methods import arcface
from fewvox.ssl.methods.arcface import ArcFace, ArcFaceConfig, arcface_logits, least_scale
from fewvox.ssl.pretrain import reached_blocks
from fewvox.ssl.schedule import Schedule

# the margin is the paper's
CONFIG = ArcFaceConfig(hidden=16, dimension=8, margin=0.5)


def unit(rows: int, size: int, seed: int) -> torch.Tensor:
    z = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(z, dim=1)


def loss_of(z, weights, classes, scale: float, margin: float) -> torch.Tensor:
    """By the code that is tested; neither embeddings nor weights need unit length."""
    z, weights = (F.normalize(v.float(), dim=1) for v in (z, weights))
    logits = arcface_logits(z, weights, classes, scale=scale, margin=margin)
    return F.cross_entropy(logits, classes)


def by_loops(z, weights, classes, scale: float, margin: float) -> torch.Tensor:
    """Equation 3 of the paper in double precision, with the angle by its arccos."""
    losses = []
    for item, own in zip(z, classes.tolist(), strict=True):
        logits = []
        for number, weight in enumerate(weights):
            cosine = (item * weight).sum() / (item.norm() * weight.norm())
            angle = torch.arccos(cosine)
            if number == own:
                beyond = angle + margin > math.pi
                cosine = cosine - margin * math.sin(margin) if beyond else torch.cos(angle + margin)
            logits.append(scale * cosine)
        losses.append(-(logits[own] - torch.logsumexp(torch.stack(logits), dim=0)))
    return torch.stack(losses).mean()


@pytest.fixture
def make_arcface(fresh_method, make_scope):
    """The method on a fresh network; keywords replace settings, or what it is built for."""

    def make(volumes=4, steps=11, subjects=None, **fields) -> ArcFace:
        config = replace(CONFIG, **fields)
        scope = make_scope(1 + config.local_views, volumes=volumes, steps=steps, subjects=subjects)
        return fresh_method(ArcFace, config, scope)

    return make


@pytest.mark.parametrize(
    ("classes", "scale", "margin"), [(2, 3.0, 0.5), (5, 8.0, 0.2), (9, 64.0, 0.5), (4, 8.0, 1.5)]
)
def test_loss_and_gradients_are_those_of_the_formula(classes, scale, margin):
    """Lengths that are not 1, so that the gradient goes through the normalisation as in a training."""
    inputs = (3 * unit(12, 6, 0)).requires_grad_(), (0.1 * unit(classes, 6, 1)).requires_grad_()
    numbers = torch.arange(12) % classes
    found, expected = (f(*inputs, numbers, scale, margin) for f in (loss_of, by_loops))
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    slopes = (torch.autograd.grad(loss, inputs) for loss in (found, expected))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_without_a_margin_it_is_torch_s_cross_entropy_of_scaled_cosines():
    z, weights, numbers = unit(6, 5, 0).float(), unit(3, 5, 1).float(), torch.arange(6) % 3
    expected = F.cross_entropy(10.0 * z @ weights.T, numbers)
    torch.testing.assert_close(loss_of(z, weights, numbers, 10.0, 0.0), expected)


def test_the_margin_is_in_radians():
    """pytorch-metric-learning's default of 28.6 degrees is the paper's 0.5."""
    z, weights = torch.eye(2)[:1], torch.eye(2)
    logit = arcface_logits(z, weights, torch.tensor([0]), scale=1.0, margin=math.radians(28.6))
    assert float(logit[0, 0]) == pytest.approx(math.cos(0.5), abs=1e-3)
    assert float(logit[0, 1]) == 0


def target(angle: float, margin: float) -> float:
    """The logit of the own class at an angle to its weight."""
    z = torch.tensor([[math.cos(angle), math.sin(angle)]])
    return float(arcface_logits(z, torch.eye(2), torch.tensor([0]), scale=1.0, margin=margin)[0, 0])


@pytest.mark.parametrize("margin", [0.1, 0.5, 1.5])
def test_the_logit_falls_all_the_way_to_the_opposite(margin):
    """Also where angle and margin are beyond pi, and the cosine alone would rise again."""
    angles = torch.linspace(0, math.pi, 200).tolist()
    logits = [target(angle, margin) for angle in angles]
    assert all(later < earlier for earlier, later in pairwise(logits))
    assert logits[0] == pytest.approx(math.cos(margin), abs=1e-6)
    assert logits[-1] == pytest.approx(-1 - margin * math.sin(margin), abs=1e-6)


@pytest.mark.parametrize("away", [0.0, 1e-7, 1e-5, 1e-3])
@pytest.mark.parametrize("sign", [1, -1])
def test_gradients_are_bounded_where_an_embedding_meets_its_weight(sign, away):
    """There the arccos has none, and sqrt(1 - cos^2) an infinite one."""
    weights = unit(3, 4, 0).float().requires_grad_()
    z = (sign * weights.detach()[:1] + away * unit(1, 4, 1).float()).requires_grad_()
    logits = arcface_logits(
        F.normalize(z, dim=1), F.normalize(weights, dim=1), torch.tensor([0]), scale=1.0, margin=0.5
    )
    for slope in torch.autograd.grad(logits[0, 0], (z, weights)):
        assert torch.isfinite(slope).all()
        assert slope.norm() <= 1.01


def test_mixed_precision_does_not_touch_logits_and_softmax():
    z, weights, numbers = unit(6, 64, 0).float(), unit(3, 64, 1).float(), torch.arange(6) % 3
    exact = loss_of(z, weights, numbers, 30.0, 0.5)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            mixed = loss_of(z, weights, numbers, 30.0, 0.5)
        assert mixed.dtype == torch.float32
        assert torch.equal(exact, mixed)


def test_embeddings_and_logits_of_a_mixed_step_are_of_single_precision(make_arcface, make_views, monkeypatch):
    seen = []
    monkeypatch.setattr(
        arcface, "arcface_logits", lambda *a, **k: seen.append(arcface_logits(*a, **k)) or seen[0]
    )
    method = make_arcface()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = method(make_views(), 0)
    assert {t.dtype for t in (*seen, result.loss, result.embeddings)} == {torch.float32}
    torch.testing.assert_close(result.embeddings.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(("classes", "margin"), [(2, 0.5), (3, 0.0), (20, 0.3), (300, 0.5)])
def test_the_least_scale_lets_a_class_weight_be_sure_of_its_class(classes, margin):
    """Weights as far apart as can be: the corners of a simplex."""
    corners = F.normalize(torch.eye(classes) - 1 / classes, dim=1)
    logits = arcface_logits(
        corners, corners, torch.arange(classes), scale=least_scale(classes, margin), margin=margin
    )
    sure = logits.softmax(dim=1).diagonal()
    torch.testing.assert_close(sure, torch.full((classes,), 0.99), atol=1e-4, rtol=0)


def test_without_a_margin_the_least_scale_is_cosface_s():
    for classes in (2, 10, 300):
        bound = (classes - 1) / classes * math.log((classes - 1) * 0.99 / 0.01)
        assert least_scale(classes, 0.0) == pytest.approx(bound)


@pytest.mark.parametrize("fields", [{}, {"scale": 64.0}, {"scale": 2.0, "margin": 0.0}, {"scale": 1e6}])
def test_a_collapse_costs_what_it_is_said_to_rest_at(make_arcface, make_views, fields):
    """All embeddings are the same, and the class weights have come to them."""
    method = make_arcface(volumes=5, **fields)
    last = method.head.layers[-1]
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():
        method.head.class_weights.copy_(last.bias.expand(5, -1))
    loss = float(method(make_views(), 0).loss.detach())
    assert loss == pytest.approx(method.resting_loss(), rel=1e-4)


@pytest.mark.parametrize(("scale", "margin"), [(8.0, 0.5), (64.0, 0.5), (2.0, 0.0)])
def test_the_resting_loss_is_that_of_the_formula(make_arcface, scale, margin):
    """Without a margin it is that of a guess, ln K."""
    expected = math.log(1 + (5 - 1) * math.exp(scale * (1 - math.cos(margin))))
    assert make_arcface(volumes=5, scale=scale, margin=margin).resting_loss() == pytest.approx(expected)


def test_a_constant_embedding_cannot_cost_less_than_that(make_arcface):
    """Wherever the class weights go: each of five classes comes equally often."""
    method, z = make_arcface(volumes=5), unit(1, 8, 0).float().expand(5, 8)
    weights = (z + 0.5 * unit(5, 8, 1).float()).requires_grad_()
    optimiser, losses = torch.optim.Adam([weights], lr=0.05), []
    for _ in range(80):
        loss = loss_of(z, weights, torch.arange(5), method.scale, method.config.margin)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert min(losses) >= method.resting_loss() - 1e-4
    assert losses[-1] == pytest.approx(method.resting_loss(), rel=1e-2)


@pytest.mark.parametrize("local_views", [0, 1, 2])
def test_every_view_of_every_item_counts(make_arcface, make_views, local_views):
    method, batch = make_arcface(local_views=local_views).eval(), make_views(1 + local_views)
    z = torch.cat([method.embed(view).detach() for view in batch.views])
    numbers, weights = torch.arange(3).repeat(1 + local_views), method.head.class_weights.detach()
    result = method(batch, 0)
    expected = by_loops(z.double(), weights.double(), numbers, method.scale, 0.5)
    torch.testing.assert_close(result.loss.double(), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.embeddings, z[:3], atol=1e-5, rtol=0)
    assert result.logs["counted_views"] == 1


def test_the_accuracy_is_that_of_the_logits_with_the_margin(make_arcface, make_views):
    """Untrained embeddings are near each other: each is nearest to its own, but not by a margin."""
    told = []
    for margin in (0.0, 0.5):
        method, batch = make_arcface(volumes=3, margin=margin, local_views=0).eval(), make_views(1)
        with torch.no_grad():
            method.head.class_weights.copy_(method.embed(batch.views[0]))
        told.append(float(method(batch, 0).logs["margin_accuracy"]))
    assert told == [1, 0]


def test_volumes_of_a_subject_are_one_class_where_that_is_asked_for(make_arcface):
    subjects = ("b", "a", "b", "c")
    assert make_arcface(subjects=subjects).numbers == {"c0": 0, "c1": 1, "c2": 2, "c3": 3}
    of_subjects = make_arcface(subjects=subjects, classes="subjects")
    assert of_subjects.numbers == {"c0": 0, "c1": 1, "c2": 0, "c3": 2}
    assert of_subjects.head.class_weights.shape == (3, 8)
    with pytest.raises(UserError, match=r"options\.classes: subjects: 1 class"):
        make_arcface(subjects=("a",) * 4, classes="subjects")


def test_class_weights_learn_and_are_kept(make_arcface, make_views):
    """The thesis's code drew them anew every epoch."""
    method, batch = make_arcface(), make_views()
    before = method.head.class_weights.detach().clone()
    optimiser = torch.optim.SGD(method.parameters(), lr=0.1)
    method(batch, 0).loss.backward()
    optimiser.step()
    assert (method.head.class_weights != before).any(dim=1).all()
    other = make_arcface()
    other.load_state_dict(method.state_dict(), strict=True)
    assert torch.equal(other.eval()(batch, 1).loss, method.eval()(batch, 1).loss)


@pytest.mark.parametrize(("start", "counts"), [(1.0, [10, 10, 10]), (0.5, [5, 8, 10]), (0.0, [2, 5, 10])])
def test_the_class_set_grows_and_never_has_fewer_than_two(make_arcface, start, counts):
    method = make_arcface(volumes=10, active=Schedule(start=start, end=1.0))
    assert [method.active_classes(progress) for progress in (0.0, 0.5, 1.0)] == counts


def test_items_of_classes_that_are_not_active_do_not_count(make_arcface, make_views):
    """Nor do the weights of these classes."""
    method, batch = make_arcface(active=Schedule(start=0.5, end=1.0)), make_views(batch=4)
    result = method(batch, 0)
    z = method.embed(*batch.views).detach()[[0, 1, 4, 5]].double()
    weights = method.head.class_weights.detach()[:2].double()
    expected = by_loops(z, weights, torch.tensor([0, 1, 0, 1]), method.scale, 0.5)
    torch.testing.assert_close(result.loss.double(), expected, atol=1e-5, rtol=1e-4)
    assert result.logs["counted_views"] == 0.5
    result.loss.backward()
    assert (method.head.class_weights.grad.norm(dim=1) > 0).tolist() == [True, True, False, False]


def test_the_first_step_has_the_classes_of_the_start_and_the_last_one_all(make_arcface, make_views):
    method = make_arcface(volumes=40, active=Schedule(start=0.5, end=1.0))
    batch = replace(make_views(), cases=("c19", "c20", "c39"))
    counted = [float(method(batch, step).logs["counted_views"]) for step in (0, 9, 10)]
    assert counted == pytest.approx([1 / 3, 2 / 3, 1])


def test_a_batch_without_an_active_class_teaches_nothing(make_arcface, make_views):
    method = make_arcface(volumes=6, active=Schedule(start=0.0, end=0.4))
    batch = replace(make_views(), cases=("c3", "c4", "c5"))
    result = method(batch, 0)
    result.loss.backward()
    assert float(result.loss.detach()) == result.logs["margin_accuracy"] == result.logs["counted_views"] == 0
    assert all(p.grad is None or (p.grad == 0).all() for p in method.parameters())
    assert method.resting_loss() == pytest.approx(math.log1p(math.exp(method.scale * (1 - math.cos(0.5)))))


def test_the_loss_reaches_encoder_and_decoder_wholly_or_the_blocks_that_are_named(make_arcface, make_views):
    assert reached_blocks(make_arcface(), make_views()) == ("encoder", "decoder")
    assert reached_blocks(make_arcface(blocks=("encoder",)), make_views()) == ("encoder",)


@pytest.mark.parametrize("start", [1.0, 0.5])
def test_two_processes_are_one_on_the_union_of_their_batches(make_arcface, two_as_one, make_views, start):
    """Also where the second has no item of a class that is active."""
    method = make_arcface(active=Schedule(start=start, end=1.0))
    losses, together = two_as_one(arcface, method, make_views(batch=4))
    assert losses == pytest.approx([together] * 2, rel=1e-5)


def test_a_few_steps_tell_volumes_apart(make_arcface, train, noisy, grains):
    results = train(make_arcface(), lambda step: noisy(grains, 0.3, step), 30)
    losses = [float(result.loss) for result in results]
    assert sum(losses[-5:]) < sum(losses[:5]) / 3
    assert results[-1].logs["margin_accuracy"] == 1


@pytest.mark.parametrize(
    "values",
    [
        {"margin": -0.1},
        {"margin": 28.6},
        {"scale": 0},
        {"classes": "patients"},
        {"local_views": -1},
        {"active": {"start": 1.5}},
        {"active": {"start": 0.5, "end": 0.2}},
    ],
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(ArcFaceConfig, values, "options")


def test_what_is_not_said_of_the_schedule_has_its_default():
    config = parse(ArcFaceConfig, {"active": {"start": 0.2}}, "options")
    assert config.active == Schedule(start=0.2, end=1.0)
    assert parse(ArcFaceConfig, plain(config), "options") == config
