"""The terms against plain loops over the paper's equations, their rest, and what a small batch allows."""

from dataclasses import replace

import pytest
import torch
from fewvox.data.settings import SettingsError, parse
from fewvox.ssl.methods import vicreg
from fewvox.ssl.methods.vicreg import Vicreg, VicregConfig, covariance, variance, vicreg_terms

CONFIG = VicregConfig(hidden=16, dimension=6)


def v(z) -> torch.Tensor:
    """Equations 1 and 2."""
    n, d = len(z), len(z[0])
    shortfalls = []
    for j in range(d):
        mean = sum(z[i][j] for i in range(n)) / n
        var = sum((z[i][j] - mean) ** 2 for i in range(n)) / (n - 1)
        shortfalls.append(torch.clamp(1 - torch.sqrt(var + 1e-4), min=0))
    return torch.stack(shortfalls).mean()


def c(z) -> torch.Tensor:
    """Equations 3 and 4."""
    n, d = len(z), len(z[0])
    mean = [sum(z[i][j] for i in range(n)) / n for j in range(d)]
    squares = []
    for j in range(d):
        for k in range(d):
            if j != k:
                entry = sum((z[i][j] - mean[j]) * (z[i][k] - mean[k]) for i in range(n)) / (n - 1)
                squares.append(entry**2)
    return torch.stack(squares).sum() / d


def s(first, second) -> torch.Tensor:
    """Equation 5."""
    n, d = len(first), len(first[0])
    squares = [(first[i][j] - second[i][j]) ** 2 for i in range(n) for j in range(d)]
    return torch.stack(squares).sum() / n


def by_loops(first, second, weights=(25.0, 25.0, 1.0)) -> torch.Tensor:
    """Equation 6, scaled as in the authors' code: s by the dimensions, v by the views."""
    d = first.shape[1]
    first, second = ([list(row) for row in z.double()] for z in (first, second))
    invariance, variance, covariance = weights
    return (
        invariance * s(first, second) / d
        + variance * (v(first) + v(second)) / 2
        + covariance * (c(first) + c(second))
    )


def weighted(terms, weights=(25.0, 25.0, 1.0)) -> torch.Tensor:
    invariance, variance, covariance = weights
    return invariance * terms["invariance"] + variance * terms["variance"] + covariance * terms["covariance"]


@pytest.fixture
def make_vicreg(fresh_method, make_scope):
    """The method on a fresh network; keywords replace settings."""

    def make(**fields) -> Vicreg:
        return fresh_method(Vicreg, replace(CONFIG, **fields), make_scope())

    return make


# deviations about 1: some dimensions vary enough and some do not
@pytest.mark.parametrize(("batch", "size"), [(2, 3), (3, 5), (6, 4)])
@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_loss_and_gradient_are_those_of_the_equations(vectors, batch, size, weights):
    inputs = vectors(batch, size, 0), vectors(batch, size, 1)
    found, expected = weighted(vicreg_terms(*inputs), weights), by_loops(*inputs, weights).float()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("weight", [25.0, 4.0])
def test_collapsed_embeddings_lose_what_the_variance_term_says(make_vicreg, weight):
    """Its hinge at a deviation of 0, where epsilon leaves 0.01; the other terms are 0."""
    same = torch.tensor([[0.5, -2.0, 7.0]]).expand(4, 3).requires_grad_()
    terms = vicreg_terms(same, same)
    values = {name: float(term.detach()) for name, term in terms.items()}
    assert values == {"invariance": 0, "variance": pytest.approx(0.99, rel=1e-6), "covariance": 0}
    resting = make_vicreg(variance=weight).resting_loss()
    assert resting == pytest.approx(0.99 * weight)
    assert resting == pytest.approx(weight * values["variance"], rel=1e-6)
    # and it is a rest: nothing pulls them apart again
    (gradient,) = torch.autograd.grad(weighted(terms), same)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() < 1e-5


def test_dimensions_that_vary_and_do_not_repeat_each_other_lose_nothing():
    spread = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    terms = vicreg_terms(spread, spread)
    assert {name: float(term) for name, term in terms.items()} == {
        "invariance": 0, "variance": 0, "covariance": 0
    }  # fmt: skip
    repeated = spread[:, [0, 0, 1]]
    # twice (4/3)^2, by 3 dimensions
    assert float(covariance(repeated)) == pytest.approx(2 * (4 / 3) ** 2 / 3)
    assert float(variance(repeated)) == 0


