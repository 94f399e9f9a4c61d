"""DINO against plain loops over its formulas, what its teacher sees and follows, and how it collapses."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fewvox.data.settings import SettingsError, parse
from fewvox.seg.engine.precision import Precision
from fewvox.seg.engine.progress import Progress
from fewvox.seg.engine.state import TrainingState
from fewvox.seg.engine.step import learn
from fewvox.ssl.ema import base_momentum
from fewvox.ssl.koleo import koleo_loss
from fewvox.ssl.method import Views
from fewvox.ssl.methods import dino
from fewvox.ssl.methods.dino import (
    Dino,
    DinoConfig,
    dino_loss,
    dino_targets,
    entropy,
    information,
    teacher_temperature_at,
)
from fewvox.ssl.pretrain import reached_blocks

CONFIG = DinoConfig(hidden=16, dimension=8, prototypes=6, local_views=1, frozen=0.0)
K = CONFIG.prototypes
STEPS = 10


def softmax(numbers: list[float]) -> list[float]:
    powers = [math.exp(n - max(numbers)) for n in numbers]
    return [p / sum(powers) for p in powers]


def by_loops(student, teacher, centre, ts: float, tt: float) -> tuple[float, float, float, list]:
    """Equations 1 and 3 with the teacher of equation 4: loss, entropy, KL divergence, and the gradient."""
    told = [[softmax([(x - c) / tt for x, c in zip(row, centre, strict=True)]) for row in v] for v in teacher]
    found = [[softmax([x / ts for x in row]) for row in v] for v in student]
    items, pairs, loss, divergence = len(student[0]), 0, 0.0, 0.0
    gradient = [[[0.0] * len(row) for row in v] for v in student]
    for g, teacher_view in enumerate(told):
        for v, student_view in enumerate(found):
            if v == g:
                continue
            pairs += 1
            for i, (p, q) in enumerate(zip(teacher_view, student_view, strict=True)):
                loss -= sum(a * math.log(b) for a, b in zip(p, q, strict=True)) / items
                divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / items
                for k, (a, b) in enumerate(zip(p, q, strict=True)):
                    gradient[v][i][k] += (b - a) / ts / items
    entropies = [-sum(a * math.log(a) for a in p) for v in told for p in v]
    gradient = [[[x / pairs for x in row] for row in v] for v in gradient]
    return loss / pairs, sum(entropies) / len(entropies), divergence / pairs, gradient


def cosines(views: int, items: int, seed: int) -> torch.Tensor:
    return 2 * torch.rand(views, items, K, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.fixture
def make_dino(fresh_method, make_scope):
    """The method on a fresh network; keywords replace settings."""

    def make(seed=0, steps=STEPS, **fields) -> Dino:
        config = replace(CONFIG, **fields)
        scope = make_scope(2 + config.local_views, steps=steps)
        return fresh_method(Dino, config, scope, seed).train()

    return make


def sgd(method: Dino, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=lr)


def equal_states(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(v, states[1][n]) for n, v in states[0].items()
    )


@pytest.mark.parametrize(("global_views", "views"), [(2, 2), (2, 5), (1, 3)])
@pytest.mark.parametrize(("ts", "tt"), [(0.1, 0.04), (0.5, 0.9)])
def test_loss_entropy_and_gradient_are_those_of_plain_loops(global_views, views, ts, tt):
    student, teacher = cosines(views, 3, 0).requires_grad_(), cosines(global_views, 3, 1).requires_grad_()
    centre = cosines(1, 1, 2).flatten()
    targets = dino_targets(teacher, centre, temperature=tt)
    loss = dino_loss(student, targets, temperature=ts)
    loss.backward()
    expected = by_loops(student.tolist(), teacher.tolist(), centre.tolist(), ts, tt)
    assert loss.shape == entropy(targets).shape == ()
    assert loss.item() == pytest.approx(expected[0], rel=1e-4)
    assert entropy(targets).item() == pytest.approx(expected[1], rel=1e-4, abs=1e-6)
    # what is logged as the divergence
    assert (loss - entropy(targets)).item() == pytest.approx(expected[2], rel=1e-4)
    torch.testing.assert_close(student.grad, torch.tensor(expected[3]), atol=1e-5, rtol=1e-3)
    assert teacher.grad is None


def test_of_two_views_the_divergence_is_torch_s():
    student, targets = cosines(2, 4, 0), cosines(2, 4, 1).softmax(-1)
    logs = (student.flip(0) / 0.1).log_softmax(-1)
    expected = F.kl_div(logs.flatten(0, 1), targets.flatten(0, 1), reduction="batchmean")
    torch.testing.assert_close(dino_loss(student, targets, temperature=0.1) - entropy(targets), expected)


@pytest.mark.parametrize(("global_views", "views"), [(1, 1), (3, 2), (0, 2)])
def test_views_without_a_pair_are_refused(global_views, views):
    """Of a single view there is no other one: the mean over no pairs is no number."""
    with pytest.raises(ValueError, match="no pair"):
        dino_loss(cosines(views, 2, 0), cosines(global_views, 2, 1).softmax(-1), temperature=0.1)


def test_a_view_is_not_compared_with_itself():
    """A student that is sure of the wrong thing in every view but one loses nothing by that one."""
    targets = torch.stack([torch.eye(K)[:1], torch.eye(K)[1:2]])
    found = [dino_loss(student, targets, temperature=0.02) for student in (targets.flip(0), targets)]
    assert found[0] < 1e-6
    assert found[1] > 40


def test_extreme_temperatures_stay_finite():
    student = cosines(2, 3, 0).requires_grad_()
    targets = dino_targets(cosines(2, 3, 1), torch.zeros(K), temperature=1e-4)
    loss = dino_loss(student, targets, temperature=1e-4)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(entropy(targets))
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        # sure of each, and of each something else
        (torch.eye(4), math.log(4)),
        # two each of two kinds
        (torch.eye(4)[[0, 0, 2, 2]], math.log(2)),
        # sure, and always of the same
        (torch.eye(4)[[1, 1, 1]], 0.0),
        # always as unsure
        (torch.full((3, 4), 0.25), 0.0),
        (torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]), 0.5 * math.log(2)),
    ],
)
def test_information_is_what_outputs_tell_of_their_items(shares, expected):
    assert information(shares).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.3), (7, 0.5), (10, 1.0)])
def test_the_teacher_s_temperature_warms_up_linearly_and_stays(steps, warmup):
    config = replace(CONFIG, teacher_temperature=0.07, temperature_warmup=warmup)
    found = [teacher_temperature_at(step, steps, config) for step in range(steps)]
    expected = np.interp(np.arange(steps), [0, warmup * steps], [0.04, 0.07])
    assert found == pytest.approx(expected.tolist(), rel=1e-12)
    assert found[0] == 0.04


def test_without_a_warm_up_the_temperature_is_the_last_from_the_first_step_on():
    config = replace(CONFIG, teacher_temperature=0.07, temperature_warmup=0.0)
    assert [teacher_temperature_at(step, 5, config) for step in (0, 4)] == pytest.approx([0.07, 0.07])


def test_the_loss_of_a_batch_is_that_of_plain_loops_at_its_step(make_dino, make_views):
    """Centre, temperature and pairs are those of the step; embeddings those of the first view."""
    method, batch = make_dino(teacher_temperature=0.07, temperature_warmup=1.0).eval(), make_views(3)
    method.centre.copy_(cosines(1, 1, 3).flatten() / 10)
    result = method(batch, 5)
    with torch.no_grad():
        told = [method.head(method.network, view) for view in batch.views]
    student = [of_prototypes.tolist() for _, of_prototypes in told]
    expected = by_loops(student, student[:2], method.centre.tolist(), 0.1, 0.055)
    assert result.loss.item() == pytest.approx(expected[0], rel=1e-4)
    assert float(result.logs["teacher_entropy"]) == pytest.approx(expected[1], rel=1e-4)
    assert float(result.logs["kl"]) == pytest.approx(expected[2], rel=1e-3)
    torch.testing.assert_close(result.embeddings, told[0][0], atol=1e-5, rtol=0)


def test_student_and_teacher_begin_alike(make_dino, make_views):
    method, batch = make_dino(local_views=0), make_views(2)
    images = torch.cat(batch.views)
    one = method.head(method.network, images)
    other = method.teacher_head(method.teacher, images)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_teacher_is_shown_the_global_views_alone(make_dino, make_views):
    method, batch = make_dino(local_views=2), make_views(4)
    shown = []
    encode = method.teacher.encode
    method.teacher.encode = lambda images: (shown.append(images), encode(images))[1]
    result = method(batch, 0)
    assert len(shown) == 1
    assert torch.equal(shown[0], torch.cat(batch.views[:2]))
    locals_changed = replace(batch, views=(*batch.views[:2], *(v.flip(0) for v in batch.views[2:])))
    again = method(locals_changed, 0)
    assert torch.equal(again.logs["teacher_entropy"], result.logs["teacher_entropy"])
    assert not torch.equal(again.loss, result.loss)


def test_the_student_learns_from_every_view(make_dino, make_views):
    method, batch = make_dino(local_views=2), make_views(4)
    views = tuple(view.clone().requires_grad_() for view in batch.views)
    method(replace(batch, views=views), 0).loss.backward()
    assert all(view.grad is not None and view.grad.norm() > 0 for view in views)


def test_local_views_may_have_another_extent(make_dino, make_views):
    """And their rows do not get mixed up: each view is compared as the view it is."""
    method, batch = make_dino(local_views=2).eval(), make_views(4, extent=(4, 8, 4))
    smaller = replace(batch, views=(*batch.views[:2], *(v[:, :, :2, :4, :2] for v in batch.views[2:])))
    with torch.no_grad():
        told = [method.head(method.network, view)[1].tolist() for view in smaller.views]
    expected = by_loops(told, told[:2], [0.0] * K, 0.1, 0.04)
    assert method(smaller, 0).loss.item() == pytest.approx(expected[0], rel=1e-4)
    method.train()(smaller, 0).loss.backward()
    assert method.head.prototypes.grad is not None


@pytest.mark.parametrize("local_views", [0, 3])
def test_views_are_two_global_and_so_many_local_ones_of_two_volumes(local_views):
    spec = Dino.views(replace(CONFIG, local_views=local_views))
    assert (spec.global_views, spec.local_views, spec.volumes) == (2, local_views, 2)


def outputs_of(method: Dino, batch: Views) -> torch.Tensor:
    """What a teacher in training makes of the global views (2B, K)."""
    return copy.deepcopy(method.teacher_head)(copy.deepcopy(method.teacher), torch.cat(batch.views[:2]))[1]


def test_the_centre_follows_the_teacher_s_mean_once_a_step(make_dino, make_views):
    """Equation 4 in plain loops; two batches to each step, whose means count alike."""
    method = make_dino(centre_momentum=0.8)
    centre = [0.0] * K
    for step in range(3):
        rows = []
        for batch in (make_views(3, seed=2 * step), make_views(3, seed=2 * step + 1)):
            rows += outputs_of(method, batch).tolist()
            method(batch, step)
        assert method.centre.tolist() == pytest.approx(centre, rel=1e-5, abs=1e-7)
        method.after_step(step)
        means = [sum(row[k] for row in rows) / len(rows) for k in range(K)]
        centre = [0.8 * c + 0.2 * m for c, m in zip(centre, means, strict=True)]
    assert method.centre.tolist() == pytest.approx(centre, rel=1e-4, abs=1e-6)
    assert method.centre.norm() > 0


def test_the_centre_is_of_the_rows_of_all_processes(make_dino, make_views, monkeypatch):
    method, batch = make_dino(), make_views(3)
    own = outputs_of(method, batch)
    other = cosines(1, 6, 4)[0]
    monkeypatch.setattr(dino, "gathered", lambda rows: torch.cat([rows, other]))
    method(batch, 0)
    method.after_step(0)
    torch.testing.assert_close(method.centre, 0.1 * torch.cat([own, other]).mean(dim=0), atol=1e-6, rtol=1e-4)


def test_looking_moves_no_centre(make_dino, make_views):
    method, batch = make_dino().eval(), make_views(3)
    before = copy.deepcopy(method.state_dict())
    method(batch, 0)
    method.embed(batch.views[0])
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_a_skipped_step_leaves_centre_and_teacher_as_they_were(make_dino, make_views):
    """In the loop's own step: what a batch that is not finite left in the buffers is taken back."""
    method, good = make_dino(), make_views(3)
    bad = replace(good, views=(torch.full_like(good.views[0], math.nan), *good.views[1:]))
    state = TrainingState(
        task=method, network=method.exported_network(), optimiser=sgd(method),
        precision=Precision("float32", torch.device("cpu")), average=None, progress=Progress(),
    )  # fmt: skip
    assert learn(state, [good], 0, 1, 12.0).useful
    method.after_step(0)
    before = copy.deepcopy(method.state_dict())
    assert not learn(state, [good, bad], 1, 2, 12.0).useful
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
    assert method.rows == 0


