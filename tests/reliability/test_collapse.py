"""T06: a representation that collapses is recognised, the run is marked, and nothing is concluded from it."""

import json
import shutil
from dataclasses import replace

import pytest
from fewvox.experiments.compare import run_comparison
from fewvox.experiments.comparison import Arm, ComparisonConfig
from fewvox.seg import checkpoint
from fewvox.seg.engine.optimisers import OptimiserConfig
from fewvox.seg.engine.tracking import read_metrics
from fewvox.ssl.collapse import COLLAPSE_FILE, Collapse, read_collapse
from fewvox.ssl.pretrain import PretrainConfig, pretrain

CASES = tuple(f"c{i:02}" for i in range(8))
TRIPLET = PretrainConfig(
    method="triplet", options={"hidden": 16, "dimension": 8}, steps=40, validate_every=20,
    checkpoint_every=40, patch=(8, 16, 8), width=4, batch=4, device="cpu", monitor_volumes=4
)  # fmt: skip
PATCH = [8, 16, 8]
SHORT = {"steps": 2, "batch": 2, "patch": PATCH, "device": "cpu"}


def test_T06_a_rate_that_is_a_thousand_times_too_high_is_recognised(tiny_store, tmp_path):
    told = []
    config = replace(TRIPLET, optimizer=OptimiserConfig(lr=1.0))
    made = pretrain(tiny_store, CASES, tmp_path / "run", config, announce=told.append)
    assert made.collapse is not None
    assert made.collapse == read_collapse(tmp_path / "run")
    assert "optimizer.lr" in made.collapse.remedy
    assert told[-1] == f"warning: {made.collapse.line()}"
    # within a number of steps that is stated: at the next look at the embeddings
    looks = [line for line in read_metrics(tmp_path / "run") if "monitor/effective_rank" in line]
    assert looks[0]["step"] == 19
    assert looks[0]["monitor/collapsed"] == looks[-1]["monitor/collapsed"] == 1
    assert checkpoint.load(tmp_path / "run").info.scores["collapsed"] == 1
    assert "| collapsed | 1.0000 |" in (tmp_path / "run/README.md").read_text()


def test_T06_a_training_that_learns_is_not_marked(tiny_store, tmp_path):
    made = pretrain(tiny_store, CASES, tmp_path / "run", TRIPLET)
    assert made.collapse is None
    assert "collapsed" not in made.scores
    assert json.loads((tmp_path / "run" / COLLAPSE_FILE).read_text()) is None


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        # no centre, and a teacher that is all but certain of what it has just heard: one prototype for all
        (
            {
                "centre_momentum": 1.0,
                "teacher_temperature": 0.005,
                "first_teacher_temperature": 0.005,
                "teacher_momentum": 0.0,
            },
            "sharpening",
        ),
        # a teacher that is not sharpened at all: every prototype alike
        ({"teacher_temperature": 5.0, "first_teacher_temperature": 5.0}, "centring"),
    ],
)
def test_T06_a_teacher_that_says_the_same_of_every_view_is_recognised(tiny_store, tmp_path, options, kind):
    config = replace(
        TRIPLET,
        method="dino",
        options={"hidden": 16, "dimension": 16, "prototypes": 16, **options},
        optimizer=OptimiserConfig(lr=0.01),
    )
    made = pretrain(tiny_store, CASES, tmp_path / "run", config)
    assert made.collapse is not None
    assert made.collapse.kind == kind


def test_T06_an_arm_that_collapsed_is_shown_and_not_compared(tmp_path, nifti_folder, monkeypatch):
    """In one of two seeds; the other one is compared."""
    monkeypatch.setattr("fewvox.experiments.compare.sights", lambda *_: [])
    nifti_folder(tmp_path / "data", 8, labelled=6)
    config = ComparisonConfig(
        name="tiny", data=str(tmp_path / "data"), budget="cpu", test=3, label_counts=(1,), seeds=(0, 1),
        width=4, arms={"scratch": Arm(), "mae": Arm(pretrain={"method": "mae", **SHORT})}, finetune=SHORT,
        pictures=0
    )  # fmt: skip
    before = run_comparison(config, tmp_path / "out", "").results
    assert [d.seeds for d in before.differences] == [2]
    found = Collapse(kind="complete", step=2, found="the spread is 0.01", remedy="Lower it")
    run = tmp_path / "out/pretraining/mae/seed_1"
    (run / COLLAPSE_FILE).write_text(json.dumps(vars(found)))
    after = run_comparison(config, tmp_path / "out", "")
    assert [d.seeds for d in after.results.differences] == [1]
    marked = {(r.stage, r.seed) for r in after.results.runs if r.collapse}
    assert marked == {("pretraining", 1), ("fine-tuning", 1)}
    report = after.report.read_text(encoding="utf-8")
    assert "Collapsed: pretraining of mae, seed 1: complete at step 2, the spread is 0.01" in report
    assert "with the collapsed runs the difference to scratch would be" in report
    shutil.copy(run / COLLAPSE_FILE, tmp_path / "out/pretraining/mae/seed_0")
    assert run_comparison(config, tmp_path / "out", "").results.differences == ()
