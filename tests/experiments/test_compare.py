"""Comparisons, whole and in pieces: what is compared with what, what is run again, and what is not."""

import csv
import json
import re
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import nibabel as nib
import numpy as np
import pytest
import torch
from fewvox.data.claims import claim_file, claimed
from fewvox.data.errors import UserError
from fewvox.data.settings import read_json
from fewvox.data.store import Store
from fewvox.experiments import compare
from fewvox.experiments.compare import Bench, CellScores, Sitting, run_comparison
from fewvox.experiments.comparison import Arm, Cell, ComparisonConfig, cells
from fewvox.experiments.results import RunRecord, read_results
from fewvox.seg import checkpoint
from fewvox.seg.engine.stopping import Interrupted
from fewvox.seg.networks.registry import build
from fewvox.seg.otsu import OtsuConfig

PATCH = [8, 16, 8]
SHORT = {"steps": 3, "batch": 1, "patch": PATCH, "device": "cpu"}
MAE = {"method": "mae", "steps": 2, "batch": 2, "patch": PATCH, "device": "cpu"}
CELLS = [(arm, labels, 0) for labels in (1, 2) for arm in ("scratch", "mae", "oracle")]


@pytest.fixture(scope="module")
def place(tmp_path_factory, nifti_folder) -> Path:
    """`data/` with ten volumes, eight of them labelled; those labels are the masks of `oracle/`."""
    folder = tmp_path_factory.mktemp("compare")
    nifti_folder(folder / "data", 10, labelled=8)
    for labels in (1, 2):
        for seed in (0, 1):
            shutil.copytree(folder / "data/labels", folder / f"oracle/{labels}/{seed}")
    return folder


@pytest.fixture(scope="module")
def config(place) -> ComparisonConfig:
    return ComparisonConfig(
        name="tiny",
        data=str(place / "data"),
        budget="cpu",
        test=3,
        label_counts=(1, 2),
        seeds=(0,),
        arms={
            "scratch": Arm(),
            "mae": Arm(pretrain=MAE),
            "oracle": Arm(predictions=f"{place}/oracle/{{labels}}/{{seed}}"),
        },
        width=4,
        finetune=SHORT,
        pictures=2,
    )


@pytest.fixture(scope="module")
def starts() -> dict[tuple[str, ...], dict[str, torch.Tensor]]:
    """The weights that each fine-tuning of `finished` began with, by arm, labels and seed."""
    return {}


@pytest.fixture(scope="module")
def finished(place, config, starts):
    """A whole comparison, run in one go; do not write into it."""
    train = compare.finetuning.train

    def note(task, network, batches, run, *rest, **named):
        starts[run.parts[-3:]] = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        return train(task, network, batches, run, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare.finetuning, "train", note)
        return run_comparison(config, place / "out", "fewvox compare tiny")


@pytest.fixture
def no_report(monkeypatch):
    """Leaves out the report, whose drawing takes longer than such trainings do."""
    monkeypatch.setattr(compare, "sights", lambda *_: [])
    monkeypatch.setattr(compare, "write_report", lambda _, __, file: file.write_text("none"))


@pytest.fixture
def again(finished, tmp_path, no_report) -> Path:
    """A copy of the finished comparison, to go on from."""
    return Path(shutil.copytree(finished.path, tmp_path / "out"))


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """The cells that are run, in words."""
    found: list[str] = []
    run = Bench.run

    def note(self, cell):
        found.append(str(cell))
        run(self, cell)

    monkeypatch.setattr(Bench, "run", note)
    return found


@pytest.fixture
def masks_only(place, tmp_path, no_report) -> Callable[..., ComparisonConfig]:
    """Makes a comparison of two sets of masks, so without any training; `mine/` can be written into."""

    def make(**changes) -> ComparisonConfig:
        shutil.copytree(place / "data/labels", tmp_path / "mine")
        known = {
            "name": "masks",
            "data": str(place / "data"),
            "budget": "cpu",
            "test": 3,
            "label_counts": (1,),
            "seeds": (0,),
            "baseline": "oracle",
            "arms": {
                "oracle": Arm(predictions=f"{place}/oracle/{{labels}}/{{seed}}"),
                "mine": Arm(predictions=str(tmp_path / "mine")),
            },
        }
        return ComparisonConfig(**known | changes)

    return make