def test_the_teacher_follows_by_the_schedule_and_stays_at_the_last_step(make_dino, make_views, train):
    method = make_dino(teacher_momentum=0.6, steps=5)
    optimiser = sgd(method)
    assert not any(p.requires_grad for m in (method.teacher, method.teacher_head) for p in m.parameters())
    pairs = [(method.teacher, method.network), (method.teacher_head, method.head)]
    for step in range(5):
        before = [[p.clone() for p in teacher.parameters()] for teacher, _ in pairs]
        train(method, lambda s: make_views(3, seed=s), 1, optimiser=optimiser, first=step)
        momentum = 0.8 - 0.2 * math.cos(math.pi * step / 4)
        stayed = []
        for old, (teacher, student) in zip(before, pairs, strict=True):
            for o, mine, theirs in zip(old, teacher.parameters(), student.parameters(), strict=True):
                torch.testing.assert_close(mine, momentum * o + (1 - momentum) * theirs, atol=1e-6, rtol=1e-4)
                stayed.append(torch.equal(mine, o))
        assert all(stayed) == (step == 4)


def test_the_momentum_is_the_paper_s_scaled_to_the_training_unless_set(make_dino):
    assert make_dino(steps=125_100).momentum == pytest.approx(0.996)
    assert make_dino(steps=300).momentum == base_momentum(300, 0.996, 125_100) < 0.93
    assert make_dino(teacher_momentum=0.5).momentum == 0.5


