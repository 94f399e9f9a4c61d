"""Row T07 of the reliability table: checkpoints outlive what happens to the process that writes them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fewvox.experiments import api
from fewvox.seg import checkpoint

TINY = ("steps=3", "patch=[8,16,8]", "width=4", "batch=2", "device=cpu", "checkpoint_every=1", "workers=0")
VERSION_1 = Path(__file__).parents[1] / "seg/fixtures/version_1/weights.safetensors"
KILLS = 50

# torch is imported once; each child saves every step from the last checkpoint on until it is killed
KILLER = """
import json, os, random, signal, sys, time
from dataclasses import replace
from pathlib import Path
import torch
from fewvox.seg import checkpoint

run, fixture, kills = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
start = checkpoint.load(fixture)
network = start.network()

def save(step):
    with torch.no_grad():
        network.output.bias[:] = float(step)
    info = replace(start.info, steps=step, scores={})
    checkpoint.save(run, network, info, {"step": step}, None)

def save_on(told):
    step = checkpoint.load(run, "last").info.steps
    while True:
        step += 1
        save(step)
        os.write(told, f"{step}\\n".encode())

save(1)
began = time.perf_counter()
save(checkpoint.load(run, "last").info.steps + 1)
once, chance, reported, left = time.perf_counter() - began, random.Random(0), 2, 0
for _ in range(kills):
    reading, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        save_on(told)
    os.close(told)
    time.sleep(chance.uniform(0, 4 * once))
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    with os.fdopen(reading) as lines:
        reported = max([reported, *map(int, lines)])
    found, state = checkpoint.load_training(run)
    assert found.info.steps >= reported, (found.info.steps, reported)
    assert state == {"step": found.info.steps}
    assert (found.tensors["output.bias"] == found.info.steps).all()
    assert found.notes == ()
    left += any(path.name.startswith(".partial") for path in (run / "checkpoints").iterdir())
last = found.info.steps + 1
save(last)
print(json.dumps({"steps": last, "left": left}))
"""


def test_T07_fifty_kills_while_saving_leave_a_whole_checkpoint_each_time(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLER, tmp_path / "run", VERSION_1, str(KILLS)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    # some kills came in the middle of a save, and others let it go on
    assert told["left"] > 0
    assert told["steps"] > 10
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    last = told["steps"]
    assert names == ["index.json", f"step_{last - 1:06d}", f"step_{last:06d}"]


@pytest.fixture(scope="module")
def straight(tiny_store, tmp_path_factory):
    """A run of three steps, a checkpoint at each; do not write into it."""
    out = tmp_path_factory.mktemp("straight") / "run"
    return api.finetune(tiny_store.path, out, set=TINY).path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(("damage", "file"), [(truncate, "weights.safetensors"), (flip, "training.pt")])
def test_T07_a_run_with_a_damaged_newest_checkpoint_goes_on_from_the_one_before(
    tiny_store, straight, tmp_path, fewvox, damage, file
):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    damage(run / "checkpoints/step_000003" / file)
    settings = [f"--set={text}" for text in TINY]
    status, told = fewvox("finetune", "--store", tiny_store.path, "--out", run, *settings, "--resume")
    assert status == 0, told
    found, expected = checkpoint.load_training(run), checkpoint.load_training(straight)
    assert found[0].notes == ()
    assert found[0].info.steps == 3
    assert found[0].tensors.keys() == expected[0].tensors.keys()
    assert all(torch.equal(found[0].tensors[name], t) for name, t in expected[0].tensors.items())
    assert str(found[1]) == str(expected[1])
    assert (run / "metrics.jsonl").read_text() == (straight / "metrics.jsonl").read_text()


def test_T07_a_run_whose_checkpoints_are_all_damaged_says_so_and_trains_nothing(
    tiny_store, straight, tmp_path, fewvox
):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    for path in run.rglob("weights.safetensors"):
        flip(path)
    before = (run / "metrics.jsonl").read_bytes()
    settings = [f"--set={text}" for text in TINY]
    status, told = fewvox("finetune", "--store", tiny_store.path, "--out", run, *settings, "--resume")
    assert status == 1
    for part in ("no checkpoint in it is whole", "step_000003", "step_000002", "damaged: its SHA-256"):
        assert part in told, told
    assert (run / "metrics.jsonl").read_bytes() == before
