"""KoLeo against plain loops, and what it does where points have no neighbour or one in the same place."""

import math

import pytest
import torch
import torch.nn.functional as F
from fewvox.ssl.koleo import APART, koleo_loss


def unit(points: int, size: int, seed: int = 0) -> torch.Tensor:
    z = torch.randn(points, size, generator=torch.Generator().manual_seed(seed))
    return F.normalize(z, dim=1)


def by_loops(points: list[list[float]]) -> tuple[float, list[list[float]]]:
    """Value and gradient, from squared distances alone."""
    count, value = len(points), 0.0
    gradient = [[0.0] * len(points[0]) for _ in points]
    for i, point in enumerate(points):
        squared, nearest = min(
            (sum((a - b) ** 2 for a, b in zip(point, other, strict=True)), j)
            for j, other in enumerate(points)
            if j != i
        )
        value -= 0.5 * math.log(squared + APART**2) / count
        for axis, (a, b) in enumerate(zip(point, points[nearest], strict=True)):
            pull = (a - b) / (squared + APART**2) / count
            gradient[i][axis] -= pull
            gradient[nearest][axis] += pull
    return value, gradient


@pytest.mark.parametrize(("points", "size"), [(2, 3), (5, 3), (17, 8)])
def test_value_and_gradient_are_those_of_plain_loops(points, size):
    z = unit(points, size).requires_grad_()
    loss = koleo_loss(z)
    loss.backward()
    value, gradient = by_loops(z.tolist())
    assert loss.shape == ()
    assert float(loss.detach()) == pytest.approx(value, rel=1e-5)
    torch.testing.assert_close(z.grad, torch.tensor(gradient), atol=1e-5, rtol=1e-4)


def test_apart_points_lose_minus_the_log_of_the_nearest_distance():
    """As the paper has it: what is added to distances does not show."""
    near = torch.tensor([math.cos(0.5), math.sin(0.5)])
    points = torch.stack([torch.tensor([1.0, 0.0]), near, torch.tensor([-1.0, 0.0])])
    chord = 2 * math.sin(0.25)
    farther = 2 * math.sin((math.pi - 0.5) / 2)
    expected = -(2 * math.log(chord) + math.log(farther)) / 3
    assert float(koleo_loss(points)) == pytest.approx(expected, rel=1e-5)


def test_points_that_spread_lose_less_than_crowded_ones():
    crowded = F.normalize(torch.tensor([[1.0, 0.0, 0.0]]) + 0.1 * unit(6, 3), dim=1)
    assert koleo_loss(torch.cat([torch.eye(3), -torch.eye(3)])) < koleo_loss(unit(6, 3)) < koleo_loss(crowded)


def test_a_few_steps_part_a_crowd():
    """Also one within the distance that counts as none."""
    z = (torch.tensor([[1.0, 0.0, 0.0]]) + 1e-4 * unit(6, 3)).requires_grad_()
    optimiser = torch.optim.Adam([z], lr=0.1)
    for _ in range(30):
        loss = koleo_loss(F.normalize(z, dim=1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    cosines = F.cosine_similarity(z[:, None], z[None], dim=-1).fill_diagonal_(-1)
    assert cosines.max() < 0.8


@pytest.mark.parametrize("points", [unit(1, 4), unit(1, 4).expand(5, 4), torch.cat([unit(3, 4)] * 2)])
def test_T05_a_batch_of_one_and_equal_points_have_a_finite_loss_and_gradient(points):
    z = points.clone().requires_grad_()
    loss = koleo_loss(z)
    loss.backward()
    assert torch.isfinite(loss)
    assert z.grad is not None
    assert z.grad.abs().max() == 0
    assert float(loss.detach()) == pytest.approx(0.0 if len(points) == 1 else -math.log(APART), rel=1e-6)


def test_T05_nearly_equal_points_have_a_bounded_gradient():
    """Plainly, it would be one over their distance."""
    for apart in (1e-7, 1e-5, 1e-3):
        z = torch.tensor([[1.0, 0.0], [1.0, apart]], requires_grad=True)
        koleo_loss(z).backward()
        assert 0 < z.grad.norm() < 1 / APART


def test_what_is_not_finite_is_not_hidden():
    assert torch.isnan(koleo_loss(torch.tensor([[1.0, 0.0], [math.nan, 0.0]])))
    assert torch.isnan(koleo_loss(torch.tensor([[math.nan, 0.0]])))


def test_neighbours_are_found_in_float32_whatever_the_autocast():
    """In bfloat16, cosines of 0.999 and 0.9999 are one."""
    angles = torch.tensor([0.0, 0.03, 0.05, 0.09])
    points = torch.stack([angles.cos(), angles.sin()], dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = koleo_loss(points)
    assert torch.equal(found, koleo_loss(points))
    assert float(found) == pytest.approx(by_loops(points.tolist())[0], rel=1e-4)
