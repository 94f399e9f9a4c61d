"""A training step beside nnU-Net's: what is measured of ours, and what is told where nnU-Net is not there."""

from dataclasses import replace

import pytest
from fewvox.data.labels import LabelTable
from fewvox.experiments.bench import training_steps
from fewvox.experiments.bench.training_steps import (
    StepSizes,
    Taken,
    Trained,
    nnunet_steps,
    our_steps,
    parameters,
    plan_of,
    seconds_of,
    step_figures,
)
from fewvox.seg.finetune import FinetuneConfig, resolved_config
from fewvox.seg.networks.registry import architecture_for

SIZES = StepSizes(patch=(8, 8, 8), strides=((2, 2, 2),), width=4, batch=1, steps=2)


def test_figures_are_medians_over_processes_and_theirs_over_ours(monkeypatch):
    taken = {
        our_steps: iter([Taken(seconds=s, peak_bytes=100) for s in (9.0, 1.0, 2.0)]),
        nnunet_steps: iter([Taken(seconds=s, peak_bytes=300) for s in (3.0, 30.0, 4.0)]),
    }
    order = []

    def apart(steps, sizes):
        order.append(steps)
        return next(taken[steps])

    monkeypatch.setattr(training_steps, "_apart", apart)
    monkeypatch.setattr(training_steps, "find_spec", lambda name: object())
    step, memory = step_figures(3, SIZES)
    assert (step.key, step.ratio) == ("step_vs_nnunet", pytest.approx(2))
    assert (memory.key, memory.ratio) == ("memory_vs_nnunet", pytest.approx(3))
    assert order == [our_steps, nnunet_steps] * 3


def test_without_nnunet_ours_alone_is_measured_and_it_is_told_how_to_install_it(monkeypatch):
    monkeypatch.setattr(training_steps, "_apart", lambda steps, sizes: steps(sizes))
    monkeypatch.setattr(training_steps, "find_spec", lambda name: None)
    figures = step_figures(1, SIZES)
    assert [figure.key for figure in figures] == ["step_vs_nnunet", "memory_vs_nnunet"]
    for figure in figures:
        assert figure.ours > 0
        assert figure.ratio is None
        assert "pip install --no-deps nnunetv2" in (figure.missing or "")


def test_the_network_is_nnunets_plan_for_cubes_of_64():
    assert 16.4e6 < parameters(architecture_for(plan_of(StepSizes()))) < 16.6e6


@pytest.mark.parametrize("kind", ["classes", "overlapping"])
def test_a_network_is_measured_as_it_was_trained(kind):
    """In a process of its own, to which it is sent: two channels, three classes, two batches in a step."""
    plan = plan_of(SIZES)
    how = replace(plan.preprocessing, channels=("a", "b"), normalisation=("zscore", "zscore"))
    plan = replace(plan, preprocessing=how, labels=LabelTable(kind=kind, values=(0, 1, 2)))
    config = resolved_config(FinetuneConfig(steps=10, device="cpu", accumulate=2), plan, 1)
    trained = Trained(architecture=architecture_for(plan, "residual_unet"), plan=plan, config=config)
    assert seconds_of({"a": trained}, 1)["a"] > 0
