"""A pretraining that is killed and continued ends as one that was not, bit for bit."""

import json
import os
import runpy
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
SMALL = runpy.run_path(str(Path(__file__).with_name("two_processes.py")))["SMALL"]


def start(method: str, store, out: Path, *more: str) -> subprocess.Popen:
    settings = {
        "steps": STEPS, "checkpoint_every": 5, "validate_every": 20, "width": 4, "batch": 2,
        "patch": "[8,16,8]", "device": "cpu", "monitor_volumes": 2,
        **{f"options.{name}": value for name, value in SMALL[method].items()},
    }  # fmt: skip
    program = Path(sys.executable).with_name("fewvox")
    command = [
        str(program),
        "pretrain",
        method,
        "--store",
        str(store.path),
        "--out",
        str(out),
        "--test",
        "2",
    ]
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


def kill_after(process: subprocess.Popen, out: Path, steps: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while steps_done(out) < steps:
        assert process.poll() is None, out.with_suffix(".log").read_text()
        assert time.monotonic() < deadline, "the training has not got so far"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("method", SMALL)
def test_a_killed_pretraining_ends_as_an_uninterrupted_one(method, tiny_store, tmp_path, state_differences):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    reference, process = start(method, tiny_store, whole), start(method, tiny_store, killed)
    try:
        kill_after(process, killed, 12)
        assert process.wait(PATIENCE) == -signal.SIGKILL
        assert 10 <= checkpoint.load(killed, "last").info.steps < STEPS

        process = start(method, tiny_store, killed, "--resume")
        finish(process, killed)
        finish(reference, whole)
    finally:
        for started in (reference, process):
            started.kill()
            started.wait()

    expected, found = checkpoint.load(whole, "last"), checkpoint.load(killed, "last")
    assert found.info == expected.info
    assert found.info.steps == STEPS
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[name], expected.tensors[name]) for name in expected.tensors)
    states = [checkpoint.load_state(run) for run in (whole, killed)]
    assert states[0]["task"]
    assert not state_differences(*states)
    assert (killed / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    names = [path.name for path in (killed / "checkpoints").iterdir()]
    assert not [name for name in names if name.startswith(".step_")]
