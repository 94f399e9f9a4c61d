"""The rows T01 to T05, T09, T10 and T12 to T14 of the reliability table: trainings, and who supplies them."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
import torch.nn.functional as F
from fewvox.data.loader import PatchSampler
from fewvox.data.making import BatchError
from fewvox.experiments import api
from fewvox.seg import checkpoint
from fewvox.seg.engine.tracking import read_metrics
from fewvox.seg.supervised import Supervised
from fewvox.seg.validation import Validator

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


# T05, T09, T10, T12, T14


class Disturbed(Supervised):
    """The supervised task with dropout, and something that happens to the loss of a step."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.happens = {}

    def forward(self, batch, step):
        result = super().forward(batch, step)
        loss = result.loss * F.dropout(torch.ones(8), 0.1).mean()
        return replace(result, loss=self.happens.get(step, lambda loss: loss)(loss))


@pytest.fixture
def disturb(monkeypatch):
    """Lets things happen in the trainings from here on, {step: loss -> loss}."""

    def disturb(happens):
        def made(*args, **options):
            task = Disturbed(*args, **options)
            task.happens = happens
            return task

        monkeypatch.setattr("fewvox.seg.finetune.Supervised", made)

    disturb({})
    return disturb


@pytest.fixture
def trains(fewvox, tiny_store):
    """Fine-tunes by command line; gives exit status and what was printed."""

    def train(out, *more, settings=()):
        told = [f"--set={text}" for text in (*TINY, "workers=0", *settings)]
        return fewvox("finetune", "--store", tiny_store.path, "--out", out, *told, *more)

    return train


