"""A study of methods: each is trained for its time and probed once, and the table tells what came of it."""

import json
from dataclasses import replace

import pytest
from fewvox.data.errors import UserError
from fewvox.experiments import methods_study
from fewvox.experiments.methods_study import STUDIES, MethodsStudy, read_study, run_study


@pytest.fixture(scope="module")
def study(tmp_path_factory, nifti_folder) -> MethodsStudy:
    folder = nifti_folder(tmp_path_factory.mktemp("study") / "data", 8)
    return MethodsStudy(
        name="tiny", data=str(folder), test=3, labelled=2, seeds=(0, 1), minutes=1e-4,
        methods=("mae", "rotation"), pretrain={"width": 4, "patch": [8, 16, 8], "batch": 2, "device": "cpu"},
        of_method={"rotation": {"options": {"turns": 2}}}
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    return out, run_study(study, out).read_text()


def test_the_table_has_a_row_for_each_method_beside_random_weights(finished, study):
    out, table = finished
    head, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert head[:3] == ["method", "steps", "state"]
    assert [row[0] for row in rows] == list(study.methods)
    probes = json.loads((out / "probes/mae.json").read_text())
    assert len(probes) == len(study.seeds)
    found = [p["per_case"] for p in probes[0] if (p["part"], p["weights"]) == ("network", "trained")]
    assert len(found[0]) == study.test
    # least steps there are, however short the time
    assert rows[0][1] == "20"
    assert all(0 <= float(row[3]) <= 1 for row in rows)


def test_the_rotation_study_trained_with_its_own_settings(finished):
    assert "turns: 2" in (finished[0] / "pretraining/rotation/config.yaml").read_text()


def test_what_is_done_is_not_done_again(finished, study, monkeypatch):
    out, table = finished
    for name in ("pretraining", "probe_checkpoint"):
        monkeypatch.setattr(methods_study, name, None)
    monkeypatch.setattr(methods_study.Study, "pretrain", lambda *_: None)
    assert run_study(study, out).read_text() == table


def test_no_test_case_is_trained_on(finished):
    split = json.loads((finished[0] / "pretraining/mae/split.json").read_text())
    assert len(split["test"]) == 3
    assert not {*split["train"]} & {*split["test"]}


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.yaml")))
def test_studies_of_our_own_are_read(name):
    found = read_study(name, ["data=somewhere"])
    assert (found.name, found.data, found.methods) == (name, "somewhere", None)


def test_an_unknown_method_is_told_before_anything_is_made(study, tmp_path):
    with pytest.raises(UserError, match="no such method"):
        methods_study.Study(replace(study, methods=("mea",)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
