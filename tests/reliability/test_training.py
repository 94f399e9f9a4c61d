"""The rows T01 to T03 of the reliability table: processes that supply batches."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from fewvox.data.making import BatchError
from fewvox.experiments import api
from fewvox.seg import checkpoint

TINY = ("patch=[8,16,8]", "width=4", "batch=2", "device=cpu", "validate_every=1000000")
PATIENCE = 60.0


def workers() -> list[psutil.Process]:
    """The processes below this one that make batches."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "resource_tracker" not in "".join(child.cmdline())]


def kill_one(metrics: Path, steps: int) -> None:
    """Kills a worker once so many steps are done."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if metrics.exists() and metrics.read_text().count("\n") >= steps:
            return os.kill(workers()[-1].pid, signal.SIGKILL)
        time.sleep(0.01)
    return None


# T01


def test_T01_a_killed_worker_ends_the_training_with_its_case_and_the_likely_cause(
    tiny_store, tmp_path, fewvox
):
    out = tmp_path / "run"
    settings = [f"--set={text}" for text in (*TINY, "steps=1000000", "checkpoint_every=2", "workers=2")]
    killer = threading.Thread(target=kill_one, args=(out / "metrics.jsonl", 5))
    killer.start()
    status, told = fewvox("finetune", "--store", tiny_store.path, "--out", out, "--test", "0", *settings)
    killer.join()
    assert status == 1
    assert re.search(r"error cases? c0\d", told), told
    for part in ("ended by SIGKILL", "lack of memory", "fewer workers", "--resume"):
        assert part in told, told
    assert workers() == []
    assert checkpoint.load(out, "last").info.steps >= 4


def test_T01_a_worker_without_memory_names_its_case(tiny_store, tmp_path, monkeypatch):
    (tmp_path / "fewvox_greedy.py").write_text(
        "from fewvox.data.loader import PatchSampler\n"
        "class Greedy(PatchSampler):\n"
        "    def _read_of(self, case, k):\n"
        "        if case == 'c03' and k > 1:  # of the first batch the training itself makes one\n"
        "            raise MemoryError('Unable to allocate 9 TiB')\n"
        "        return super()._read_of(case, k)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from fewvox_greedy import Greedy  # type: ignore[import-not-found]

    monkeypatch.setattr("fewvox.seg.finetune.PatchSampler", Greedy)
    with pytest.raises(BatchError, match=r"^case c03: .*Unable to allocate 9 TiB.*fewer workers"):
        api.finetune(tiny_store.path, tmp_path / "run", set=(*TINY, "steps=20", "workers=1"))
    assert workers() == []


# T02, T03

FOUR = """
import json
import os
import sys
from pathlib import Path

import blosc2
import numpy as np
import torch
from fewvox.data.augment.chain import preset
from fewvox.data.loader import PatchConfig, PatchSampler
from fewvox.data.store import Store


def mapped(name):
    return name in Path("/proc/self/maps").read_text()


if __name__ == "__main__":
    # threads that a forked process would miss
    blosc2.set_nthreads(4)
    voxels = blosc2.asarray(np.zeros((64, 256, 256)), chunks=(8, 256, 256))[:]
    torch.set_num_threads(4)
    (torch.ones(500, 500) @ torch.ones(500, 500)).sum()
    store = Store.open(sys.argv[1])
    config = PatchConfig(augment=preset("none"))
    sampler = PatchSampler(store, tuple(store.cases), (64, 64, 64), 10, config, 0)
    same = []
    for step, batch in enumerate(sampler.batches(0, 8, workers=4)):
        assert mapped("/memfd:fewvox") and not mapped("/dev/shm")
        same.append(torch.equal(batch.images, sampler.batch(step).images))
    size = 2 * 4 * (batch.images.nbytes + batch.labels.nbytes)
    room = os.statvfs("/dev/shm")
    print(json.dumps({"same": same, "size": size, "room": room.f_blocks * room.f_frsize}))
"""


@pytest.fixture(scope="module")
def four_workers(tiny_store, tmp_path_factory) -> dict:
    """What a script told that was supplied by four workers, in 64 MB of /dev/shm where we may mount them."""
    script = tmp_path_factory.mktemp("four") / "four.py"
    script.write_text(FOUR)
    command = [sys.executable, str(script), str(tiny_store.path)]
    small = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"', "sh"]
    if subprocess.run([*small, "true"], check=False, capture_output=True).returncode == 0:
        command = small + command
    free = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    made = subprocess.run(command, env=free, check=True, capture_output=True)
    return json.loads(made.stdout)


def test_T02_batches_larger_than_dev_shm_arrive(four_workers):
    if four_workers["room"] > 2**26:
        pytest.skip("no small /dev/shm can be mounted here")
    assert four_workers["size"] > four_workers["room"]
    assert four_workers["same"] == [True] * 8


def test_T03_workers_are_supplied_where_the_parent_has_threads(four_workers):
    assert four_workers["same"] == [True] * 8


def test_T03_the_start_method_is_recorded(tiny_run):
    assert json.loads((tiny_run / "environment.json").read_text())["workers"] == "started by spawn"