def by_cell(results) -> dict[tuple[str, int | None, int], RunRecord]:
    return {(r.arm, r.labels, r.seed): r for r in results.runs}


def failures(results) -> dict[tuple[str, int | None, int], str]:
    return {cell: r.error for cell, r in by_cell(results).items() if r.status == "failed"}


def seen_in(run: Path) -> set[str]:
    info = checkpoint.load(run, "last").info
    return {*info.trained_on, *info.validated_on, *info.inherited}


# what a whole comparison holds


def test_every_cell_is_scored_on_every_test_case_and_class(finished):
    results = finished.results
    assert len(results.test_cases) == 3
    for arm, labels, seed in CELLS:
        own = [s for s in results.scores if (s.arm, s.labels, s.seed) == (arm, labels, seed)]
        expected = [(case, value) for case in results.test_cases for value in (1, 2)]
        assert sorted((s.case, s.value) for s in own) == expected
    assert len(results.scores) == len(CELLS) * 6
    assert failures(results) == {}
    assert results.hd95_unit == "mm"


def test_perfect_masks_of_another_tool_have_dice_1(finished):
    of_oracle = [s for s in finished.results.scores if s.arm == "oracle"]
    assert {(s.dice, s.iou, s.hd95) for s in of_oracle} == {(1, 1, 0)}
    runs = [r for r in finished.results.runs if r.arm == "oracle"]
    assert {(r.stage, r.mean_dice, r.seconds, r.steps) for r in runs} == {("foreign", 1, None, None)}
    assert finished.results.baseline == "scratch"
    assert all(d.share_better == 1 for d in finished.results.differences if d.arm == "oracle")


def test_the_results_read_back_from_their_folder(finished):
    assert read_results(finished.path) == finished.results
    with (finished.path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:9] == ["arm", "labels", "seed", "case", "value", "dice", "iou", "hd95", "nsd"]
    assert len(rows) == len(finished.results.scores)
    for row, score in zip(rows, finished.results.scores, strict=True):
        assert (row["arm"], int(row["labels"]), row["case"]) == (score.arm, score.labels, score.case)
        assert float(row["dice"]) == score.dice


def test_no_training_has_seen_a_test_case(finished):
    store, test = Store.open(finished.path / "store"), set(finished.results.test_cases)
    hidden = {store.cases[case].content_hash for case in test}
    runs = [file.parent for file in finished.path.rglob("split.json")]
    assert len(runs) == 5
    for run in runs:
        split = json.loads((run / "split.json").read_text())
        assert set(split["test"]) == test
        assert not test & {*split["train"], *split["validation"]}
        assert not hidden & seen_in(run)


def test_everything_but_the_test_cases_is_pretrained_on(finished):
    run = finished.path / "pretraining/mae/seed_0"
    others = set(Store.open(finished.path / "store").cases) - set(finished.results.test_cases)
    assert set(json.loads((run / "split.json").read_text())["train"]) == others
    assert {"c08", "c09"} <= others, "volumes without labels too"
    assert by_cell(finished.results)["mae", None, 0].volumes == 7


def test_arms_have_the_same_labels_and_fewer_are_among_more(finished):
    labels = {
        (arm, n): json.loads((finished.path / f"finetuning/{arm}/labels_{n}/seed_0/split.json").read_text())
        for arm in ("scratch", "mae")
        for n in (1, 2)
    }
    for n in (1, 2):
        assert labels["scratch", n] == labels["mae", n]
        assert len(labels["scratch", n]["train"]) == n
    assert set(labels["scratch", 1]["train"]) < set(labels["scratch", 2]["train"])


def test_arms_differ_in_the_pretrained_weights_alone(finished, starts):
    scratch, mae = starts["scratch", "labels_1", "seed_0"], starts["mae", "labels_1", "seed_0"]
    after = checkpoint.load(finished.path / "pretraining/mae/seed_0", "last").tensors
    for name, tensor in mae.items():
        expected = scratch[name] if name.startswith("output.") else after[name]
        assert torch.equal(tensor, expected), name
    more = starts["scratch", "labels_2", "seed_0"]
    assert all(torch.equal(scratch[name], more[name]) for name in scratch)


