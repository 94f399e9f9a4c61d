"""Which optimiser `auto` is, and which parameters decay."""

import pytest
import torch
from fewvox.seg.engine.lars import LARS
from fewvox.seg.engine.optimisers import OptimiserConfig, build_optimiser, resolved
from torch import nn


def build(module, config):
    """The optimiser with a block for each parameter."""
    return build_optimiser(module, config, lambda name: name)


@pytest.mark.parametrize(
    ("steps", "name", "lr", "decay"),
    [(9_999, "adamw", 3e-3, 1e-2), (10_000, "sgd", 1e-2, 3e-5)],
)
def test_auto_is_adamw_for_a_short_training_and_sgd_for_a_long_one(steps, name, lr, decay):
    found = resolved(OptimiserConfig(), steps)
    assert (found.name, found.lr, found.weight_decay) == (name, lr, decay)


def test_what_the_user_chose_stays():
    chosen = OptimiserConfig(name="sgd", lr=0.5, weight_decay=0.0, momentum=0.0)
    assert resolved(chosen, 10) == chosen


def test_norms_and_biases_are_not_decayed():
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.InstanceNorm3d(2, affine=True))
    optimiser = build(network, resolved(OptimiserConfig(weight_decay=0.1), 10))
    decays = {p: g["weight_decay"] for g in optimiser.param_groups for p in g["params"]}
    assert {n: decays[p] for n, p in network.named_parameters()} == {
        "0.weight": 0.1, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0
    }  # fmt: skip


def test_each_group_holds_the_parameters_of_one_block():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimiser = build_optimiser(network, resolved(OptimiserConfig(), 10), lambda name: name[0])
    found = {id(p): g["block"] for g in optimiser.param_groups for p in g["params"]}
    assert {name: found[id(p)] for name, p in network.named_parameters()} == {
        "0.weight": "0", "0.bias": "0", "1.weight": "1", "1.bias": "1"
    }  # fmt: skip


def test_frozen_parameters_are_left_out():
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    groups = build(network, resolved(OptimiserConfig(), 10)).param_groups
    assert sum(len(g["params"]) for g in groups) == 1


@pytest.mark.parametrize(
    ("name", "kind", "nesterov"),
    [("adamw", torch.optim.AdamW, None), ("sgd", torch.optim.SGD, True), ("lars", LARS, None)],
)
def test_the_name_decides_the_class(name, kind, nesterov):
    optimiser = build(nn.Linear(2, 2), resolved(OptimiserConfig(name=name), 10))
    assert type(optimiser) is kind
    assert optimiser.defaults.get("nesterov") is nesterov


def test_an_unresolved_configuration_is_refused():
    with pytest.raises(ValueError, match="resolve"):
        build(nn.Linear(2, 2), OptimiserConfig())


@pytest.mark.parametrize(("name", "momentum"), [("adamw", 0.9), ("sgd", 0.99), ("lars", 0.9)])
def test_each_has_its_own_momentum(name, momentum):
    assert resolved(OptimiserConfig(name=name), 10).momentum == momentum
    assert resolved(OptimiserConfig(name=name, momentum=0.5), 10).momentum == 0.5


def test_lars_adapts_weights_and_leaves_norms_and_biases_whatever_the_decay():
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.InstanceNorm3d(2, affine=True))
    optimiser = build(network, resolved(OptimiserConfig(name="lars", weight_decay=0.0), 10))
    adapted = {p: g["adapted"] for g in optimiser.param_groups for p in g["params"]}
    assert {n: adapted[p] for n, p in network.named_parameters()} == {
        "0.weight": True, "0.bias": False, "1.weight": False, "1.bias": False
    }  # fmt: skip
