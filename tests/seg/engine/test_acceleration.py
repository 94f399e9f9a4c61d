"""The same, computed in another way."""

import copy

import pytest
import torch
from fewvox.data.loader import PatchBatch
from fewvox.seg.engine.acceleration import accelerate
from fewvox.seg.networks.registry import architecture_for, build
from fewvox.seg.supervised import Supervised
from torch import nn

WAYS = ("checkpointing", "compiled", "channels_last")


@pytest.fixture
def batch():
    images = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return PatchBatch(images=images, labels=(images[:, 0] > 0).long(), cases=("a", "b"))


@pytest.fixture
def trained(make_plan, batch, monkeypatch):
    """A task after one step in some way, with its loss."""
    compiled = nn.Module.compile
    # no code is generated, which would take longer than all else
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled(self, backend="eager"))

    def train(*ways):
        task = Supervised(build(architecture_for(make_plan()), 0))
        task.network.checkpointing = False
        accelerate(task, task.network, **{way: way in ways for way in WAYS})
        loss = task(batch, 0).loss
        loss.backward()
        return task, float(loss.detach())

    return train


@pytest.mark.parametrize("way", WAYS)
def test_each_way_gives_the_same_loss_gradients_and_names(trained, way):
    (plain, loss), (task, found) = trained(), trained(way)
    assert found == pytest.approx(loss, rel=1e-5)
    assert list(task.state_dict()) == list(plain.state_dict())
    for a, b in zip(task.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-5)


def test_a_compiled_task_is_copied_as_one_that_is_not(trained, batch):
    task, _ = trained("compiled")
    copied = copy.deepcopy(task)
    copied(batch, 0).loss.backward()
    assert list(copied.state_dict()) == list(task.state_dict())


def test_channels_last_is_the_layout_of_the_features(trained, batch):
    task, _ = trained("channels_last")
    features = task.network.encoder[0][0][0](batch.images)
    assert features.is_contiguous(memory_format=torch.channels_last_3d)