def test_a_run_is_told_with_all_that_belongs_to_it(finished):
    runs = by_cell(finished.results)
    assert set(runs) == {*CELLS, ("mae", None, 0)}
    before, after, scratch = runs["mae", None, 0], runs["mae", 2, 0], runs["scratch", 2, 0]
    assert (before.stage, before.method, before.steps) == ("pretraining", "mae", 2)
    assert {c.name for c in before.curves} >= {"loss", "unexplained_variance", "monitor/effective_rank"}
    assert (after.stage, after.method, after.steps, after.volumes) == ("fine-tuning", "supervised", 3, 2)
    assert after.parameters_loaded == {"encoder": 1, "decoder": 1, "output": 0}
    assert after.transferred is not None
    assert (after.transferred.adapted, after.transferred.reinitialised) == ("", "output")
    assert after.transferred.accepted == ()
    assert (scratch.parameters_loaded, scratch.transferred) == ({}, None)
    (curve,) = scratch.curves
    assert (curve.name, curve.steps) == ("loss", (0, 1, 2))
    dice = [s.dice for s in finished.results.scores if (s.arm, s.labels) == ("scratch", 2)]
    assert scratch.mean_dice == pytest.approx(fmean(dice))


def test_the_report_holds_everything_in_one_file(finished):
    page = finished.report.read_text(encoding="utf-8")
    assert finished.report == finished.path / "report.html"
    for target in re.findall(r'\b(?:src|href)="([^"]*)"', page):
        assert target.startswith(("#", "data:image/png;base64,")), target[:80]
    for told in ("scratch", "mae", "oracle", "fewvox compare tiny", "1 label, seed 0", "2 labels, seed 0"):
        assert told in page
    # slices for two label counts; embeddings of mae and of the untrained network
    assert page.count('src="data:image/png;base64,') == 4
    assert "no training" in page


def test_the_slices_are_of_the_worst_and_the_best_case_of_the_baseline(finished):
    page = finished.report.read_text(encoding="utf-8")
    for labels in (1, 2):
        own = [s for s in finished.results.scores if (s.arm, s.labels) == ("scratch", labels)]
        dice = {case: fmean(s.dice for s in own if s.case == case) for case in finished.results.test_cases}
        ranked = sorted(dice, key=lambda case: (dice[case], case))
        assert f"a row each: {ranked[0]}, {ranked[-1]}, evenly" in page


def test_the_commit_is_one_or_none(finished):
    commit = finished.results.commit
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}( with changes)?", commit)


def test_the_time_of_a_run_is_that_of_all_its_sittings(again, config):
    lines = again / "times.jsonl"
    with lines.open("a") as file:
        file.write(json.dumps({"arm": "scratch", "labels": 1, "seed": 0, "seconds": 100.0}) + "\n")
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    expected = sum(t["seconds"] for t in told if (t["arm"], t["labels"]) == ("scratch", 1))
    runs = by_cell(run_comparison(config, again, "").results)
    assert runs["scratch", 1, 0].seconds == pytest.approx(expected)
    assert (runs["scratch", 1, 0].sittings, runs["scratch", 2, 0].sittings) == (2, 1)


# going on


def test_what_is_done_is_not_done_again(again, config, finished, ran):
    assert run_comparison(config, again, "").results.scores == finished.results.scores
    assert ran == []


def test_a_comparison_stopped_twice_ends_as_one_that_ran_through(
    tmp_path, config, finished, no_report, monkeypatch
):
    stops = {("pretraining", 1): KeyboardInterrupt, ("fine-tuning", 5): Interrupted}

    class Stopping(compare.TrainingDisplay):
        steps_done = 0

        def step(self, done: int, steps: int, loss: float) -> None:
            Stopping.steps_done += 1
            stop = stops.get((self.shown.title, Stopping.steps_done))
            if stop is KeyboardInterrupt:
                raise KeyboardInterrupt
            if stop is Interrupted:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(compare, "TrainingDisplay", Stopping)
    with pytest.raises(KeyboardInterrupt):
        run_comparison(config, tmp_path / "out", "")
    assert not checkpoint.read_index(tmp_path / "out/pretraining/mae/seed_0")
    Stopping.steps_done = -2  # the pretraining from its beginning
    with pytest.raises(Interrupted):
        run_comparison(config, tmp_path / "out", "")
    assert checkpoint.load(tmp_path / "out/finetuning/mae/labels_1/seed_0").info.steps == 2
    made = run_comparison(config, tmp_path / "out", "").results
    assert made.scores == finished.results.scores
    sittings = {cell: run.sittings for cell, run in by_cell(made).items()}
    assert sittings == {cell: 2 if cell in (("mae", None, 0), ("mae", 1, 0)) else 1 for cell in sittings}


