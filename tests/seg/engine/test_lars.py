"""LARS against plain loops over its algorithm."""

import copy
import math

import pytest
import torch
from fewvox.seg.engine.lars import LARS
from torch import nn

TRUST = 0.01


def by_loops(weight, gradients, lr, momentum, decay, adapted, trust=TRUST) -> list[float]:
    """You et al. 2017, algorithm 1, on a flat list of numbers."""
    velocity = [0.0] * len(weight)
    for gradient in gradients:
        size, slope = (math.sqrt(sum(v * v for v in values)) for values in (weight, gradient))
        local = trust * size / (slope + decay * size) if size and slope else 1.0
        if not adapted:
            local = 1.0
        velocity = [
            momentum * v + local * (g + decay * w) for v, g, w in zip(velocity, gradient, weight, strict=True)
        ]
        weight = [w - lr * v for w, v in zip(weight, velocity, strict=True)]
    return weight


@pytest.mark.parametrize(("decay", "adapted"), [(0.0, True), (0.1, True), (0.0, False)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_are_those_of_the_paper(momentum, decay, adapted):
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 2, generator=generator, dtype=torch.float64))
    gradients = torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)
    expected = by_loops(
        weight.detach().flatten().tolist(), gradients.flatten(1).tolist(), 0.3, momentum, decay, adapted
    )
    optimiser = LARS([weight], 0.3, momentum=momentum, weight_decay=decay, trust=TRUST, adapted=adapted)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimiser.step()
    torch.testing.assert_close(weight.detach().flatten().tolist(), expected, rtol=1e-12, atol=0)


def test_a_step_has_the_size_of_the_weight_whatever_that_of_the_gradient():
    moved = []
    for scale in (1e-6, 1.0, 1e6):
        weight = nn.Parameter(torch.ones(10, 10))
        weight.grad = torch.full((10, 10), scale)
        LARS([weight], 0.5, weight_decay=1e-9, trust=TRUST).step()
        moved.append(float((weight.detach() - 1).norm() / 10))
    assert moved == pytest.approx([0.5 * TRUST] * 3, rel=1e-4)


def test_weights_and_gradients_of_zero_are_moved_as_by_sgd():
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    LARS([weight], 0.5, weight_decay=0.1, trust=TRUST).step()
    assert weight.detach().tolist() == [[-0.5, -0.5], [-0.5, -0.5]]
    still = nn.Parameter(torch.ones(2, 2))
    still.grad = torch.zeros(2, 2)
    LARS([still], 0.5, weight_decay=0.1, trust=TRUST).step()
    assert torch.isfinite(still).all()


def test_the_gradient_is_left_as_it_was():
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    LARS([weight], 0.5, weight_decay=0.1).step()
    assert weight.grad.tolist() == [[1, 1], [1, 1]]


def test_its_state_makes_a_round_trip():
    weights = [nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    first, second = (LARS([w], 0.1, weight_decay=0.1) for w in weights)
    weights[0].grad = torch.full((2, 2), 0.3)
    first.step()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.no_grad():
        weights[1].copy_(weights[0])
    weights[1].grad = weights[0].grad.clone()
    first.step()
    second.step()
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    "settings", [{"lr": -1}, {"lr": 1, "momentum": 1}, {"lr": 1, "weight_decay": -1}, {"lr": 1, "trust": 0}]
)
def test_settings_beyond_their_limits_are_refused(settings):
    with pytest.raises(ValueError, match="lr"):
        LARS([nn.Parameter(torch.ones(1))], **settings)