def test_the_prototypes_stay_in_the_first_share_of_the_training(make_dino, make_views, train):
    """Without a gradient, so that an optimiser with decay and moments passes over them."""
    method = make_dino(frozen=0.3)
    optimiser = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=0.01)
    first = method.head.prototypes.detach().clone()
    for step in range(5):
        train(method, lambda s: make_views(3, seed=s), 1, optimiser=optimiser, first=step)
        assert (method.head.prototypes.grad is None) == (step < 3)
        assert torch.equal(method.head.prototypes, first) == (step < 3)
    layers = method.head.embedding.layers
    assert all(p.grad is not None for p in layers.parameters())


def test_the_length_of_a_prototype_does_not_matter(make_dino, make_views):
    """Weight normalisation of magnitude 1: no prototype is favoured by its length."""
    method, batch = make_dino().eval(), make_views(3)
    before = method(batch, 0)
    with torch.no_grad():
        method.head.prototypes.mul_(torch.linspace(0.1, 9, K)[:, None])
    torch.testing.assert_close(method(batch, 0).loss, before.loss, atol=1e-5, rtol=0)
    told = method.head(method.network, batch.views[0])[1]
    assert told.abs().max() <= 1 + 1e-6


def test_koleo_is_added_for_each_global_view_on_its_own(make_dino, make_views):
    """The views of a volume are not to part, nor are local ones."""
    plain, spread, batch = make_dino().eval(), make_dino(koleo=0.1).eval(), make_views(3)
    result = spread(batch, 0)
    expected = sum(koleo_loss(plain.embed(view)) for view in batch.views[:2]) / 2
    torch.testing.assert_close(result.logs["koleo"], expected.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.loss, plain(batch, 0).loss + 0.1 * expected, atol=1e-5, rtol=1e-4)
    assert float(result.logs["kl"]) == pytest.approx(float(plain(batch, 0).logs["kl"]), rel=1e-4)
    assert "koleo" not in plain(batch, 0).logs