def test_a_seed_that_is_added_runs_alone(again, config, finished, ran):
    made = run_comparison(replace(config, seeds=(0, 1), label_counts=(1,)), again, "").results
    assert ran == [
        "mae, pretraining, seed 1",
        "scratch, 1 labels, seed 1",
        "mae, 1 labels, seed 1",
        "oracle, 1 labels, seed 1",
    ]
    kept = tuple(s for s in finished.results.scores if s.labels == 1)
    assert tuple(s for s in made.scores if s.seed == 0) == kept
    assert {s.case for s in made.scores if s.seed == 1} == set(finished.results.test_cases)


def test_an_equal_arm_scores_the_same_after_its_failure_was_mended(again, config, monkeypatch, ran):
    """It fails once; meanwhile the others stand, and the next call tries it again."""
    wider = replace(config, arms={**config.arms, "twin": Arm()})
    finetune = compare.finetuning.finetune

    def fail(store, split, out, *rest, **named):
        if "twin" in out.parts and "labels_1" in out.parts:
            raise UserError("the twin", found="no room", rule="Room is needed", remedy="Make some")
        return finetune(store, split, out, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(compare.finetuning, "finetune", fail)
        first = run_comparison(wider, again, "").results
    assert failures(first) == {("twin", 1, 0): "the twin: no room. Room is needed. Make some."}
    assert {s.labels for s in first.scores if s.arm == "twin"} == {2}
    ran.clear()
    second = run_comparison(wider, again, "").results
    assert ran == ["twin, 1 labels, seed 0"]
    assert failures(second) == {}
    for twin, scratch in zip(
        *([s for s in second.scores if s.arm == arm] for arm in ("twin", "scratch")), strict=True
    ):
        assert replace(twin, arm="scratch") == scratch


def test_without_its_pretraining_an_arm_is_not_fine_tuned(again, config):
    broken = Arm(pretrain={**MAE, "batch": 50})
    made = run_comparison(replace(config, arms={**config.arms, "broken": broken}), again, "").results
    found = failures(made)
    assert set(found) == {("broken", None, 0), ("broken", 1, 0), ("broken", 2, 0)}
    assert "7 volumes to pretrain on" in found["broken", None, 0]
    assert "its pretraining is not finished" in found["broken", 1, 0]
    assert not (again / "finetuning/broken").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"finetune": {**SHORT, "steps": 4}}, "finetune differ"),
        ({"test": 2}, "test differ"),
        ({"width": 8}, "width differ"),
        ({"arms": {"scratch": Arm(), "mae": Arm(pretrain={**MAE, "steps": 3})}}, r"arms\.mae differ"),
    ],
)
def test_a_folder_of_another_comparison_is_refused_and_left_alone(again, config, ran, changes, told):
    before = (again / "comparison.yaml").read_text()
    with pytest.raises(UserError, match=told):
        run_comparison(replace(config, **changes), again, "")
    assert (again / "comparison.yaml").read_text() == before
    assert ran == []


def test_a_folder_in_which_another_process_works_is_refused(masks_only, tmp_path):
    config = masks_only()
    run_comparison(config, tmp_path / "out", "")
    assert not claim_file(tmp_path / "out").exists()
    with claimed(tmp_path / "out", "works"), pytest.raises(UserError, match="One process at a time"):
        run_comparison(config, tmp_path / "out", "")
    run_comparison(config, tmp_path / "out", "")


def test_masks_of_a_cell_that_were_deleted_are_made_again(again, config):
    shutil.rmtree(again / "masks" / "scratch")
    made = run_comparison(config, again, "").results
    assert failures(made) == {}
    assert (again / "masks/scratch/labels_1/seed_0").is_dir()


def test_a_line_that_a_killed_process_left_incomplete_is_passed_over(again, config):
    times = again / "times.jsonl"
    whole = times.read_text()
    times.write_text(whole + '{"arm": "scra')
    bench = Bench.open(config, again)
    before = bench.times()
    assert sum(map(len, before.values())) == whole.count("\n")
    with Sitting(times, Cell(arm="scratch", labels=1, seed=0)):
        pass
    assert len(bench.times()[Cell(arm="scratch", labels=1, seed=0)]) == 2


