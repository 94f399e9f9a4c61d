"""The rows P01 to P04 of the reliability table: stores and checkpoints killed, cut short or stale."""

import errno
import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fewvox.data import prepare as preparing
from fewvox.data.errors import UserError
from fewvox.data.settings import load_mapping
from fewvox.experiments import api
from fewvox.seg import checkpoint

PATIENCE = 120.0
SMALL = ("patch=[8,16,8]", "width=4", "batch=2", "device=cpu", "checkpoint_every=1")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# P01

HALTING = """
import time
from fewvox.data import prepare
from fewvox.experiments.cli import main

whole, three = prepare.write_labels, iter(range(3))


def halting(*args):
    if next(three, None) is None:
        print("halted", flush=True)
        time.sleep(1000)
    whole(*args)


prepare.write_labels = halting
main()
"""


def halted_prepare(data: Path, out: Path) -> subprocess.Popen:
    """A process that prepares three cases and comes no further than the image of another."""
    command = [sys.executable, "-c", HALTING, "prepare", str(data), "--out", str(out), "--budget", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = []
    while not said or "halted" not in said[-1]:
        said.append(process.stdout.readline())
        assert said[-1], "".join(said)
    return process


def test_P01_a_killed_preparation_ends_as_an_uninterrupted_one(tmp_path, nifti_folder):
    data, killed, left = tmp_path / "data", tmp_path / "killed", tmp_path / ".killed.unfinished"
    nifti_folder(data, 8)
    process, deadline = halted_prepare(data, killed), time.monotonic() + PATIENCE
    while len(list(left.glob("cases/*/case.json"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait(PATIENCE) == -signal.SIGKILL
    process.stdout.close()
    assert not killed.exists()
    finished = {path.parent.name: path.stat().st_mtime_ns for path in left.glob("cases/*/case.json")}
    assert len(finished) == 3
    assert len(list(left.glob("cases/*/image_0.b2nd"))) > 3

    again = api.prepare(data, killed, budget="cpu")
    assert contents(killed) == contents(api.prepare(data, tmp_path / "whole", budget="cpu").path)
    for case, written in finished.items():
        assert (again.path / "cases" / case / "case.json").stat().st_mtime_ns == written
    assert not left.exists()


# P02


def test_P02_a_disk_too_small_is_told_before_the_start(tmp_path, nifti_folder, monkeypatch, fewvox):
    data = nifti_folder(tmp_path / "data", 2)
    free = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    status, told = fewvox("prepare", data, "--out", tmp_path / "store")
    assert status == 1
    assert "up to 1 MiB disk" in told
    assert f"{tmp_path / 'store'}: 0 MiB free on its disk" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_P02_a_store_that_cannot_be_written_is_not_there_and_is_completed_later(tmp_path, save_nifti, fewvox):
    for n in range(2):
        noise = np.random.default_rng(n).normal(size=(64, 64, 64)).astype(np.float32)
        save_nifti(tmp_path / f"data/{n}.nii", noise)
    # no file of this process grows beyond so much, as where a quota is used up; Python ignores the signal
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, limits[1]))
    try:
        status, told = fewvox("prepare", tmp_path / "data", "--out", tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 1
    assert f"{tmp_path / 'store'}: it cannot be written to" in told
    assert "The whole store takes up to" in told
    assert not (tmp_path / "store").exists()
    store = api.prepare(tmp_path / "data", tmp_path / "store")
    store.check(store.cases)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 40 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small disk can be mounted by root alone")
    yield folder
    # lazily: arrays of a store stay open for the next reader
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, free: int) -> Path:
    """A file that leaves so many bytes of a disk."""
    (disk / "filler").write_bytes(bytes(max(0, shutil.disk_usage(disk).free - free)))
    return disk / "filler"


def test_P02_a_disk_that_fills_up_is_told_with_what_is_needed(
    tmp_path, save_nifti, small_disk, fewvox, monkeypatch
):
    for n in range(3):
        noise = np.random.default_rng(n).normal(size=(96, 64, 64)).astype(np.float32)
        save_nifti(tmp_path / f"data/{n}.nii", noise)
    out = small_disk / "store"
    filler = fill(small_disk, 2**20)
    status, told = fewvox("prepare", tmp_path / "data", "--out", out)
    assert status == 1
    assert f"{out}: 1 MiB free on its disk. Up to 6 MiB are needed" in told
    assert not out.exists()
    # as if another program had filled it after the start
    monkeypatch.setattr(preparing, "check_disk", lambda *_: None)
    status, told = fewvox("prepare", tmp_path / "data", "--out", out)
    assert status == 1
    assert f"{out}: no space left on its disk" in told
    assert "The whole store takes up to 6 MiB" in told
    assert not out.exists()
    filler.unlink()
    store = api.prepare(tmp_path / "data", out)
    store.check(store.cases)


FINETUNE = [part for s in ("steps=3", *SMALL) for part in ("--set", s)]


def is_told(told: str, run: Path) -> bool:
    return bool(
        re.search(rf"{run}/checkpoints: a checkpoint cannot be written .*MiB free.*takes up to", told)
    )


def test_P02_a_checkpoint_on_a_full_disk_leaves_the_last_one_whole(tiny_store, tmp_path, monkeypatch, fewvox):
    run, saved = tmp_path / "run", checkpoint.save_file

    def full_at_the_second(tensors, path, metadata):
        if "000002" in path:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        saved(tensors, path, metadata)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", full_at_the_second)
        status, told = fewvox("finetune", "--store", tiny_store.path, "--out", run, *FINETUNE)
    assert status == 1
    assert is_told(told, run)
    assert checkpoint.load(run, "last").info.steps == 1
    resumed = api.finetune(tiny_store.path, run, set=("steps=3", *SMALL), resume=True)
    straight = api.finetune(tiny_store.path, tmp_path / "straight", set=("steps=3", *SMALL))
    expected = checkpoint.load(straight.path, "last").tensors
    for name, tensor in checkpoint.load(resumed.path, "last").tensors.items():
        assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize("left", [10_000, 100_000])
def test_P02_a_disk_that_fills_up_while_training_is_told(tiny_store, small_disk, monkeypatch, fewvox, left):
    run, saved = small_disk / "run", checkpoint.save_file

    def fill_at_the_second(tensors, path, metadata):
        if "000002" in path:
            fill(small_disk, left)
        saved(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", fill_at_the_second)
    status, told = fewvox("finetune", "--store", tiny_store.path, "--out", run, *FINETUNE)
    assert status == 1
    assert is_told(told, run)
    assert checkpoint.load(run, "last").info.steps == 1
    assert checkpoint.load_state(run)


# P04


@pytest.fixture
def prepared(tmp_path, nifti_folder):
    """The folder of a data set, and its store."""
    data = nifti_folder(tmp_path / "data", 3)
    return data, api.prepare(data, tmp_path / "store", budget="cpu").path


def train(store: Path, out: Path) -> None:
    api.finetune(store, out, set=("steps=1", *SMALL))


def test_P04_another_spacing_is_refused_by_preparation_and_training(prepared, tmp_path):
    data, store = prepared
    before = contents(store)
    plan = load_mapping(store / "plan.yaml")
    plan["preprocessing"]["spacing"] = [2.0, 2.0, 2.0]
    (tmp_path / "coarse.yaml").write_text(json.dumps(plan))
    with pytest.raises(UserError, match="made otherwise or of other files: c00, c01, c02"):
        api.prepare(data, store, plan=tmp_path / "coarse.yaml")
    assert contents(store) == before
    other = api.prepare(data, tmp_path / "coarse", plan=tmp_path / "coarse.yaml")
    assert other.cases["c00"].shape == (12, 8, 7)
    (store / "plan.yaml").write_text(json.dumps(plan))
    with pytest.raises(UserError, match="preprocessing or labels were edited"):
        train(store, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_P04_a_raw_file_that_was_overwritten_is_noticed(prepared, tmp_path, save_nifti, kind):
    data, store = prepared
    train(store, tmp_path / "before")
    ramp = np.arange(12 * 16 * 14, dtype=np.float32).reshape(12, 16, 14)
    save_nifti(data / kind / "c01.nii.gz", ramp if kind == "images" else (ramp % 3).astype(np.uint8))
    with pytest.raises(UserError, match=r"made otherwise or of other files: c01"):
        api.prepare(data, store, budget="cpu")
    with pytest.raises(UserError, match=rf"{kind}/c01.nii.gz: it was changed after the store"):
        train(store, tmp_path / "run")
    with pytest.raises(UserError, match="it was changed after the store"):
        api.finetune(store, tmp_path / "before", set=("steps=1", *SMALL), resume=True)
    assert not (tmp_path / "run").exists()