def test_T05_equal_volumes_have_a_finite_loss_and_gradient_with_koleo(make_dino, make_views, check_finite):
    batch = make_views(3, batch=1)
    same = Views(
        views=tuple(batch.views[0].expand(2, -1, -1, -1, -1) for _ in range(3)),
        maps=tuple(m.expand(2, 3, 4) for m in batch.maps), cases=("a", "b"),
    )  # fmt: skip
    flat = replace(same, views=tuple(torch.ones_like(v) for v in same.views))
    for views in (same, flat):
        check_finite(make_dino(koleo=0.1), views)


def test_T05_a_batch_of_one_is_looked_at_with_koleo(make_dino, make_views):
    """As when a run is watched; in training the head needs two volumes, which the views ask for."""
    result = make_dino(koleo=0.1).eval()(make_views(3, batch=1), 0)
    assert torch.isfinite(result.loss)
    assert result.logs["koleo"] == 0


def test_embeddings_are_unit_vectors_of_the_student(make_dino, make_views):
    method, view = make_dino().eval(), make_views(3).views[0]
    z = method.embed(view)
    assert z.shape == (3, 8)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3))
    with torch.no_grad():
        for p in method.teacher.parameters():
            p.zero_()
    assert torch.equal(method.embed(view), z)


def test_the_exported_network_is_the_teacher_s_and_the_trained_one_the_student_s(make_dino, make_views):
    method = make_dino()
    assert method.exported_network() is method.teacher
    assert method.exported_network() is not method.network
    assert reached_blocks(method, make_views(3)) == ("encoder", "decoder")


