"""results.json and results.csv."""

import csv
import json
from dataclasses import replace

import pytest
from fewvox.data.errors import UserError
from fewvox.data.settings import SettingsError
from fewvox.experiments.results import Curve, Results, RunRecord, Score, read_results, write_results

HEADER = (
    "arm,labels,seed,case,value,dice,iou,hd95,nsd,precision,recall,hd,assd,"
    "relative_volume_difference,absolute_volume_difference"
)


@pytest.fixture
def results() -> Results:
    """Nothing but two scores, one of which has no meaning, and a run."""
    curve = Curve(name="loss", steps=(0, 1), values=(2.5, 1.0))
    run = RunRecord(
        stage="fine-tuning", arm="mae", labels=2, seed=1, zero_classes=(3,), curves=(curve,), seconds=1.5
    )
    known = {"arm": "mae", "labels": 2, "seed": 1, "case": 'day 1/"a", b'}
    return Results(
        name="tiny",
        command="fewvox compare tiny",
        created="2026-01-01 00:00 UTC",
        commit=None,
        confidence=0.95,
        baseline="scratch",
        arms=("scratch", "mae"),
        label_counts=(2,),
        seeds=(1,),
        test_cases=('day 1/"a", b',),
        hd95_unit="µm",
        leak_check="none",
        environment={"torch": "2"},
        config={"arms": {"mae": {"options": [1, None, "x"]}}},
        runs=(run,),
        scores=(
            Score(**known, value=1, dice=0.1234567890123456, iou=0.05, hd95=2.0, nsd=0.25),
            Score(**known, value=2, dice=None, iou=None, hd95=None),
        ),
        summaries=(),
        differences=(),
    )


def test_what_is_written_reads_back_to_the_last_digit(results, tmp_path):
    write_results(results, tmp_path)
    assert read_results(tmp_path) == results
    assert {p.name for p in tmp_path.iterdir()} == {"results.json", "results.csv"}


def test_the_table_has_a_row_for_each_score_and_leaves_open_what_has_no_meaning(results, tmp_path):
    write_results(results, tmp_path)
    text = (tmp_path / "results.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == HEADER
    first, second = csv.DictReader(text.splitlines())
    told = {name: value for name, value in first.items() if value}
    assert told == {
        "arm": "mae", "labels": "2", "seed": "1", "case": 'day 1/"a", b', "value": "1",
        "dice": "0.1234567890123456", "iou": "0.05", "hd95": "2.0", "nsd": "0.25"
    }  # fmt: skip
    assert (second["value"], second["dice"], second["iou"], second["hd95"]) == ("2", "", "", "")


def test_without_scores_the_table_is_its_header(results, tmp_path):
    write_results(replace(results, scores=()), tmp_path)
    assert (tmp_path / "results.csv").read_text() == f"{HEADER}\n"


def test_results_of_another_version_are_refused(results, tmp_path):
    write_results(results, tmp_path)
    values = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    (tmp_path / "results.json").write_text(json.dumps({**values, "version": 2}))
    with pytest.raises(SettingsError, match="'version' is 2"):
        read_results(tmp_path)


def test_an_unfinished_comparison_has_no_results(tmp_path):
    with pytest.raises(UserError, match=r"no results\.json.*fewvox compare"):
        read_results(tmp_path)


def test_results_from_before_there_were_more_metrics_are_read(results, tmp_path):
    write_results(results, tmp_path)
    values = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    before = ("arm", "labels", "seed", "case", "value", "dice", "iou", "hd95")
    values["scores"] = [{name: score[name] for name in before} for score in values["scores"]]
    (tmp_path / "results.json").write_text(json.dumps(values))
    assert [(s.hd95, s.nsd) for s in read_results(tmp_path).scores] == [(2.0, None), (None, None)]


def test_writing_again_replaces_what_was_there(results, tmp_path):
    write_results(results, tmp_path)
    write_results(replace(results, name="newer", scores=()), tmp_path)
    assert read_results(tmp_path).name == "newer"
