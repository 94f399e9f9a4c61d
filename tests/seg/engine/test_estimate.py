"""Estimates that leave the training as it was."""

import copy

import pytest
import torch
from fewvox.data.loader import PatchBatch
from fewvox.seg.engine.estimate import seconds_per_step, training_bytes
from fewvox.seg.engine.precision import Precision
from fewvox.seg.networks.registry import NETWORKS, architecture_for, build
from fewvox.seg.supervised import Supervised
from torch import nn


def test_the_estimate_leaves_the_task_untouched(make_plan):
    plan = make_plan()
    task = Supervised(build(architecture_for(plan), 0)).eval()
    before = copy.deepcopy(task.state_dict())
    batch = PatchBatch(
        images=torch.randn(2, 1, 4, 8, 8), labels=torch.zeros(2, 4, 8, 8, dtype=torch.long), cases=("a", "b")
    )
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    for precision in ("float32", "bfloat16"):
        assert seconds_per_step(task, batch, Precision(precision, torch.device("cpu"))) > 0
    training_bytes(task.network, 2, 1, (4, 8, 8))
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(before[key], value) for key, value in task.state_dict().items())
    assert all(p.grad is None for p in task.parameters())
    assert not task.training
    assert all(p.device.type == "cpu" for p in task.parameters())


# one EfficientNet for all
@pytest.mark.parametrize("name", [n for n in NETWORKS if n[-1] not in "1234"])
def test_memory_grows_with_the_batch_by_the_activations(make_plan, name):
    network = build(architecture_for(make_plan(), name), 0)
    one, two, four = (training_bytes(network, batch, 1, (8, 16, 16)) for batch in (1, 2, 4))
    weights = 4 * sum(p.numel() * 4 for p in network.parameters())
    assert four - two > 1.5 * (two - one)
    # the first level alone keeps two activations of two features at full extent
    assert one > weights + 2 * 2 * 8 * 16 * 16 * 4
    assert two - one < one


def test_every_kept_activation_is_counted_once():
    """A sigmoid keeps its output for the backward pass, and nothing else."""
    short, long = (nn.Sequential(nn.Conv3d(1, 4, 1), *(nn.Sigmoid() for _ in range(n))) for n in (2, 5))
    more = training_bytes(long, 2, 1, (3, 5, 7)) - training_bytes(short, 2, 1, (3, 5, 7))
    assert more == 3 * (2 * 4 * 3 * 5 * 7) * 4


def test_memory_grows_with_the_patch(make_plan):
    network = build(architecture_for(make_plan()), 0)
    assert training_bytes(network, 1, 1, (8, 32, 32)) > 2 * training_bytes(network, 1, 1, (8, 16, 16))