def test_a_folder_of_something_else_is_refused(config, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="no comparison in it"):
        run_comparison(config, tmp_path, "")
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_an_arm_that_comes_back_changed_is_not_taken_for_the_old_one(again, config):
    """It was left out once, so comparison.yaml has forgotten what it was."""
    run_comparison(replace(config, arms={"scratch": Arm()}), again, "")
    changed = Arm(pretrain={**MAE, "options": {"mask_ratio": 0.3}})
    with suppress(UserError):
        made = run_comparison(replace(config, arms={"scratch": Arm(), "mae": changed}), again, "").results
        assert by_cell(made)["mae", None, 0].status == "failed"


def test_more_labels_than_there_are_is_told_before_any_training(config, tmp_path, no_report, ran):
    with pytest.raises(UserError, match="5 subjects with labels are left"):
        run_comparison(replace(config, label_counts=(1, 50)), tmp_path / "out", "")
    assert ran == []


def test_a_mistake_that_was_told_can_be_mended_in_the_same_folder(masks_only, tmp_path):
    config = masks_only()
    with pytest.raises(UserError):
        run_comparison(replace(config, label_counts=(1, 50)), tmp_path / "out", "")
    assert failures(run_comparison(config, tmp_path / "out", "").results) == {}


# test cases


def test_a_copy_of_a_test_volume_among_the_others_is_refused(masks_only, place, tmp_path, ran):
    test = tmp_path / "test"
    for folder in ("images", "labels"):
        (test / folder).mkdir(parents=True)
        shutil.copy(place / "data" / folder / "c03.nii.gz", test / folder / "other.nii.gz")
    config = masks_only(test=0, test_data=str(test))
    with pytest.raises(UserError, match="test case other has the voxels of c03"):
        run_comparison(config, tmp_path / "out", "")
    assert ran == []
    assert not (tmp_path / "out/results.json").exists()


def test_copies_within_one_data_set_are_refused_too(masks_only, nifti_folder, tmp_path, ran):
    data = nifti_folder(tmp_path / "data", 3)
    for file in sorted(data.rglob("c*.nii.gz")):
        shutil.copy(file, file.with_name(file.name.replace("c", "copy", 1)))
    with pytest.raises(UserError, match="copy00: the same voxels as 'c00'"):
        run_comparison(masks_only(data=str(data), test=1), tmp_path / "out", "")
    assert ran == []


def test_every_labelled_volume_of_test_data_is_a_test_case(masks_only, nifti_folder, place, tmp_path):
    few = nifti_folder(tmp_path / "few", 3)
    test = tmp_path / "test"
    shutil.copytree(place / "data", test)
    for name in ("c00", "c01", "c02"):
        for folder in ("images", "labels"):
            (test / folder / f"{name}.nii.gz").unlink()
    config = masks_only(data=str(few), test=0, test_data=str(test))
    made = run_comparison(config, tmp_path / "out", "").results
    assert made.test_cases == ("c03", "c04", "c05", "c06", "c07")
    assert {s.dice for s in made.scores} == {1}
    assert failures(made) == {}


def test_all_volumes_of_a_test_subject_are_kept_from_pretraining(masks_only, tmp_path):
    table = "".join(f"c{i:02},s{i // 2}\n" for i in range(10))
    (tmp_path / "subjects.csv").write_text(f"case,subject\n{table}")
    bench = Bench.open(masks_only(test=2, subjects=str(tmp_path / "subjects.csv")), tmp_path / "out")
    assert len(bench.held_out) == 2
    owners = [{bench.store.cases[c].subject for c in cases} for cases in (bench.held_out, bench.unannotated)]
    assert len(owners[0]) == 1
    assert not owners[0] & owners[1]
    assert len(bench.unannotated) == 8


def test_without_a_labelled_test_volume_nothing_is_compared(masks_only, nifti_folder, tmp_path):
    bare = nifti_folder(tmp_path / "bare", 2, labelled=0)
    (bare / "labels").mkdir()
    with pytest.raises(UserError, match="no volume found"):
        run_comparison(masks_only(test=0, test_data=str(bare)), tmp_path / "out", "")


