"""NT-Xent against plain loops and against torch's cross entropy, what it rests at, and what it reaches."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fewvox.data.settings import SettingsError, parse
from fewvox.ssl.methods import simclr
from fewvox.ssl.methods.simclr import Simclr, SimclrConfig, nt_xent

CONFIG = SimclrConfig(hidden=16, dimension=8)


def by_loops(first, second, temperature: float) -> torch.Tensor:
    """Equation 1 for every ordered pair, with the cosine in it, and the mean of all 2N."""

    def sim(u, v):
        return (
            sum(a * b for a, b in zip(u, v, strict=True))
            / (sum(a * a for a in u) * sum(b * b for b in v)) ** 0.5
        )

    z = [list(row) for row in (*first.double(), *second.double())]
    losses = []
    for i in range(len(z)):
        j = (i + len(first)) % len(z)
        above = torch.exp(sim(z[i], z[j]) / temperature)
        below = sum(torch.exp(sim(z[i], z[k]) / temperature) for k in range(len(z)) if k != i)
        losses.append(-torch.log(above / below))
    return torch.stack(losses).mean()


def by_cross_entropy(first, second, temperature: float) -> torch.Tensor:
    """torch's, on the similarities of each view to every other, its pair put first."""
    z, rows = [*first, *second], []
    for i in range(len(z)):
        j = (i + len(first)) % len(z)
        others = [j, *(k for k in range(len(z)) if k not in (i, j))]
        rows.append(torch.stack([F.cosine_similarity(z[i], z[k], dim=0) / temperature for k in others]))
    return F.cross_entropy(torch.stack(rows), torch.zeros(len(z), dtype=torch.long))


@pytest.fixture
def make_simclr(fresh_method, make_scope):
    """The method on a fresh network; keywords replace settings."""

    def make(**fields) -> Simclr:
        return fresh_method(Simclr, replace(CONFIG, **fields), make_scope())

    return make


@pytest.mark.parametrize("reference", [by_loops, by_cross_entropy])
@pytest.mark.parametrize(("batch", "temperature"), [(1, 0.5), (2, 0.1), (3, 0.5), (4, 1.7)])
def test_loss_and_gradient_are_those_of_the_formula(vectors, reference, batch, temperature):
    inputs = vectors(batch, 5, 0), vectors(batch, 5, 1)
    units = (F.normalize(z, dim=1) for z in inputs)
    found, _ = nt_xent(*units, temperature=temperature)
    expected = reference(*inputs, temperature).float()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("volumes", [2, 3, 8])
def test_collapsed_embeddings_lose_what_a_guess_does(make_simclr, make_scope, volumes, temperature):
    same = F.normalize(torch.ones(volumes, 4), dim=1)
    loss, _ = nt_xent(same, same, temperature=temperature)
    assert float(loss) == pytest.approx(math.log(2 * volumes - 1), rel=1e-5)
    method = make_simclr()
    method.scope = make_scope(batch=volumes)
    assert method.resting_loss() == pytest.approx(float(loss), rel=1e-5)


def test_a_guess_is_among_the_views_of_all_processes(make_simclr, monkeypatch):
    monkeypatch.setattr(simclr, "processes", lambda: 2)
    assert make_simclr().resting_loss() == pytest.approx(math.log(11))


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_volumes_that_are_told_apart_still_lose_a_little(temperature):
    """Cosine 1 with the pair, 0 with all others; were a view its own candidate, it would be ln 2 at least."""
    loss, found = nt_xent(torch.eye(3), torch.eye(3), temperature=temperature)
    near = math.exp(1 / temperature)
    assert float(loss) == pytest.approx(-math.log(near / (near + 4)), rel=1e-4, abs=1e-6)
    assert float(found) == 1


def test_swapped_pairs_are_not_found():
    loss, found = nt_xent(torch.eye(2), torch.eye(2).flip(0), temperature=0.5)
    assert float(loss) == pytest.approx(math.log(2 + math.exp(2)), rel=1e-5)
    assert float(found) == 0


def test_the_loss_is_over_both_views_of_the_batch(make_simclr, make_views):
    method, batch = make_simclr(temperature=0.3), make_views()
    first, second = method.embed(*batch.views).chunk(2)
    result = method(batch, 0)
    torch.testing.assert_close(result.loss, by_loops(first, second, 0.3).float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.embeddings, first, atol=1e-5, rtol=0)
    swapped = method(replace(batch, views=batch.views[::-1]), 0)
    torch.testing.assert_close(result.loss, swapped.loss, atol=1e-6, rtol=1e-5)


def test_two_processes_are_one_with_the_batch_of_both(make_simclr, make_views, two_as_one):
    losses, together = two_as_one(simclr, make_simclr(), make_views(batch=4))
    assert losses == pytest.approx([together] * 2, rel=1e-5)


def test_volumes_of_other_processes_are_negatives(make_simclr, make_views, monkeypatch):
    """Here another process holds the same volumes: each view has two pairs to be torn between."""
    method, batch = make_simclr(), make_views()
    first, second = method.embed(*batch.views).chunk(2)
    expected, _ = nt_xent(torch.cat([first, first]), torch.cat([second, second]), temperature=0.5)
    monkeypatch.setattr(simclr, "gathered", lambda z: torch.cat([z, z]))
    torch.testing.assert_close(method(batch, 0).loss, expected, atol=1e-5, rtol=1e-5)


def test_mixed_precision_does_not_touch_the_softmax(vectors):
    z = F.normalize(vectors(4, 64, 0), dim=1)
    plain, _ = nt_xent(z, z.flip(1), temperature=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = nt_xent(z, z.flip(1), temperature=0.05)
    assert mixed.dtype == torch.float32
    assert torch.equal(plain, mixed)


def test_embeddings_are_unit_vectors_of_single_precision(make_simclr, make_views):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = make_simclr().embed(make_views().views[0])
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3))


def test_a_few_steps_find_the_pairs(train_by_name):
    last = train_by_name("simclr", steps=40)[-5:]
    # four volumes at the corners of a tetrahedron, the best there is, lose 0.35
    assert 0.34 < sum(float(result.loss) for result in last) / 5 < 0.5
    assert all(result.logs["pairs_found"] == 1 for result in last)


@pytest.mark.parametrize("values", [{"temperature": 0}, {"dimension": 1}, {"hidden": 0}, {"tau": 0.1}])
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(SimclrConfig, values, "options")