@pytest.mark.parametrize("blocks", [("encoder",), ("decoder.0",)])
def test_the_loss_reaches_the_chosen_blocks(make_dino, make_views, blocks):
    reached = ("encoder",) if blocks == ("encoder",) else ("encoder", "decoder.0")
    assert reached_blocks(make_dino(blocks=blocks), make_views(3)) == reached


def test_the_loss_of_the_same_output_for_everything_rests_at_the_logarithm_of_the_prototypes(make_dino):
    """Once the centre has followed it; whatever that output is, and whatever the temperatures are."""
    same = cosines(1, 1, 0).expand(2, 4, K)
    targets = dino_targets(same, same[0, 0], temperature=0.04)
    loss = dino_loss(torch.zeros(3, 4, K), targets, temperature=0.1)
    resting = make_dino().resting_loss()
    assert resting == math.log(K)
    assert (loss.item(), entropy(targets).item()) == pytest.approx((resting, resting), rel=1e-6)


def last_logs(results) -> dict[str, float]:
    """The means of what is logged in the last 5 steps."""
    logs = [result.logs for result in results[-5:]]
    return {name: float(sum(log[name] for log in logs)) / 5 for name in logs[0]}


def test_sharpening_without_centring_ends_on_one_prototype(make_dino, make_views, train):
    """Figure 7 of the paper: KL 0, and entropy 0. Of noise nothing else can be told."""
    method = make_dino(
        steps=1000, local_views=0, teacher_momentum=0.0, centre_momentum=1.0,
        first_teacher_temperature=0.005, teacher_temperature=0.005,
    )  # fmt: skip
    first = copy.deepcopy(method)(make_views(2), 0).logs
    logs = last_logs(train(method, lambda step: make_views(2, seed=step), 30, lr=0.02))
    assert first["kl"] > 1
    assert first["teacher_information"] > 1
    assert logs["kl"] < 0.05
    assert logs["teacher_entropy"] < 0.05
    assert logs["teacher_information"] < 0.02
    assert method.centre.abs().max() == 0


