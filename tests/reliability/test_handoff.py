"""Rows of the reliability table on checkpoints and the hand-off."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.data.settings import parse
from fewvox.data.store import Store
from fewvox.experiments import api
from fewvox.seg import checkpoint
from fewvox.seg.transfer_report import TransferReport

SMALL = ("patch=[8,16,8]", "width=4", "batch=2", "device=cpu", "steps=1")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, nifti_folder) -> Path:
    """A run pretrained on volumes of 2 x 1 x 1 mm, and stores of volumes prepared alike and otherwise."""
    folder = tmp_path_factory.mktemp("H04")
    nifti_folder(folder / "theirs", 3)
    api.prepare(folder / "theirs", folder / "theirs_store", budget="cpu")
    api.pretrain("mae", folder / "theirs_store", folder / "run", set=SMALL)
    nifti_folder(folder / "ours", 3, spacing=(1.0, 0.5, 0.5))
    api.prepare(folder / "ours", folder / "ours_store", budget="cpu", normalisation=["percentile"])
    return folder


def test_H04_other_spacing_and_normalisation_are_refused_with_both_ways_out(folders, fewvox, tmp_path):
    line = ("finetune", "--store", folders / "ours_store", "--pretrained", folders / "run")
    settings = [part for value in SMALL for part in ("--set", value)]
    status, told = fewvox(*line, "--out", tmp_path / "run", *settings)
    assert status == 1
    assert "spacing: 2 x 1 x 1 mm there, 1 x 0.5 x 0.5 mm (2 times finer) here" in told
    assert "normalisation: zscore there, percentile here" in told
    assert "fewvox prepare DATA --from-checkpoint RUN --out NEW" in told
    assert "--accept-mismatch" in told
    assert not (tmp_path / "run").exists()


def test_H04_the_way_of_adopting_leads_to_a_training(folders, fewvox, tmp_path):
    adopting = ("--from-checkpoint", folders / "run", "--out", tmp_path / "store")
    status, told = fewvox("prepare", folders / "ours", *adopting)
    assert status == 0
    assert "preprocessing.spacing: [2.0, 1.0, 1.0] as it was pretrained" in told
    how = Store.open(tmp_path / "store").plan.preprocessing
    assert how == checkpoint.load(folders / "run").info.plan.preprocessing
    run = api.finetune(tmp_path / "store", tmp_path / "run", pretrained=folders / "run", set=SMALL)
    report = json.loads((run.path / "transfer.json").read_text())
    assert (report["mismatches"], report["accepted"]) == ([], False)


def test_H04_what_was_accepted_stands_in_the_report(folders, fewvox, tmp_path):
    line = ("finetune", "--store", folders / "ours_store", "--pretrained", folders / "run")
    settings = [part for value in SMALL for part in ("--set", value)]
    status, told = fewvox(*line, "--out", tmp_path / "run", "--accept-mismatch", *settings)
    assert status == 0
    assert "accepted: spacing 2 x 1 x 1 mm there" in told
    report = json.loads((tmp_path / "run/transfer.json").read_text())
    assert report["accepted"]
    assert [m["what"] for m in report["mismatches"]] == ["spacing", "normalisation"]


def test_H04_axes_of_another_meaning_are_refused(folders, save_tiff, fewvox, tmp_path):
    """TIFF stores do not know which axis is which; the pretraining had them turned to RAS."""
    volume = Store.open(folders / "theirs_store").image("c00")[0]
    save_tiff(tmp_path / "data/a.tif", volume, (2.0, 1.0, 1.0), "mm")
    api.prepare(tmp_path / "data", tmp_path / "store", budget="cpu")
    status, told = fewvox("transfer", folders / "run", "--store", tmp_path / "store", "--set", "width=4")
    assert status == 1
    assert "orientation axes turned to RAS there, axes as stored in the files here" in told


def test_H04_transfer_shows_everything_and_leaves_nothing(folders, fewvox, tmp_path):
    before = sorted(folders.rglob("*"))
    line = ("transfer", folders / "run", "--store", folders / "ours_store", "--set", "width=4")
    status, told = fewvox(*line, "--dry-run", "--json", tmp_path / "report.json")
    assert status == 1
    assert "weights from mae, 1 steps" in told
    assert "spacing 2 x 1 x 1 mm there, 1 x 0.5 x 0.5 mm (2 times finer) here" in told
    assert "fewvox prepare DATA --from-checkpoint RUN" in told
    assert "fine-tuning would refuse this" in told
    assert sorted(folders.rglob("*")) == before
    report = json.loads((tmp_path / "report.json").read_text())
    assert {t["part"] for t in report["tensors"]} == {"encoder", "decoder", "output"}
    assert not report["accepted"]
    status, told = fewvox(*line, "--accept-mismatch")
    assert status == 0
    assert "accepted: spacing" in told
    assert "refuse" not in told


def test_H04_volumes_prepared_alike_are_no_matter(folders, fewvox):
    line = ("transfer", folders / "run", "--store", folders / "theirs_store", "--set", "width=4")
    status, told = fewvox(*line, "--load", "encoder")
    assert status == 0
    assert "encoder 24 loaded" in " ".join(told.split())
    assert "refuse" not in told
    status, told = fewvox(*line, "--load", "encoder.0,encoder.9")
    assert status == 1
    assert "there is no encoder.9" in told


# H03

STILL = ("steps=1", "batch=1", "width=4", "device=cpu", "optimizer.lr=1e-20")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory, save_tiff) -> Path:
    """A run pretrained on one channel at 32^3, and a store of two channels, 16 x 48 x 48, three classes."""
    folder = tmp_path_factory.mktemp("H03")
    rng = np.random.default_rng(0)
    for index in range(2):
        cube, slab = (rng.normal(50, 9, shape).astype(np.float32) for shape in ((32,) * 3, (2, 16, 48, 48)))
        save_tiff(folder / f"theirs/{index}.tif", cube, (1.0, 1.0, 1.0), "um")
        save_tiff(folder / f"ours/images/{index}.tif", slab, (3.0, 1.0, 1.0), "um")
        label = np.arange(slab[0].size, dtype=np.int64).reshape(slab[0].shape) // 7000
        save_tiff(
            folder / f"ours/labels/{index}.tif", label.clip(0, 3).astype(np.uint8), (3.0, 1.0, 1.0), "um"
        )
    for name in ("theirs", "ours"):
        api.prepare(folder / name, folder / f"{name}_store", budget="cpu")
    api.pretrain("mae", folder / "theirs_store", folder / "run", set=STILL[:-1])
    return folder


@pytest.fixture(scope="module")
def handed_over(worlds) -> tuple[checkpoint.Checkpoint, checkpoint.Checkpoint, TransferReport]:
    """The pretrained weights, those of a fine-tuning whose one step moves nothing, and its report."""
    run = api.finetune(
        worlds / "ours_store",
        worlds / "finetuned",
        pretrained=worlds / "run",
        set=STILL,
        accept_mismatch=True,
    ).path
    report = parse(TransferReport, json.loads((run / "transfer.json").read_text()), run)
    return checkpoint.load(worlds / "run"), checkpoint.load(run), report


def test_H03_each_tensor_is_loaded_adapted_or_reinitialised_by_a_rule(handed_over):
    before, after, report = handed_over
    there, here = before.info, after.info
    assert (there.plan.training.patch, here.plan.training.patch) == ((32, 32, 32), (16, 48, 48))
    assert there.architecture.topology.strides != here.architecture.topology.strides
    assert (there.architecture.in_channels, here.architecture.in_channels) == (1, 2)
    assert (there.architecture.classes, here.architecture.classes) == (1, 4)
    assert sorted(t.name for t in report.tensors) == sorted(after.tensors)
    for t in report.tensors:
        assert t.parameters == after.tensors[t.name].numel()
        taken = before.tensors.get(t.source or "")
        if t.state == "loaded":
            assert taken is not None
            # where a weight is 0, even such a step is one
            torch.testing.assert_close(after.tensors[t.name], taken, rtol=0, atol=1e-15)
    rules = {t.name: t.detail for t in report.tensors if t.state != "loaded"}
    stem = "image channels: each the mean of the 1 there, times 1/2"
    assert rules == {
        "encoder.0.0.0.weight": stem,
        "decoder.2.up.weight": "stride 2 -> 1 along z: averaged",
        "output.weight": "the checkpoint's loss did not reach it",
        "output.bias": "the checkpoint's loss did not reach it",
    }


def test_H03_the_stem_answers_as_strongly_as_before(handed_over):
    before, after, _ = handed_over
    image = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs = before.network().encoder[0][0][0](image)
        ours = after.network().encoder[0][0][0](image.expand(-1, 2, -1, -1, -1))
    torch.testing.assert_close(ours, theirs)


def test_H03_what_cannot_be_adapted_is_refused_with_both_architectures(worlds, handed_over, tmp_path):
    before, _, _ = handed_over
    enlarged = {
        name: torch.nn.functional.pad(t, (1,) * 6) if t.dim() == 5 and t.shape[-1] == 3 else t
        for name, t in before.tensors.items()
    }
    torch.save(enlarged, tmp_path / "model.pt")
    with pytest.raises(UserError) as told:
        api.finetune(
            worlds / "ours_store",
            tmp_path / "run",
            pretrained=tmp_path / "model.pt",
            set=STILL,
            accept_mismatch=True,
        )
    text = str(told.value)
    assert "a kernel of (5, 5, 5) in the checkpoint, of (3, 3, 3) here" in text
    assert "here:  unet of 2 image channels, features (4, 8, 16, 32), kernels ((3, 3, 3)" in text
    assert "there: unet of 1 image channels, features (4, 8, 16, 32), kernels ((5, 5, 5)" in text
    assert not (tmp_path / "run").exists()
