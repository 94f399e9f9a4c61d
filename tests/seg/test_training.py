"""What a training is told to take before it starts, and which memory it keeps."""

import pytest
import torch
from fewvox.data.loader import PatchBatch
from fewvox.seg import training
from fewvox.seg.finetune import FinetuneConfig, resolved_config
from fewvox.seg.networks.registry import architecture_for, build
from fewvox.seg.supervised import Supervised


@pytest.fixture
def told(make_plan, monkeypatch):
    """The estimate of a training of ten steps, where a step takes as long as was set."""
    plan = make_plan()
    network = build(architecture_for(plan), 0)
    batch = PatchBatch(
        images=torch.zeros(2, 1, *plan.training.patch),
        labels=torch.zeros(2, *plan.training.patch, dtype=torch.long),
        cases=("a", "b"),
    )

    def estimate(*seconds: float, **settings) -> training.Estimate:
        left = iter(seconds)
        monkeypatch.setattr(training, "seconds_per_step", lambda *_: next(left))
        config = resolved_config(FinetuneConfig(steps=10, device="cpu", **settings), plan, 1)
        found = training.estimate(Supervised(network), network, batch, config)
        assert next(left, None) is None
        return found

    monkeypatch.setattr(training, "can_keep", lambda: True)
    return estimate


def test_memory_is_kept_where_a_trial_says_that_it_helps(told):
    found = told(3.0, 2.0)
    assert found.keep_memory
    assert found.seconds == 20
    assert "0.67 times as long with memory kept between steps: kept" in found.line()


def test_memory_is_given_back_where_keeping_it_does_not_help(told):
    found = told(2.0, 3.0)
    assert not found.keep_memory
    assert found.seconds == 20
    assert "1.50 times as long with memory kept between steps: not kept" in found.line()


@pytest.mark.parametrize("keep", [True, False])
def test_who_says_what_is_done_needs_no_trial(told, keep):
    found = told(2.0, keep_memory=keep)
    assert found.keep_memory is keep
    assert found.trial is None
    assert "memory kept" not in found.line()


def test_another_c_library_is_not_tried(told, monkeypatch):
    monkeypatch.setattr(training, "can_keep", lambda: False)
    found = told(2.0)
    assert (found.keep_memory, found.trial) == (False, None)
