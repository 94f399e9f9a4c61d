"""The rows P01 to P04 of the reliability table: stores and checkpoints that are killed, cut short or stale."""

import errno
import json
import os
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
from fewvox.data.errors import UserError
from fewvox.data.settings import load_mapping
from fewvox.experiments import api
from fewvox.seg import checkpoint

PROGRAM = Path(sys.executable).with_name("fewvox")
PATIENCE = 120.0
SMALL = ("patch=[8,16,8]", "width=4", "batch=2", "device=cpu", "checkpoint_every=1")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def start_prepare(data: Path, out: Path) -> subprocess.Popen:
    # one case after the other, so that some are finished and some are not
    one_core = {**os.environ, "PYTHON_CPU_COUNT": "1", "OMP_NUM_THREADS": "1"}
    with out.with_suffix(".log").open("a") as log:
        command = [str(PROGRAM), "prepare", str(data), "--out", str(out), "--budget", "cpu"]
        return subprocess.Popen(command, stdout=log, stderr=log, env=one_core)


# P01


def test_p01_a_killed_preparation_ends_as_an_uninterrupted_one(tmp_path, nifti_folder):
    data = nifti_folder(tmp_path / "data", 8, shape=(48, 80, 72))
    whole = api.prepare(data, tmp_path / "whole", budget="cpu")
    killed, left = tmp_path / "killed", tmp_path / ".killed.unfinished"
    process, deadline = start_prepare(data, killed), time.monotonic() + PATIENCE
    while len(list(left.glob("cases/*/case.json"))) < 3:
        assert process.poll() is None, killed.with_suffix(".log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    assert process.wait(PATIENCE) == -signal.SIGKILL
    assert not killed.exists()
    finished = {path.parent.name: path.stat().st_mtime_ns for path in left.glob("cases/*/case.json")}
    assert 3 <= len(finished) < 8

    process = start_prepare(data, killed)
    assert process.wait(PATIENCE) == 0, killed.with_suffix(".log").read_text()
    assert contents(killed) == contents(whole.path)
    again = {path.parent.name: path.stat().st_mtime_ns for path in killed.glob("cases/*/case.json")}
    assert finished.items() <= again.items()
    assert not left.exists()


# P02


def test_p02_a_disk_too_small_is_told_before_the_start(tmp_path, nifti_folder, monkeypatch, fewvox):
    data = nifti_folder(tmp_path / "data", 2)
    free = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    status, told = fewvox("prepare", data, "--out", tmp_path / "store")
    assert status == 1
    assert "up to 1 MiB disk" in told
    assert f"{tmp_path / 'store'}: 0 MiB free on its disk" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def limit_files(size: int) -> None:
    """Lets no file of this process grow beyond so many bytes, as a full disk does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_p02_a_store_that_cannot_be_written_is_not_there_and_is_completed_later(tmp_path, save_nifti):
    for n in range(2):
        noise = np.random.default_rng(n).normal(size=(64, 64, 64)).astype(np.float32)
        save_nifti(tmp_path / f"data/{n}.nii", noise)
    command = [str(PROGRAM), "prepare", str(tmp_path / "data"), "--out", str(tmp_path / "store")]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: limit_files(2**17),
        timeout=PATIENCE,
        check=False,
    )
    told = " ".join((ended.stdout + ended.stderr).split())
    assert ended.returncode == 1, told
    assert "Traceback" not in told
    assert not (tmp_path / "store").exists()
    assert api.prepare(tmp_path / "data", tmp_path / "store").check(["0", "1"]) is None


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
    subprocess.run(["umount", str(folder)], check=True)


def test_p02_a_disk_that_fills_up_is_told_with_what_is_needed(tmp_path, save_nifti, small_disk, fewvox):
    for n in range(4):
        noise = np.random.default_rng(n).normal(size=(128, 128, 128)).astype(np.float32)
        save_nifti(tmp_path / f"data/{n}.nii", noise)
    status, told = fewvox("prepare", tmp_path / "data", "--out", small_disk / "store")
    assert status == 1
    assert f"{small_disk / 'store'}: " in told
    assert "MiB free on its disk" in told
    assert not (small_disk / "store").exists()


def full(*_args, **_keywords) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "weights.safetensors")


def test_p02_a_checkpoint_on_a_full_disk_leaves_the_last_one_whole(tiny_store, tmp_path, monkeypatch, fewvox):
    run = tmp_path / "run"
    saved = checkpoint.save_file
    with monkeypatch.context() as patched:
        patched.setattr(
            checkpoint, "save_file", lambda t, p, m: saved(t, p, m) if "000002" not in p else full()
        )
        more = [part for s in ("steps=3", *SMALL) for part in ("--set", s)]
        status, told = fewvox("finetune", "--store", tiny_store.path, "--out", run, *more)
    assert status == 1
    assert "no space left" in told.lower()
    assert "MiB" in told
    assert str(run) in told
    assert checkpoint.load(run, "last").info.steps == 1
    assert checkpoint.load_state(run)
    resumed = api.finetune(tiny_store.path, run, set=("steps=3", *SMALL), resume=True)
    straight = api.finetune(tiny_store.path, tmp_path / "straight", set=("steps=3", *SMALL))
    expected = checkpoint.load(straight.path, "last").tensors
    for name, tensor in checkpoint.load(resumed.path, "last").tensors.items():
        assert torch.equal(tensor, expected[name])


# P04


@pytest.fixture
def prepared(tmp_path, nifti_folder):
    """The folder of a data set, and its store."""
    data = nifti_folder(tmp_path / "data", 3)
    return data, api.prepare(data, tmp_path / "store", budget="cpu").path


def train(store: Path, out: Path) -> None:
    api.finetune(store, out, set=("steps=1", *SMALL))


def test_p04_another_spacing_is_refused_by_preparation_and_training(prepared, tmp_path):
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
def test_p04_a_raw_file_that_was_overwritten_is_noticed(prepared, tmp_path, save_nifti, kind):
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
