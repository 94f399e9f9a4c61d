"""The commands as functions go from files to a run."""

import json

import numpy as np
import pytest
from fewvox.data.errors import UserError
from fewvox.data.store import Store
from fewvox.experiments import api
from fewvox.seg import checkpoint

SHAPE = (12, 16, 14)


@pytest.fixture
def overlapping(tmp_path, save_tiff):
    """Three volumes with two classes that overlap, as CZYX TIFF; unannotated in part."""
    for n in range(3):
        masks = np.zeros((2, *SHAPE), np.uint8)
        masks[0, 2:8, 3 : 9 + n, 2:10], masks[1, 5:11, 6:14, 4 : 9 + n] = 255, 255
        masks[:, 9:] = 7
        noise = np.random.default_rng(n).normal(0, 0.3, SHAPE)
        save_tiff(tmp_path / f"data/images/{n}.tif", (noise + (masks == 255).sum(axis=0)).astype(np.float32))
        save_tiff(tmp_path / f"data/labels/{n}.tif", masks)
    return tmp_path / "data"


def test_overlapping_classes_go_from_files_to_a_run(overlapping, tmp_path):
    told = {"label_kind": "overlapping", "ignore_value": 7}
    store = api.prepare(overlapping, tmp_path / "store", budget="cpu", **told)
    assert [case.annotated_share for case in store.annotated] == [0.75] * 3
    run = api.finetune(
        tmp_path / "store",
        tmp_path / "run",
        labelled=2,
        set=["steps=2", "batch=2", "patch=[8, 8, 8]", "width=8", "device=cpu"],
    )
    info = checkpoint.load(run.path).info
    assert (info.steps, info.architecture.classes, info.plan.labels) == (2, 2, store.plan.labels)
    assert api.export(run.path, "safetensors", tmp_path / "weights") == tmp_path / "weights"
    assert checkpoint.load(tmp_path / "weights").info == info
    with pytest.raises(UserError, match="classes that may overlap"):
        api.export(run.path, "nnunet", tmp_path / "nnunet", dataset="Dataset001_A")
    again = api.prepare(overlapping, tmp_path / "adopted", from_checkpoint=run.path, **told)
    assert again.plan.store_hash == store.plan.store_hash


def test_a_plan_written_by_prepare_prepares_the_same(overlapping, tmp_path):
    first = api.prepare(overlapping, tmp_path / "a", label_kind="overlapping", ignore_value=7, budget="cpu")
    second = api.prepare(overlapping, tmp_path / "b", plan=tmp_path / "a" / "plan.yaml")
    assert second.plan == first.plan
    assert [c.recipe for c in second.cases.values()] == [c.recipe for c in first.cases.values()]
    with pytest.raises(UserError, match="the plan says overlapping"):
        api.prepare(overlapping, tmp_path / "c", plan=tmp_path / "a" / "plan.yaml", label_kind="classes")


def test_a_store_is_not_prepared_of_a_scan_with_errors(overlapping, tmp_path):
    with pytest.raises(UserError):
        api.prepare(overlapping, tmp_path / "store", budget="cpu")
    assert not (tmp_path / "store").exists()


def test_a_plan_and_a_checkpoint_do_not_go_together(overlapping, tmp_path):
    with pytest.raises(UserError, match="Either a file or a checkpoint tells the whole plan"):
        api.prepare(overlapping, tmp_path / "store", plan="plan.yaml", from_checkpoint="run")


def test_a_spacing_said_of_all_is_that_of_the_plan(overlapping, tmp_path):
    told = {"label_kind": "overlapping", "ignore_value": 7, "budget": "cpu"}
    api.prepare(overlapping, tmp_path / "store", spacing=(4, 1, 1), unit="um", normalisation=["none"], **told)
    how = Store.open(tmp_path / "store").plan.preprocessing
    assert (how.spacing, how.unit, how.orders, how.normalisation) == ((4, 1, 1), "um", (0, 1, 1), ("none",))


def test_an_unknown_format_and_a_data_set_elsewhere_are_refused(tmp_path):
    with pytest.raises(UserError, match="nnunet, safetensors, onnx, nnssl"):
        api.export("run", "keras", tmp_path / "out")
    with pytest.raises(UserError, match="Only the plans of nnU-Net name a data set"):
        api.export("run", "onnx", tmp_path / "out", dataset="Dataset001_A")


def test_what_is_said_of_weights_that_are_forgotten_is_no_training_from_scratch(tiny_store, tmp_path):
    """Without --pretrained, --mapping and --accept-mismatch mean nothing."""
    for told, given in {
        "--mapping names.yaml: no pretrained": {"mapping": "names.yaml"},
        "accept_mismatch: no pretrained": {"accept_mismatch": True},
    }.items():
        with pytest.raises(UserError, match=told):
            api.finetune(tiny_store.path, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_fold_of_few_labels_validates(tiny_store, tmp_path, capsys):
    given = {"labelled": 4, "test": 2, "set": ["steps=1", "width=4", "patch=[8, 16, 8]", "device=cpu"]}
    run = api.finetune(tiny_store.path, tmp_path / "run", fold=1, folds=2, **given)
    lists = json.loads((run.path / "split.json").read_text())
    assert [len(lists[side]) for side in ("train", "validation", "test")] == [2, 2, 2]
    told = capsys.readouterr().out
    assert "fold 1 of 2: 2 training, 2 validation, 2 test cases" in told
    assert "chosen: best of validation on 2 cases" in told
    with pytest.raises(UserError, match="--folds 5: 4 subjects"):
        api.finetune(tiny_store.path, tmp_path / "five", fold=0, **given)
    with pytest.raises(UserError, match="Give --fold 0, and run again up to --fold 1"):
        api.finetune(tiny_store.path, tmp_path / "none", folds=2, **given)
    with pytest.raises(UserError, match="--labelled, --test or --fold beside it"):
        api.finetune(tiny_store.path, tmp_path / "cases", fold=0, cases=run.path / "split.json")