def assert_equal(a, b):
    """Nested values equal, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        for one, other in zip(a, b, strict=True):
            assert_equal(one, other)
    else:
        assert a == b


def assert_same_run(run, expected):
    for found, told in zip(checkpoint.load_training(run), checkpoint.load_training(expected), strict=True):
        assert_equal(getattr(found, "tensors", found), getattr(told, "tensors", told))
    assert read_metrics(run) == read_metrics(expected)


def signalled(number):
    """Sends this process a signal, once."""
    left = [number]

    def happen(loss=None):
        if left:
            os.kill(os.getpid(), left.pop())
        return loss

    return happen


def test_T05_one_nan_batch_is_skipped_and_counted_with_its_cases(disturb, trains, tmp_path, caplog):
    disturb({3: lambda loss: loss * torch.nan})
    status, told = trains(tmp_path / "run", settings=("steps=5", "average=0.9"))
    assert status == 0, told
    lines = read_metrics(tmp_path / "run")
    assert {line["step"]: line["skipped"] for line in lines if "skipped" in line} == {3: 1}
    assert re.search(r"step 3: loss nan .* skipped \(cases c\d\d, c\d\d\)", caplog.text)
    assert checkpoint.load(tmp_path / "run", "last").info.steps == 5


def test_T05_infinite_from_a_step_on_stops_and_keeps_what_was_good(disturb, trains, tmp_path):
    disturb(dict.fromkeys(range(20, 40), lambda loss: loss / 0))
    out = tmp_path / "run"
    settings = ("steps=40", "checkpoint_every=4")
    status, told = trains(out, settings=settings)
    assert status == 1
    for part in ("step 22", "3 times in a row", "optimizer.lr", "cases", "c0"):
        assert part in told, told
    kept = checkpoint.load(out, "last")
    assert kept.info.steps == 20
    assert all(torch.isfinite(tensor).all() for tensor in kept.tensors.values())
    assert [line["skipped"] for line in read_metrics(out) if "skipped" in line] == [1, 2, 3]


def test_T05_weights_that_are_not_finite_replace_no_checkpoint_and_nan_is_never_best(
    disturb, trains, tmp_path, monkeypatch
):
    scores = iter([0.5, float("nan"), float("nan")])

    def validate(self):
        score = next(scores)
        if score != score and read_metrics(tmp_path / "run")[-1]["step"] == 5:
            with torch.no_grad():
                self.predictor.models[0].network.output.bias.fill_(torch.nan)
        return {"score": score}

    monkeypatch.setattr(Validator, "__call__", validate)
    status, told = trains(tmp_path / "run", settings=("steps=20", "validate_every=2"))
    assert status == 1
    assert "values of output.bias are not finite" in told
    index = checkpoint.read_index(tmp_path / "run")
    assert (index["best"], index["best_score"], index["last"]) == ("step_000002", 0.5, "step_000004")


def test_T05_an_overflow_of_float16_lowers_the_scale_and_a_lasting_one_stops(disturb, trains, tmp_path):
    beyond = {step: lambda loss: loss * 1e6 for step in range(2, 6)}
    disturb(beyond)
    settings = ("steps=8", "precision=float16")
    status, told = trains(tmp_path / "short", settings=settings)
    assert status == 0, told
    lines = read_metrics(tmp_path / "short")
    assert [line["overflows"] for line in lines if "overflows" in line] == [1, 2, 3, 4]
    assert not any(line.get("skipped") for line in lines)
    state = checkpoint.load_state(tmp_path / "short")
    assert state["scaler"]["scale"] == 2.0**12
    disturb({step: lambda loss: loss * 1e30 for step in range(2, 60)})
    status, told = trains(tmp_path / "lasting", settings=("steps=60", "precision=float16"))
    assert status == 1
    assert "3 times in a row" in told


EXACT = ("steps=12", "checkpoint_every=5", "average=0.9", "precision=float16", "accumulate=2")


@pytest.fixture(scope="module")
def straight(tiny_store, tmp_path_factory):
    """A run of twelve steps that nothing stopped; do not write into it."""
    out = tmp_path_factory.mktemp("straight") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("fewvox.seg.finetune.Supervised", Disturbed)
        return api.finetune(tiny_store.path, out, set=(*TINY, "workers=0", *EXACT)).path


# two batches of two make an epoch of eight cases end after every second step
@pytest.mark.parametrize(("after", "workers"), [(5, 0), (6, 2)], ids=["in an epoch", "at its end"])
def test_T09_a_stopped_training_ends_as_an_uninterrupted_one(
    disturb, trains, straight, tmp_path, after, workers
):
    out, settings = tmp_path / "run", (*EXACT, f"workers={workers}")
    disturb({after - 1: signalled(signal.SIGTERM)})
    assert trains(out, settings=settings)[0] == 143
    assert checkpoint.load(out, "last").info.steps == after
    disturb({})
    status, told = trains(out, "--resume", settings=settings)
    assert status == 0, told
    assert_same_run(out, straight)


def test_T10_the_learning_rate_goes_on_and_more_steps_need_a_flag(disturb, trains, tmp_path):
    def rates(out):
        return [line["lr"] for line in read_metrics(out) if "lr" in line]

    out, settings = tmp_path / "run", ("steps=10", "schedule.warmup_share=0.2")
    assert trains(tmp_path / "whole", settings=settings)[0] == 0
    disturb({3: signalled(signal.SIGTERM)})
    assert trains(out, settings=settings)[0] == 143
    disturb({})
    assert trains(out, "--resume", settings=settings)[0] == 0
    assert rates(out) == rates(tmp_path / "whole")

    longer = ("steps=20", *settings[1:])
    status, told = trains(out, "--resume", settings=longer)
    assert status == 1
    assert "steps was 10, is 20" in told
    assert "--extend" in told
    status, told = trains(out, "--extend", settings=(*longer, "clip_norm=1"))
    assert status == 1
    assert "clip_norm was 12.0, is 1" in told
    disturb({14: signalled(signal.SIGINT)})
    status, told = trains(out, "--extend", settings=longer)
    assert status == 130
    assert "extended from 10 to 20 steps; at step 10 the learning rate goes on at" in told
    assert "where it was 0" in told
    disturb({})
    # what was extended is continued as any run is
    assert trains(out, "--resume", settings=longer)[0] == 0
    assert trains(tmp_path / "long", settings=longer)[0] == 0
    assert rates(out) == rates(tmp_path / "whole") + rates(tmp_path / "long")[10:]
    status, told = trains(out, "--extend", settings=settings)
    assert status == 1
    assert "20 steps, and 10 are asked for" in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_T12_a_signal_in_validation_saves_its_scores_and_exits_with_its_number(
    trains, tmp_path, monkeypatch, number
):
    def validate(self):
        signalled(number)()
        return {"score": 0.5}

    monkeypatch.setattr(Validator, "__call__", validate)
    settings = ("steps=4", "validate_every=2")
    status, told = trains(tmp_path / "run", settings=settings)
    assert status == 128 + number
    assert "after step 2, checkpoint saved; continue with --resume" in told
    assert checkpoint.load(tmp_path / "run").info.scores["score"] == 0.5
    monkeypatch.setattr(Validator, "__call__", lambda self: {"score": 0.5})
    assert trains(tmp_path / "run", "--resume", settings=settings)[0] == 0


@pytest.mark.parametrize("where", ["before the run", "while its data start up"])
def test_T12_a_signal_before_the_first_step_leaves_what_can_be_started(trains, tmp_path, monkeypatch, where):
    whole, started = PatchSampler.batches, where != "before the run"

    def batches(self, *args, **kwargs):
        signalled(signal.SIGTERM)()
        yield from whole(self, *args, **kwargs)

    if started:
        monkeypatch.setattr(PatchSampler, "batches", batches)
    else:
        monkeypatch.setattr("fewvox.seg.finetune.patches_of", lambda *_: signalled(signal.SIGTERM)())
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    status, told = trains(tmp_path / "run", settings=("steps=2",))
    assert status == 143
    assert "while no step was trained; checkpoints that are there stay; run the same line again" in told
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert not (tmp_path / "run/checkpoints").exists()
    assert (tmp_path / "run/config.yaml").exists() is started
    monkeypatch.undo()
    again = ["--resume"] if started else []
    assert trains(tmp_path / "run", *again, settings=("steps=2",))[0] == 0


def test_T12_workers_are_deaf_and_only_the_training_saves(disturb, trains, tmp_path):
    """As when a scheduler or Ctrl-C signals the whole group of processes."""

    def to_all(loss):
        assert len(workers()) == 2
        for worker in workers():
            worker.send_signal(signal.SIGTERM)
        return signalled(signal.SIGTERM)(loss)

    disturb({3: to_all})
    status, _ = trains(tmp_path / "run", settings=("steps=9", "workers=2"))
    assert status == 143
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("step_*")] == ["step_000004"]
    assert workers() == []


# T13

TOGETHER = Path(__file__).with_name("two_processes.py")
STEPS, FAILS_AT, STOPS_AT = 12, 5, 8


@pytest.fixture(scope="module")
def together(tiny_store):
    """The line that pretrains in a folder on seven volumes, two in each of two processes."""

    def line(out, *more):
        settings = (
            *TINY, f"steps={STEPS}", "checkpoint_every=2", "workers=0", "average=0.9",
            "options.hidden=16", "monitor_volumes=2", "keep_memory=false",
        )  # fmt: skip
        told = [f"--set={text}" for text in settings]
        return [
            "pretrain",
            "triplet",
            "--store",
            str(tiny_store.path),
            "--out",
            str(out),
            "--test",
            "3",
            *told,
            *more,
        ]

    return line


@pytest.fixture(scope="module")
def failed(tmp_path_factory, together):
    """A run of torchrun whose second process raised at a step: folder, exit status, and what each printed."""
    folder = tmp_path_factory.mktemp("failed")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "--redirects", "3", "--log-dir", str(folder / "logs"), str(TOGETHER), "-",
        json.dumps([[{FAILS_AT: "raise"}, together(folder / "run")]])
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, env=environment, timeout=PATIENCE, check=False, capture_output=True)
    logs = [
        {
            stream: next((folder / "logs").rglob(f"{rank}/{stream}.log")).read_text()
            for stream in ("stdout", "stderr")
        }
        for rank in range(2)
    ]
    return folder / "run", made.returncode, logs


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, failed, together, in_two_processes):
    """The failed run continued, stopped by a signal to one process and continued; and one at a stretch."""
    whole = tmp_path_factory.mktemp("whole") / "run"
    commands = [
        [{}, together(whole)],
        [{STOPS_AT: "signal"}, together(failed[0], "--resume")],
        [{}, together(failed[0], "--resume")],
    ]
    kept = sorted(path.name for path in (failed[0] / "checkpoints").iterdir())
    return whole, in_two_processes(TOGETHER, json.dumps(commands)), kept


def test_T13_an_error_in_one_process_ends_all_and_is_told_once(failed):
    _, status, (first, second) = failed
    assert status == 1
    assert re.fullmatch(
        r"error case c0\d: spoilt\. It is not\. Look at it, or leave it out\.\n", second["stderr"]
    )
    assert second["stdout"] == ""
    assert first["stderr"] == ""
    assert "error" not in first["stdout"]


def test_T13_no_checkpoint_is_written_of_a_step_that_one_process_did_not_make(failed, resumed):
    _, _, kept = resumed
    assert kept == ["index.json", "step_000002", "step_000004"]


def test_T13_uneven_data_do_not_hang_and_each_process_has_volumes_of_its_own(resumed):
    whole, statuses, _ = resumed
    assert [of_process[0] for of_process in statuses] == [0, 0]
    assert [line["step"] for line in read_metrics(whole) if "loss" in line] == list(range(STEPS))
    assert len(checkpoint.load(whole, "last").info.trained_on) == 7


def test_T13_a_signal_to_one_process_stops_all_at_one_step_and_the_run_ends_as_a_whole_one(failed, resumed):
    whole, statuses, _ = resumed
    assert statuses == [[0, 143, 0]] * 2
    assert_same_run(failed[0], whole)
    random = checkpoint.load_state(whole)["random"]
    assert not torch.equal(random[0]["cpu"], random[1]["cpu"])


def test_T13_another_number_of_processes_is_refused(resumed, together, fewvox):
    whole, _, _ = resumed
    status, told = fewvox(*together(whole, "--resume"))
    assert status == 1
    assert "processes was 2, is 1" in told
    status, told = fewvox(*together(whole.with_name("new"), "--set=processes=2"))
    assert status == 1
    assert "processes 2: 1 of them. Torchrun starts" in told


@pytest.mark.parametrize("step", [0, 50])
def test_T14_out_of_memory_is_told_once_with_what_would_fit(disturb, trains, tmp_path, step):
    out, tried, settings = tmp_path / "run", [], ("steps=52", "checkpoint_every=50")

    def lack(loss):
        tried.append(step)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    disturb({step: lack})
    status, told = trains(out, settings=settings)
    assert status == 1
    for part in (
        "batch 2, patch (8, 16, 8)", "out of memory", "GiB", "set batch=1 and patch=[8, 16, 8]", "--resume"
    ):  # fmt: skip
        assert part in told, told
    assert tried == [step]
    disturb({})
    status, told = trains(out, "--resume", settings=settings)
    assert status == 0, told
    assert checkpoint.load(out, "last").info.steps == 52
