"""Masks of nnU-Net for a comparison, by a stand-in; nnU-Net itself in `make test-neighbours`."""

import json
import math
import shutil
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from fewvox.data.errors import UserError
from fewvox.data.formats.files import read_volume
from fewvox.data.labels import LabelTable
from fewvox.data.plan import Plan, Preprocessing, Training
from fewvox.experiments import compare
from fewvox.experiments.bench.nnunet_runs import MADE, Runs, development_file, run_all
from fewvox.experiments.bench.nnunet_table import settings_in, table
from fewvox.experiments.bench.nnunet_training import dataset_for, epochs_of, plans_for, train
from fewvox.experiments.compare import Bench, run_comparison
from fewvox.experiments.comparison import Arm, Cell, ComparisonConfig, cells, finetune_config, read_config
from fewvox.experiments.paired_tests import case_means, paired_table, percentile_interval
from fewvox.experiments.results import write_results
from fewvox.seg.export.nnunet_plans import CONFIGURATION

THEIRS = ("nnunet-sgd", "nnunet-adamw")


@pytest.fixture(scope="module")
def data(tmp_path_factory, nifti_folder):
    """Twelve labelled volumes of classes 1 and 2."""
    return nifti_folder(tmp_path_factory.mktemp("nnunet") / "data", 12)


@pytest.fixture(scope="module")
def config(data) -> ComparisonConfig:
    return ComparisonConfig(
        name="tiny",
        data=str(data),
        budget="cpu",
        test=2,
        label_counts=(1, 2),
        seeds=(0, 1),
        baseline="fewvox",
        arms={
            "fewvox": Arm(),
            **{name: Arm(predictions=f"{{out}}/nnunet/{name}/{{labels}}/{{seed}}") for name in THEIRS},
        },
        width=4,
        finetune={"steps": 20, "batch": 1, "patch": [8, 16, 8], "device": "cpu"},
        pictures=0,
    )


class Fake:
    """Stands for nnU-Net: notes what it is given, and predicts class 2 above a grey value; fails once after
    `limit` trainings.
    """

    def __init__(self, limit=None):
        self.tasks, self.cases, self.limit = [], [], limit

    def __call__(self, task, cases, folder, timed):
        if len(self.tasks) == self.limit:
            self.limit = None
            raise KeyboardInterrupt
        with timed:
            folder.mkdir()
            self.tasks.append(task)
            self.cases.append({name: (volume.array, numbers) for name, volume, numbers in cases})
        return lambda volume: (volume.array[0] > 150).astype(np.uint8) * 2


def test_a_stopped_study_goes_on_and_what_is_done_is_not_done_again(config, tmp_path):
    out, fake, small = tmp_path / "out", Fake(limit=3), replace(config, label_counts=(1,))
    with pytest.raises(KeyboardInterrupt):
        run_all(small, out, fake)
    run_all(small, out, fake)
    run_all(small, out, fake)
    made = [(task.trainer, task.seed) for task in fake.tasks]
    assert made == [
        (trainer, seed) for seed in (0, 1) for trainer in ("nnUNetTrainer", "nnUNetTrainerAdam3en4")
    ]
    assert not (out / "nnunet-work").exists()


def test_masks_of_another_number_of_steps_are_made_again(config, tmp_path):
    out, fake = tmp_path / "out", Fake()
    small = replace(config, label_counts=(1,), seeds=(0,))
    run_all(small, out, fake)
    run_all(replace(small, finetune={**config.finetune, "steps": 30}), out, fake)
    assert [task.steps for task in fake.tasks] == [20, 20, 30, 30]


def test_nnunet_trains_on_the_cases_of_the_comparison_and_sees_no_test_case(config, tmp_path):
    out, fake, small = tmp_path / "out", Fake(), replace(config, seeds=(1,))
    run_all(small, out, fake)
    bench = Bench.open(small, out)
    todo = [cell for cell in cells(small) if cell.arm in THEIRS]
    for cell, cases, task in zip(todo, fake.cases, fake.tasks, strict=True):
        split, develops = bench.split(cell), Runs(bench, fake).development(cell)
        assert set(cases) == {*split.train, *split.validation}
        assert len(cases) == cell.labels
        assert not {*split.test, *develops} & set(cases)
        assert not {*split.test} & {*develops}
        assert len(develops) == 4
        assert task.seed == cell.seed
        assert task.steps == finetune_config(config, "fewvox", cell.seed).steps
    image, numbers = fake.cases[0][next(iter(fake.cases[0]))]
    assert image.shape == numbers.shape == (1, 12, 16, 14)
    assert set(np.unique(numbers)) == {0, 1, 2}


def test_the_validation_cases_of_many_labels_train_nnunet_too(config, tmp_path):
    fake = Fake()
    run_all(replace(config, test=1, label_counts=(8,), seeds=(1,)), tmp_path / "out", fake)
    assert {len(cases) for cases in fake.cases} == {8}


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """A whole comparison at 1 label, of 90 % intervals; do not write into it."""
    out = tmp_path_factory.mktemp("finished") / "out"
    small = replace(config, label_counts=(1,), confidence=0.9, finetune={**config.finetune, "steps": 3})
    run_all(small, out, Fake())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "sights", lambda *_: [])
        patch.setattr(compare, "write_report", lambda _, __, file: file.write_text("none"))
        return run_comparison(small, out, "")


