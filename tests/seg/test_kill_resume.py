"""A training that is killed and continued ends with the weights of one that was not, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from fewvox.seg import checkpoint

STEPS = 40
PATIENCE = 120.0


def start(store, out: Path, *more: str) -> subprocess.Popen:
    settings = {
        "steps": STEPS, "checkpoint_every": 5, "validate_every": 5, "width": 4, "batch": 2,
        "patch": "[8,16,8]", "device": "cpu"
    }  # fmt: skip
    program = Path(sys.executable).with_name("fewvox")
    command = [str(program), "finetune", "--store", str(store.path), "--out", str(out), "--test", "2"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    with out.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            [*command, *more], stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )


def finish(process: subprocess.Popen, out: Path) -> None:
    assert process.wait(PATIENCE) == 0, out.with_suffix(".log").read_text()


def steps_done(out: Path) -> int:
    """Steps that the run has recorded, whatever is being written right now."""
    path = out / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["step"] + 1 if lines else 0


def kill_after(process: subprocess.Popen, out: Path, steps: int, number: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while steps_done(out) < steps:
        assert process.poll() is None, out.with_suffix(".log").read_text()
        assert time.monotonic() < deadline, "the training has not got so far"
        time.sleep(0.005)
    process.send_signal(number)


@pytest.mark.slow
def test_killed_and_stopped_trainings_end_as_an_uninterrupted_one(tiny_store, tmp_path, state_differences):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    reference, process = start(tiny_store, whole), start(tiny_store, killed)
    try:
        kill_after(process, killed, 12, signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL
        assert 10 <= checkpoint.load(killed, "last").info.steps < STEPS

        process = start(tiny_store, killed, "--resume")
        kill_after(process, killed, checkpoint.load(killed, "last").info.steps + 3, signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
        assert "continue with --resume" in killed.with_suffix(".log").read_text()

        process = start(tiny_store, killed, "--resume")
        finish(process, killed)
        finish(reference, whole)
    finally:
        for started in (reference, process):
            started.kill()
            started.wait()

    for which in ("last", "best"):
        expected, found = checkpoint.load(whole, which), checkpoint.load(killed, which)
        assert found.info.steps == expected.info.steps
        assert found.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(found.tensors[name], expected.tensors[name]) for name in expected.tensors)
    assert not state_differences(*(checkpoint.load_state(run) for run in (killed, whole)))
    assert (killed / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    names = [path.name for path in (killed / "checkpoints").iterdir()]
    assert not [name for name in names if name.startswith(".step_")]
