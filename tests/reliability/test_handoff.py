"""Rows of the reliability table on checkpoints and the hand-off."""

import json
from pathlib import Path

import pytest
from fewvox.data.store import Store
from fewvox.experiments import api
from fewvox.seg import checkpoint

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