def test_centring_without_sharpening_ends_on_all_prototypes_alike(make_dino, make_views, train):
    """Figure 7 of the paper: KL 0, and entropy ln K."""
    method = make_dino(
        steps=1000, local_views=0, teacher_momentum=0.0, student_temperature=0.3,
        first_teacher_temperature=0.5, teacher_temperature=0.5,
    )  # fmt: skip
    first = copy.deepcopy(method)(make_views(2), 0).logs
    logs = last_logs(train(method, lambda step: make_views(2, seed=step), 30, lr=0.02))
    assert first["kl"] > 0.5
    assert first["teacher_entropy"] < 0.9 * math.log(K)
    assert logs["kl"] < 0.05
    assert logs["teacher_entropy"] > 0.98 * math.log(K)
    assert logs["teacher_information"] < 0.02


def test_with_both_views_of_a_volume_are_told_alike_and_volumes_apart(make_dino, train, noisy, grains):
    """As sure as after a collapse: it is the information that tells it from one."""

    def views(step: int, count=3) -> Views:
        return noisy(grains, 0.3, step, count)

    method = make_dino(steps=30, prototypes=32, dimension=64, hidden=32, teacher_momentum=0.8)
    first = copy.deepcopy(method)(views(0), 0).logs
    logs = last_logs(train(method, views, 30, lr=0.01))
    assert logs["kl"] < 0.2 * float(first["kl"])
    assert logs["teacher_information"] > 0.7 * math.log(4)
    method.eval()
    looks = [views(99 + look, 2).views for look in range(8)]
    one, other = (torch.stack([method.embed(look[v]) for look in looks]) for v in (0, 1))
    nearest = (one @ other.transpose(1, 2)).argmax(dim=2)
    assert (nearest == torch.arange(4)).float().mean() > 0.8


@pytest.mark.parametrize("between", [False, True])
def test_teacher_centre_and_schedules_return_exactly_in_the_middle_of_a_training(
    make_dino, make_views, train, between
):
    """Also from a state between a forward pass and the update, where outputs wait for the centre."""
    settings = {"teacher_temperature": 0.07, "frozen": 0.4, "koleo": 0.1}

    def steps(method: Dino, first: int, last: int) -> list[float]:
        batch_at, count = lambda step: make_views(3, seed=step), last - first
        results = train(method, batch_at, count, optimiser=sgd(method), first=first)
        return [float(result.loss) for result in results]

    whole = make_dino(**settings)
    steps(whole, 0, 3)
    if between:
        whole(make_views(3, seed=77), 3)
    resumed = make_dino(seed=1, **settings)
    assert not equal_states(whole, resumed)
    resumed.load_state_dict(whole.state_dict(), strict=True)
    assert equal_states(whole, resumed)
    assert (whole.rows > 0) == between
    assert steps(whole, 3, STEPS) == steps(resumed, 3, STEPS)
    assert equal_states(whole, resumed)
    assert whole.centre.norm() > 0
    assert not torch.equal(whole.teacher_head.prototypes, whole.head.prototypes)


def test_in_bfloat16_cosines_softmaxes_and_loss_stay_float32(make_dino, make_views):
    method, batch = make_dino(koleo=0.1), make_views(3)
    with torch.autocast("cpu", torch.bfloat16):
        result = method(batch, 0)
        z, told = method.head(method.network, batch.views[0])
    assert result.loss.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in result.logs.values())
    assert method.outputs.dtype == torch.float32
    # what was rounded to bfloat16 is off by up to 4e-3
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(told, z @ F.normalize(method.head.prototypes, dim=1).T, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "values",
    [
        {"prototypes": 1},
        {"local_views": -1},
        {"student_temperature": 0},
        {"teacher_temperature": 11},
        {"teacher_momentum": 1.0},
        {"centre_momentum": 1.1},
        {"frozen": -0.1},
        {"koleo": -1},
        {"center_momentum": 0.9},
    ],
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(DinoConfig, values, "options")