# a threshold beside the networks


def test_a_threshold_is_made_once_and_stands_beside_every_number_of_labels_and_seed(
    masks_only, place, tmp_path, ran
):
    data = Path(shutil.copytree(place / "data", tmp_path / "one"))
    for file in (data / "labels").iterdir():
        label = nib.nifti1.load(file)
        nib.save(nib.Nifti1Image((np.asarray(label.dataobj) > 0).astype(np.uint8), label.affine), file)
    arms = {"oracle": Arm(predictions=str(data / "labels")), "otsu": Arm(otsu=OtsuConfig())}
    config = masks_only(data=str(data), arms=arms, label_counts=(1, 2), seeds=(0, 1), tolerance=3.0)
    made = run_comparison(config, tmp_path / "out", "").results
    assert failures(made) == {}
    assert [cell for cell in ran if "otsu" in cell] == ["otsu, 1 labels, seed 0"]
    assert {r.stage for r in made.runs if r.arm == "otsu"} == {"untrained"}
    (first, *others) = [
        [(s.case, s.dice, s.nsd) for s in made.scores if (s.arm, s.labels, s.seed) == ("otsu", labels, seed)]
        for labels in (1, 2)
        for seed in (0, 1)
    ]
    assert len(first) == 3
    assert all(other == first for other in others)
    assert {d.arm: (d.seeds, d.cases) for d in made.differences} == {"otsu": (2, 3)}
    # of another threshold nothing is taken for that of this one
    with pytest.raises(UserError, match=r"arms\.otsu differ"):
        run_comparison(
            replace(config, arms={**arms, "otsu": Arm(otsu=OtsuConfig(foreground="dark"))}),
            tmp_path / "out", "",
        )  # fmt: skip


def test_a_threshold_of_several_classes_is_refused_before_anything_runs(masks_only, tmp_path, ran):
    with pytest.raises(UserError, match="2 classes beside the background"):
        run_comparison(masks_only(arms={"oracle": Arm(otsu=OtsuConfig())}), tmp_path / "out", "")
    assert ran == []


def test_scores_from_before_there_were_more_metrics_stay_done(masks_only, tmp_path, ran):
    config = masks_only()
    run_comparison(config, tmp_path / "out", "")
    for file in (tmp_path / "out/scores").rglob("*.json"):
        values = json.loads(file.read_text())
        before = ("case", "role", "value", "dice", "iou", "hd95")
        values["scores"] = [{name: score[name] for name in before} for score in values["scores"]]
        file.write_text(json.dumps(values))
    ran.clear()
    made = run_comparison(config, tmp_path / "out", "").results
    assert (ran, failures(made)) == ([], {})
    assert {(s.dice, s.nsd) for s in made.scores} == {(1, None)}


def test_with_another_tolerance_the_masks_that_are_there_are_scored_anew(again, config, finished, ran):
    masks = [file.read_text() for file in sorted(again.rglob("masks/**/predictions.json"))]
    key = {file: json.loads(file.read_text())["key"] for file in again.rglob("scores/**/*.json")}
    wide = run_comparison(replace(config, tolerance=1e6), again, "").results
    assert failures(wide) == {}
    assert len(ran) == len(key)
    assert {s.nsd for s in wide.scores} <= {0, 1, None}
    assert [s.dice for s in wide.scores] == [s.dice for s in finished.results.scores]
    assert [file.read_text() for file in sorted(again.rglob("masks/**/predictions.json"))] == masks
    assert run_comparison(config, again, "").results.scores == finished.results.scores
    assert {file: json.loads(file.read_text())["key"] for file in key} == key


# weights that are there


@pytest.fixture
def with_weights(config, finished) -> Callable[..., ComparisonConfig]:
    """Makes a comparison of scratch and of the weights that another one pretrained."""
    weights = finished.path / "pretraining/mae/seed_0"

    def make(**changes) -> ComparisonConfig:
        arms = {"scratch": Arm(), "given": Arm(pretrained=str(weights))}
        return replace(config, **({"arms": arms, "label_counts": (1,), "seeds": (0, 1)} | changes))

    return make