def test_where_embeddings_lie_does_not_matter(vectors):
    """Only how they differ: so they must not be made unit vectors."""
    inputs = [z.detach() for z in (vectors(4, 3, 0), vectors(4, 3, 1))]
    moved = [z + torch.tensor([3.0, -1.0, 8.0]) for z in inputs]
    torch.testing.assert_close(
        weighted(vicreg_terms(*moved)), weighted(vicreg_terms(*inputs)), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("batch", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_the_covariance_of_few_volumes_is_never_small_in_many_dimensions(vectors, batch, seed):
    """Rank N - 1: at least D / (N - 1) - 1 where every dimension has a deviation of 1."""
    z = vectors(batch, 16, seed).detach().double()
    z = (z - z.mean(dim=0)) / z.std(dim=0)
    least = 16 / (batch - 1) - 1
    assert float(covariance(z)) >= least - 1e-4
    if batch == 2:
        # of rank 1 all are as bad
        assert float(covariance(z)) == pytest.approx(least, rel=1e-4)
    assert float(covariance(0.5 * z)) == pytest.approx(0.5**4 * float(covariance(z)), rel=1e-4)


@pytest.mark.parametrize(("dimensions", "grows"), [(4, True), (5, False)])
def test_four_dimensions_for_each_volume_but_one_are_the_most(dimensions, grows):
    """Above, the covariance term is the stronger one at the deviation that the variance term asks for."""
    signs = torch.ones(dimensions)
    scale = torch.tensor(0.99, requires_grad=True)
    z = scale * torch.stack([signs, -signs]) / 2**0.5
    terms = vicreg_terms(z, z)
    (slope,) = torch.autograd.grad(25 * terms["variance"] + terms["covariance"], scale)
    assert (float(slope) < 0) == grows


def test_the_loss_is_the_weighted_sum_of_what_is_logged(make_vicreg, make_views):
    weights = (3.0, 5.0, 0.5)
    method, batch = make_vicreg(invariance=3.0, variance=5.0, covariance=0.5), make_views()
    first, second = method.embed(*batch.views).chunk(2)
    result = method(batch, 0)
    torch.testing.assert_close(result.loss, by_loops(first, second, weights).float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.loss, weighted(result.logs, weights))
    torch.testing.assert_close(result.embeddings, first, atol=1e-5, rtol=0)
    swapped = method(replace(batch, views=batch.views[::-1]), 0)
    torch.testing.assert_close(result.loss, swapped.loss, atol=1e-5, rtol=1e-5)


def test_two_processes_are_one_with_the_batch_of_both(make_vicreg, make_views, two_as_one):
    losses, together = two_as_one(vicreg, make_vicreg(), make_views(batch=4))
    assert losses == pytest.approx([together] * 2, rel=1e-5)


def test_volumes_of_other_processes_count(make_vicreg, make_views, monkeypatch):
    method, batch = make_vicreg(), make_views()
    first, second = (torch.cat([z, 2 * z]) for z in method.embed(*batch.views).chunk(2))
    monkeypatch.setattr(vicreg, "gathered", lambda z: torch.cat([z, 2 * z]))
    torch.testing.assert_close(method(batch, 0).loss, by_loops(first, second).float(), atol=1e-5, rtol=1e-4)


def test_mixed_precision_does_not_touch_the_loss(vectors):
    z = vectors(4, 16, 0)
    plain = vicreg_terms(z, z.flip(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = vicreg_terms(z, z.flip(0))
    assert all(torch.equal(plain[name], mixed[name]) for name in plain)


def test_a_few_steps_make_views_agree_and_volumes_differ(train_by_name):
    results = train_by_name("vicreg")
    # four volumes in 16 dimensions cannot lose less than 8.2
    assert 8.1 < sum(float(result.loss) for result in results[-5:]) / 5 < 16
    assert results[-1].logs["variance"] < results[0].logs["variance"]


@pytest.mark.parametrize(
    "values", [{"variance": 0}, {"invariance": -1}, {"covariance": -1}, {"dimension": 1}, {"margin": 0.2}]
)
def test_settings_beyond_their_limits_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(VicregConfig, values, "options")
