"""A study of methods: each is trained for its time and probed once, and the table tells what came of it."""

import json
import shutil
from dataclasses import replace

import pytest
from fewvox.data.errors import UserError
from fewvox.experiments import methods_study
from fewvox.experiments.methods_study import STUDIES, MethodsStudy, _cells, read_study, run_study
from fewvox.ssl.probes import Probed


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
    assert [(p["seed"], p["part"]) for p in probes] == [
        (seed, part) for seed in study.seeds for part in ("encoder", "network")
    ]
    assert {p["weights"] for p in probes} == {"trained"}
    assert all(len(p["per_case"]) == study.test for p in probes)
    # all methods have one kind of network
    (random,) = (out / "probes").glob("random-*.json")
    assert {(p["weights"], p["seed"]) for p in json.loads(random.read_text())} == {
        ("random", 0),
        ("random", 1),
    }
    # least steps there are, however short the time
    assert rows[0][1] == "20"
    assert all(0 <= float(row[3]) <= 1 for row in rows)
    assert {row[2] for row in rows} <= {"sound", "complete", "dimensional", "resting"}


def test_cells_tell_trained_minus_random_by_seed_and_case():
    def probed(weights: str, seed: int, **per_case: float) -> Probed:
        return Probed(weights=weights, part="encoder", seed=seed, dice=0.0, per_class={}, per_case=per_case)

    other = replace(probed("trained", 0, a=0.0), part="network")
    trained = [probed("trained", 0, a=0.5, b=0.7), other, probed("trained", 1, a=0.6, b=0.8)]
    random = [probed("random", 0, a=0.4, b=0.4), probed("random", 1, a=0.5, b=0.5)]
    dice, difference = _cells([*trained, *random], "encoder")
    assert dice == "0.650"
    assert difference.startswith("+0.200 [")


def test_the_rotation_study_trained_with_its_own_settings(finished):
    assert "turns: 2" in (finished[0] / "pretraining/rotation/config.yaml").read_text()


def test_what_is_done_is_not_done_again(finished, study, monkeypatch, capsys):
    out, table = finished
    for name in ("pretraining", "probe_checkpoint"):
        monkeypatch.setattr(methods_study, name, None)
    assert run_study(study, out).read_text() == table
    assert capsys.readouterr().out.count("done before") == 2


def test_another_study_has_another_folder(finished, study):
    out, table = finished
    with pytest.raises(UserError, match=r"minutes 0.0001 before and 60.0 now"):
        run_study(replace(study, minutes=60.0), out)
    assert (out / "methods.md").read_text() == table


def test_a_method_that_fails_hinders_no_other(finished, study, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    (out / "probes/mae.json").unlink()

    def fail(*_, **__):
        raise UserError("mae", found="it fails", rule="It works", remedy="Mend it")

    monkeypatch.setattr(methods_study, "probe_checkpoint", fail)
    with pytest.raises(UserError, match="mae failed; the others are in"):
        run_study(study, out)
    rows = [line.strip("| ").split(" | ") for line in (out / "methods.md").read_text().splitlines()[2:]]
    assert rows[0][2] == "failed"
    assert "| rotation | 20 |" in (out / "methods.md").read_text()


def test_no_test_case_is_trained_on(finished):
    split = json.loads((finished[0] / "pretraining/mae/split.json").read_text())
    assert len(split["test"]) == 3
    assert not {*split["train"]} & {*split["test"]}


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.yaml")))
def test_studies_of_our_own_are_read(name):
    found = read_study(name, ["data=somewhere"])
    assert (found.name, found.data, found.methods) == (name, "somewhere", None)


def test_a_method_without_the_probes_of_random_weights_is_not_done(finished, study, tmp_path, monkeypatch):
    """It was stopped, or failed, between its own probes and those."""
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    (random,) = (out / "probes").glob("random-*.json")
    random.unlink()

    def fail(*_, **__):
        raise UserError("random", found="it fails", rule="It works", remedy="Mend it")

    monkeypatch.setattr(methods_study, "probe_checkpoint", fail)
    with pytest.raises(UserError, match="mae, rotation failed"):
        run_study(study, out)
    assert (out / "methods.md").read_text().count("| failed |") == 2


def test_a_study_that_is_not_there_is_told_with_those_there_are():
    with pytest.raises(UserError, match=r"nosuch: no such file\. .*: hippocampus, nuclei\. Check the path"):
        read_study("nosuch", [])


def test_an_unknown_method_is_told_before_anything_is_made(study, tmp_path):
    with pytest.raises(UserError, match="no such method"):
        methods_study.Study(replace(study, methods=("mea",)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