def test_given_weights_are_the_same_for_every_seed(with_weights, tmp_path, no_report, ran):
    made = run_comparison(with_weights(), tmp_path / "out", "").results
    assert failures(made) == {}
    assert [cell for cell in ran if "pretraining" in cell] == []
    reports = [
        json.loads((tmp_path / f"out/finetuning/given/labels_1/seed_{seed}/transfer.json").read_text())
        for seed in (0, 1)
    ]
    assert reports[0]["source_hash"] == reports[1]["source_hash"]
    assert all(by_cell(made)["given", 1, seed].parameters_loaded["encoder"] == 1 for seed in (0, 1))
    assert len({s.dice for s in made.scores if s.arm == "given"}) > 1


def test_other_given_weights_are_no_reason_to_keep_old_scores(
    with_weights, finished, tmp_path, no_report, ran
):
    weights = tmp_path / "weights"
    shutil.copytree(finished.path / "pretraining/mae/seed_0", weights)
    arms = {"scratch": Arm(), "given": Arm(pretrained=str(weights))}
    config = with_weights(arms=arms, seeds=(0,))
    run_comparison(config, tmp_path / "out", "")
    loaded = checkpoint.load(weights)
    loaded.tensors["encoder.0.0.0.weight"] *= 2
    shutil.rmtree(weights / "checkpoints")
    network = build(loaded.info.architecture)
    network.load_state_dict(loaded.tensors)
    checkpoint.save(weights, network, replace(loaded.info, probe=None), {}, None)
    ran.clear()
    failed = failures(run_comparison(config, tmp_path / "out", "").results)
    assert ran == ["given, 1 labels, seed 0"]
    assert "the pretrained weights are others" in failed["given", 1, 0]


def test_given_weights_that_have_seen_a_test_volume_are_refused(
    with_weights, finished, tmp_path, no_report, ran
):
    info = checkpoint.load(finished.path / "pretraining/mae/seed_0").info
    bench = Bench.open(with_weights(), tmp_path / "bench")
    case, seen = next(iter(bench.test_hashes.items()))
    leaky = replace(info, trained_on=(*info.trained_on, seen))
    checkpoint.save(tmp_path / "leaky", build(info.architecture, 0), leaky, {}, None)
    config = with_weights(arms={"scratch": Arm(), "given": Arm(pretrained=str(tmp_path / "leaky"))})
    with pytest.raises(
        UserError, match=f"test case {case} has the voxels of a volume that the weights of given"
    ):
        run_comparison(config, tmp_path / "out", "")
    assert ran == []


def test_given_weights_that_do_not_tell_what_they_saw_are_told_in_the_report(
    with_weights, finished, tmp_path, no_report
):
    torch.save(checkpoint.load(finished.path / "pretraining/mae/seed_0").tensors, tmp_path / "model.pt")
    given = Arm(pretrained=str(tmp_path / "model.pt"), finetune={"accept_mismatch": True})
    config = with_weights(arms={"scratch": Arm(), "given": given}, seeds=(0,))
    made = run_comparison(config, tmp_path / "out", "").results
    assert failures(made) == {}
    assert made.leak_check.endswith("The weights of given do not tell what they were trained on.")
    assert "do not tell" not in finished.results.leak_check


# another tool's masks


def test_a_class_at_dice_0_in_every_case_is_told(masks_only, tmp_path, save_nifti, place):
    config = masks_only()
    for file in (tmp_path / "mine").iterdir():
        save_nifti(file, (compare_labels(place, file.name) == 1).astype(np.uint8))
    runs = by_cell(run_comparison(config, tmp_path / "out", "").results)
    assert (runs["mine", 1, 0].zero_classes, runs["mine", 1, 0].mean_dice) == ((2,), 0.5)
    assert runs["oracle", 1, 0].zero_classes == ()


def test_masks_that_changed_are_scored_anew(masks_only, tmp_path, save_nifti, place, ran):
    config = masks_only()
    first = run_comparison(config, tmp_path / "out", "").results
    assert by_cell(first)["mine", 1, 0].mean_dice == 1
    ran.clear()
    name = f"{first.test_cases[0]}.nii.gz"
    save_nifti(tmp_path / "mine" / name, np.zeros_like(compare_labels(place, name)))
    second = run_comparison(config, tmp_path / "out", "").results
    assert ran == ["mine, 1 labels, seed 0"]
    assert by_cell(second)["mine", 1, 0].mean_dice == pytest.approx(2 / 3)


