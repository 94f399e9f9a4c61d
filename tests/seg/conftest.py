"""Plans, networks and runs as small as they come, for the tests of the seg floor."""

from dataclasses import replace
from pathlib import Path

import pytest
from fewvox.data.labels import LabelTable
from fewvox.data.plan import Plan, Preprocessing, Training
from fewvox.seg import checkpoint
from fewvox.seg.checkpoint import CheckpointInfo
from fewvox.seg.networks.registry import architecture_for, build

PLAN = Plan(
    preprocessing=Preprocessing(
        unit="mm",
        spacing=(2.0, 1.0, 1.0),
        orientation="RAS",
        channels=("channel0",),
        normalisation=("zscore",),
    ),
    labels=LabelTable(values=(0, 1, 2)),
    training=Training(patch=(4, 8, 8), strides=((1, 2, 2),), width=2),
)


@pytest.fixture
def make_plan():
    """A small plan; keywords replace fields of its parts."""

    def make(*, labels=PLAN.labels, **fields):
        parts = {"preprocessing": PLAN.preprocessing, "training": PLAN.training}
        for name, value in fields.items():
            part = "training" if hasattr(PLAN.training, name) else "preprocessing"
            parts[part] = replace(parts[part], **{name: value})
        return replace(PLAN, labels=labels, **parts)

    return make


@pytest.fixture
def make_info():
    """What a checkpoint of a plan's network says of itself; keywords replace fields."""

    def make(plan=PLAN, **fields) -> CheckpointInfo:
        info = CheckpointInfo(
            architecture=architecture_for(plan),
            plan=plan,
            method="supervised",
            trained=("encoder", "decoder", "output"),
            steps=7,
            seed=0,
            trained_on=("a" * 64,),
            validated_on=(),
        )
        return replace(info, **fields)

    return make


@pytest.fixture
def make_run(tmp_path, make_info):
    """A run folder with one checkpoint of an untrained network."""

    def make(name="run", plan=PLAN, seed=0, **fields) -> Path:
        info = make_info(plan, **fields)
        checkpoint.save(tmp_path / name, build(info.architecture, seed), info, {}, None)
        return tmp_path / name

    return make