def test_masks_lie_as_their_images_do_and_are_scored(finished, data):
    results, folder = finished.results, finished.path / "nnunet/nnunet-sgd/1/0"
    assert {r.status for r in results.runs} == {"done"}
    assert all(r.seconds is not None for r in results.runs)
    assert {path.name for path in folder.iterdir()} == {*(f"{c}.nii.gz" for c in results.test_cases), MADE}
    mask, image = (read_volume(at / f"{results.test_cases[0]}.nii.gz") for at in (folder, data / "images"))
    assert (mask.spacing, mask.origin, mask.direction) == (image.spacing, image.origin, image.direction)
    np.testing.assert_array_equal(mask.array, (image.array > 150) * 2)


def test_the_table_tells_our_dice_minus_theirs(finished):
    told = table(settings_in(finished.path))
    difference = next(d for d in finished.results.differences if d.arm == "nnunet-sgd").dice
    table_of = paired_table(finished.results.scores, "nnunet-sgd", "fewvox", 1)
    drawn = percentile_interval(table_of, confidence=0.9)
    both = (f"[{-found.high:+.3f}, {-found.low:+.3f}]" for found in (difference, drawn))
    assert f"| {-difference.mean:+.3f} {' | '.join(both)} |" in told
    per_seed = case_means(finished.results.scores, "nnunet-sgd", 1)
    assert f"| {' '.join(f'{fmean(per_seed[seed].values()):.3f}' for seed in (0, 1))} |" in told
    assert told.endswith(f"minus the chosen nnU-Net: {-difference.mean:+.3f}.")


def test_the_development_cases_choose_the_optimiser(finished, tmp_path):
    out = shutil.copytree(finished.path, tmp_path / "out", ignore=shutil.ignore_patterns("store"))
    for arm, dice in zip(THEIRS, (0.3, 0.4), strict=True):
        file = development_file(out, Cell(arm=arm, labels=1, seed=0))
        # the class that the stand-in finds, and the one that it does not
        assert json.loads(file.read_text())["dice"] == pytest.approx(0.5, abs=0.15)
        file.write_text(json.dumps({"dice": dice}))
        assert not development_file(out, Cell(arm=arm, labels=1, seed=1)).exists()
    (setting,) = settings_in(out)
    assert setting.better.name == "nnunet-adamw"
    assert "nnunet-adamw (chosen)" in table([setting])


def test_a_comparison_that_lacks_masks_of_nnunet_has_no_table(finished, tmp_path):
    runs = [replace(r, status="failed") if r.arm == "nnunet-sgd" else r for r in finished.results.runs]
    write_results(replace(finished.results, runs=tuple(runs)), tmp_path)
    with pytest.raises(UserError, match="nnunet-sgd failed"):
        settings_in(tmp_path)


def test_the_plans_are_ours_with_nnunets_own_preparation():
    how = Preprocessing(
        unit="um",
        spacing=(2.0, 0.5, 0.5),
        orientation="stored",
        channels=("dna",),
        normalisation=("percentile",),
    )
    training = Training(patch=(4, 8, 8), strides=((1, 2, 2), (2, 2, 2)), width=4, batch=1)
    plan = Plan(preprocessing=how, labels=LabelTable(values=(0, 5, 9)), training=training)
    said = plans_for(plan)["configurations"][CONFIGURATION]
    assert said["patch_size"] == [4, 8, 8]
    assert said["spacing"] == [2.0, 0.5, 0.5]
    assert said["batch_size"] == plan.training.batch
    assert said["normalization_schemes"] == ["ZScoreNormalization"]
    assert said["resampling_fn_data_kwargs"]["order"] == 3
    assert said["architecture"]["arch_kwargs"]["strides"] == [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    assert said["architecture"]["network_class_name"].endswith("PlainConvUNet")
    assert dataset_for(plan, 4)["labels"] == {"background": 0, "class_1": 1, "class_2": 2}


@pytest.mark.parametrize(("steps", "parts"), [(250, (10, 25)), (4, (4, 1)), (7, (7, 1)), (26, (2, 13))])
def test_steps_part_into_epochs_evenly(steps, parts):
    assert epochs_of(steps) == parts


@pytest.mark.parametrize("name", ["nnunet_hippocampus", "nnunet_nuclei"])
def test_the_comparisons_with_nnunet_give_both_the_same(name, tmp_path):
    config = read_config(name, [f"data={tmp_path}"])
    assert set(config.arms) == {"fewvox", *THEIRS}
    assert all(config.arms[arm].predictions.startswith("{out}/") for arm in THEIRS)
    assert len({config.arms[arm].predictions for arm in THEIRS}) == 2
    trained = finetune_config(config, "fewvox", 0)
    assert (trained.steps, trained.network, trained.batch) == (250, "unet", 2)
    assert trained.patch is not None
    assert math.prod(trained.patch) <= 131_072
    assert len(config.seeds) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_nnunet_itself_trains_and_predicts(config, tmp_path):
    pytest.importorskip("nnunetv2.training.nnUNetTrainer.nnUNetTrainer", reason="make test-neighbours")
    small = replace(config, label_counts=(2,), seeds=(0,), finetune={**config.finetune, "steps": 2})
    run_all(small, tmp_path / "out", train)
    for arm in THEIRS:
        masks = sorted((tmp_path / f"out/nnunet/{arm}/2/0").glob("*.nii.gz"))
        assert len(masks) == 2
        assert all(read_volume(path).shape == (12, 16, 14) for path in masks)