def test_labels_that_changed_are_scored_against_anew(masks_only, tmp_path, save_nifti, place):
    data = tmp_path / "data"
    shutil.copytree(place / "data", data)
    config = masks_only(data=str(data))
    first = run_comparison(config, tmp_path / "out", "").results
    name = f"{first.test_cases[0]}.nii.gz"
    label = compare_labels(place, name)
    save_nifti(data / "labels" / name, np.where(label == 2, 1, label).astype(np.uint8))
    second = run_comparison(config, tmp_path / "out", "").results
    assert by_cell(second)["mine", 1, 0].mean_dice != by_cell(first)["mine", 1, 0].mean_dice


def test_masks_of_another_tool_mean_what_the_store_found_labels_to_mean(masks_only, tmp_path):
    config = masks_only(label_kind="instances")
    bench = Bench.open(config, tmp_path / "out")
    untold = Bench(replace(config, label_kind=None), bench.out, bench.store)
    cell = next(cells(config))
    untold.run(cell)
    assert {s.value for s in read_json(untold.score_file(cell), CellScores).scores} == {1}


def test_a_mask_that_is_missing_fails_its_arm_alone(masks_only, tmp_path):
    config = masks_only()
    bench = Bench.open(config, tmp_path / "out")
    lost = bench.held_out[0]
    (tmp_path / f"mine/{lost}.nii.gz").unlink()
    made = run_comparison(config, tmp_path / "out", "").results
    (told,) = failures(made).values()
    assert set(failures(made)) == {("mine", 1, 0)}
    assert f"no score for 1 test cases, such as {lost}" in told
    assert "Every arm is scored on every test case" in told
    assert {s.arm for s in made.scores} == {"oracle"}


def test_a_mask_of_another_shape_fails_its_arm_with_the_reason(masks_only, tmp_path, save_nifti):
    config = masks_only()
    lost = Bench.open(config, tmp_path / "out").held_out[0]
    save_nifti(tmp_path / f"mine/{lost}.nii.gz", np.zeros((2, 3, 4), np.uint8))
    (told,) = failures(run_comparison(config, tmp_path / "out", "").results).values()
    assert f"such as {lost}" in told
    assert "shape (2, 3, 4), but (12, 16, 14)" in told


def test_masks_that_are_gone_fail_their_arm_alone(masks_only, tmp_path):
    config = masks_only()
    run_comparison(config, tmp_path / "out", "")
    shutil.rmtree(tmp_path / "mine")
    made = run_comparison(config, tmp_path / "out", "").results
    assert set(failures(made)) == {("mine", 1, 0)}


def test_masks_that_are_gone_do_not_fail_the_arms_before_them(masks_only, tmp_path):
    """What is left to do is asked while another cell is about to run."""
    config = masks_only()
    run_comparison(config, tmp_path / "out", "")
    shutil.rmtree(tmp_path / "mine")
    (tmp_path / "out/scores/oracle/labels_1/seed_0.json").unlink()
    made = run_comparison(config, tmp_path / "out", "").results
    assert set(failures(made)) == {("mine", 1, 0)}


def test_an_arm_of_which_nothing_was_made_can_be_mended_under_its_name(masks_only, tmp_path):
    config = masks_only()
    wrong = replace(config, arms={**config.arms, "mine": Arm(predictions=str(tmp_path / "mien"))})
    assert set(failures(run_comparison(wrong, tmp_path / "out", "").results)) == {("mine", 1, 0)}
    assert failures(run_comparison(config, tmp_path / "out", "").results) == {}


def test_an_empty_mask_of_an_empty_label_is_no_missing_score(masks_only, tmp_path, save_nifti, place):
    data = tmp_path / "data"
    shutil.copytree(place / "data", data)
    config = masks_only(data=str(data))
    empty = Bench.open(config, tmp_path / "other").held_out[0]
    for folder in (data / "labels", tmp_path / "mine"):
        save_nifti(folder / f"{empty}.nii.gz", np.zeros((12, 16, 14), np.uint8))
    made = run_comparison(config, tmp_path / "out", "").results
    assert ("mine", 1, 0) not in failures(made)


def compare_labels(place: Path, name: str) -> np.ndarray:
    """A label map of the data, (Z, Y, X)."""
    from fewvox.data.formats.files import read_volume

    return read_volume(place / "data/labels" / name).array[0]
