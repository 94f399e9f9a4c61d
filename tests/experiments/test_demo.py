"""The demo in its fast form."""

import json
from typing import Any

import pytest
from fewvox.data.errors import UserError
from fewvox.data.store import Store
from fewvox.experiments import demo as module
from fewvox.experiments.demo import FAST, demo
from fewvox.experiments.results import read_results
from fewvox.seg import checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return demo(tmp_path_factory.mktemp("demo") / "out", fast=True)


def test_every_arm_is_scored_with_every_number_of_labels(made):
    results = made.results
    assert (results.arms, results.label_counts) == (("scratch", "triplet", "mae"), (1, 2))
    assert [r.error for r in results.runs if r.status == "failed"] == []
    scored = {(s.arm, s.labels, s.case) for s in results.scores}
    assert len(results.test_cases) == FAST.test
    assert len(scored) == 3 * 2 * FAST.test
    assert read_results(made.path) == results


def test_what_it_tests_on_was_seen_by_no_training(made):
    store = Store.open(made.path / "store")
    assert len(store.cases) == FAST.unannotated + FAST.annotated
    assert len(store.annotated) == FAST.annotated
    in_store = {case.content_hash for case in store.cases.values()}
    manifests = list((made.path / "masks").rglob("predictions.json"))
    assert len(manifests) == 3 * 2
    for manifest in manifests:
        cases = json.loads(manifest.read_text())["cases"]
        assert {case["role"] for case in cases.values()} == {"unseen"}
    weights = list(made.path.rglob("weights.safetensors"))
    assert len({file.parents[2] for file in weights}) == 2 + 3 * 2
    for file in weights:
        assert set(checkpoint.load(file).info.trained_on) <= in_store


def test_both_methods_are_pretrained_on_all_its_volumes(made):
    before = {r.method: r.volumes for r in made.results.runs if r.stage == "pretraining"}
    assert before == dict.fromkeys(("triplet", "mae"), FAST.unannotated + FAST.annotated)


def test_it_leaves_a_report(made):
    page = made.report.read_text(encoding="utf-8")
    assert made.report == made.path / "report.html"
    assert "fewvox demo" in page
    assert all(arm in page for arm in made.results.arms)


def test_it_does_not_write_over_a_folder(made):
    with pytest.raises(UserError, match="exists already"):
        demo(made.path.parent, fast=True)


def test_without_a_folder_it_takes_a_free_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fewvox-demo").mkdir()
    monkeypatch.setattr(module, "write_nuclei", lambda folder, **_: folder)
    monkeypatch.setattr(module, "run_comparison", lambda config, out, command: (config, out, command))
    called: Any = demo()
    config, out, command = called
    assert (out.as_posix(), command) == ("fewvox-demo-2/comparison", "fewvox demo")
    assert config.test_data.endswith("test")
    assert config.label_counts == (1, 2, 4)
