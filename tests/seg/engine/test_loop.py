"""The loop with a toy task: stopping and continuing, useless batches, best checkpoints."""

import json
import math
import os
import signal
from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.seg import checkpoint, checkpoint_reading
from fewvox.seg.engine import state
from fewvox.seg.engine.loop import LoopConfig, TrainingError, train
from fewvox.seg.engine.optimisers import OptimiserConfig
from fewvox.seg.engine.progress import Progress
from fewvox.seg.engine.schedules import ScheduleConfig, lr_factor, resolved_schedule
from fewvox.seg.engine.step import StepResult
from fewvox.seg.engine.stopping import Interrupted
from fewvox.seg.engine.tracking import read_metrics
from torch import nn

CONFIG = LoopConfig(
    steps=10,
    optimizer=OptimiserConfig(name="adamw", lr=0.1, weight_decay=0.01),
    schedule=resolved_schedule(ScheduleConfig(), 10),
    validate_every=100,
    checkpoint_every=4,
)
SGD = OptimiserConfig(name="sgd", lr=0.1, weight_decay=0.01, momentum=0.9)


@dataclass(frozen=True)
class ToyBatch:
    inputs: torch.Tensor
    cases: tuple[str, ...]

    def to(self, device):
        return self


class ToyTask(nn.Module):
    """Regression whose loss can be spoilt at a step, and that can call something in the middle of one."""

    def __init__(self, network, spoil=None, meanwhile=None):
        super().__init__()
        self.network, self.spoil, self.meanwhile = network, spoil or {}, meanwhile or {}

    def forward(self, batch, step):
        if step in self.meanwhile:
            self.meanwhile[step]()
        loss = (self.network(batch.inputs) - batch.inputs.sum(1, keepdim=True)).square().mean()
        if step in self.spoil:
            loss = self.spoil[step](loss, self.network)
        return StepResult(loss=loss, logs={"twice": 2 * loss.detach()})


class HeadedTask(ToyTask):
    """The same with something of its own beside the network, trained and counted."""

    def __init__(self, network, *args):
        super().__init__(network, *args)
        self.head = nn.Linear(1, 1)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batch, step):
        result = super().forward(batch, step)
        self.seen += 1
        return replace(result, loss=result.loss + self.head(result.loss.detach()[None, None]).square().sum())


def batches(first, last):
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        yield ToyBatch(torch.randn(4, 3, generator=generator), (f"case{step}",))


def nan_loss(loss, network):
    return loss * math.nan


def infinite_gradient(loss, network):
    return loss + (network.weight * 0).abs().sqrt().sum()


@pytest.fixture
def run_toy(make_info, monkeypatch):
    """Trains the toy task in a run folder; gives the network, which is not the one that is described."""
    monkeypatch.setattr(checkpoint_reading, "_check_described", lambda *_: None)

    def run(path, config=CONFIG, *, spoil=None, meanwhile=None, kind=ToyTask, batches=batches, **more):
        torch.manual_seed(0)
        network = nn.Linear(3, 1)
        path.mkdir(exist_ok=True)
        train(
            kind(network, spoil, meanwhile),
            network,
            batches,
            path,
            config,
            describe=lambda steps, scores: make_info(steps=steps, scores=scores),
            **more,
        )
        return network

    return run


class Killed(Exception):
    """Ends a training as a kill would: nothing is saved."""


def die():
    raise Killed


@pytest.fixture
def assert_same_run(state_differences):
    """Asserts that weights, optimiser and metrics of two runs are equal bit for bit."""

    def check(a, b):
        assert not state_differences(*(checkpoint.load(run, "last").tensors for run in (a, b)))
        assert not state_differences(*(checkpoint.load_state(run) for run in (a, b)))
        assert read_metrics(a) == read_metrics(b)

    return check


@pytest.mark.parametrize("optimizer", [CONFIG.optimizer, SGD], ids=["adamw", "sgd"])
@pytest.mark.parametrize("killed_at", [1, 4, 5, 9])
def test_a_killed_run_continues_as_if_it_had_not_been_killed(
    tmp_path, run_toy, assert_same_run, optimizer, killed_at
):
    config = replace(CONFIG, optimizer=optimizer)
    run_toy(tmp_path / "whole", config)
    with pytest.raises(Killed):
        run_toy(tmp_path / "killed", config, meanwhile={killed_at: die})
    run_toy(tmp_path / "killed", config)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    rates = [line["lr"] for line in read_metrics(tmp_path / "killed")]
    assert rates == [0.1 * lr_factor(step, 10, config.schedule, "output", ["output"]) for step in range(10)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_saves_and_the_run_continues(tmp_path, run_toy, assert_same_run, number):
    run_toy(tmp_path / "whole")
    handler = signal.getsignal(number)
    with pytest.raises(Interrupted, match="after step 6") as stopped:
        run_toy(tmp_path / "stopped", meanwhile={5: lambda: os.kill(os.getpid(), number)})
    assert (stopped.value.signal_number, stopped.value.step) == (number, 6)
    assert signal.getsignal(number) == handler
    assert checkpoint.load(tmp_path / "stopped").info.steps == 6
    run_toy(tmp_path / "stopped")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_a_signal_during_validation_saves_too(tmp_path, run_toy):
    def validate():
        os.kill(os.getpid(), signal.SIGTERM)
        return {"score": 0.5}

    with pytest.raises(Interrupted):
        run_toy(tmp_path / "run", replace(CONFIG, validate_every=3), validate=validate)
    assert checkpoint.load(tmp_path / "run").info.steps == 3


def test_a_second_signal_does_not_wait_for_the_end_of_the_step(tmp_path, run_toy):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_toy(tmp_path / "run", meanwhile={5: twice})
    assert checkpoint.load(tmp_path / "run").info.steps == 4


def test_sigterm_may_come_to_a_process_more_than_once(tmp_path, run_toy):
    """From a scheduler that tells all processes, and from torchrun, which passes on what it was told."""

    def thrice():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run_toy(tmp_path / "run", meanwhile={5: thrice})
    assert checkpoint.load(tmp_path / "run").info.steps == 6


@pytest.mark.parametrize("other", [{"step": 1}, {"weights": "0" * 12}])
def test_processes_that_begin_differently_do_not_train(tmp_path, run_toy, monkeypatch, other):
    def everyone(own):
        step, weights = own
        return [own, (other.get("step", step), other.get("weights", weights))]

    monkeypatch.setattr(state, "processes", lambda: 2)
    monkeypatch.setattr(state, "everyone", everyone)
    with pytest.raises(UserError, match=r"they begin differently: step 0 with \w{12}, step"):
        run_toy(tmp_path / "run")


def test_a_finished_run_is_left_as_it_is(tmp_path, run_toy):
    run_toy(tmp_path / "run")
    before = read_metrics(tmp_path / "run"), checkpoint.load(tmp_path / "run").tensors["weight"].tolist()
    run_toy(tmp_path / "run", meanwhile={0: die})
    after = read_metrics(tmp_path / "run"), checkpoint.load(tmp_path / "run").tensors["weight"].tolist()
    assert after == before


def test_checkpoints_that_are_to_stay_do_and_a_killed_run_has_a_model_card(tmp_path, run_toy):
    config = replace(CONFIG, checkpoint_every=1, keep_every=3)
    with pytest.raises(Killed):
        run_toy(tmp_path / "run", config, meanwhile={8: die})
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").glob("step_*"))
    assert names == [f"step_{step:06d}" for step in (3, 6, 7, 8)]
    assert "after 8 steps" in (tmp_path / "run/README.md").read_text()


@pytest.mark.parametrize("spoilt", [nan_loss, infinite_gradient])
def test_a_useless_batch_is_skipped_and_counted(tmp_path, run_toy, caplog, spoilt):
    network = run_toy(tmp_path / "run", spoil={3: spoilt, 5: spoilt})
    assert all(torch.isfinite(p).all() for p in network.parameters())
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(10))
    assert {line["step"]: line["skipped"] for line in lines if "skipped" in line} == {3: 1, 5: 2}
    assert all(math.isfinite(line["loss"]) for line in lines if "skipped" not in line)
    counters = checkpoint.load_state(tmp_path / "run")["counters"]
    assert counters == vars(Progress(step=10, skipped=2))
    assert "case3" in caplog.text


def test_a_useless_batch_changes_no_weight(tmp_path, run_toy):
    config = replace(CONFIG, steps=4, checkpoint_every=3)
    run_toy(tmp_path / "run", config, spoil={3: nan_loss})
    with pytest.raises(Killed):
        run_toy(tmp_path / "before", config, meanwhile={3: die})
    weights = [checkpoint.load(tmp_path / run, "last").tensors["weight"] for run in ("run", "before")]
    assert torch.equal(*weights)


def test_a_useless_batch_changes_no_running_mean(tmp_path, run_toy):
    """A head's normalisation has seen the batch before anybody knows that it is of no use."""
    run_toy(tmp_path / "run", replace(CONFIG, steps=4), spoil={2: nan_loss}, kind=HeadedTask)
    assert checkpoint.load_state(tmp_path / "run")["task"]["seen"] == 3


def test_useless_batches_are_counted_across_a_resume(tmp_path, run_toy):
    spoil = {2: nan_loss, 6: nan_loss}
    with pytest.raises(Killed):
        run_toy(tmp_path / "run", spoil=spoil, meanwhile={5: die})
    run_toy(tmp_path / "run", spoil=spoil)
    assert checkpoint.load_state(tmp_path / "run")["counters"]["skipped"] == 2


def test_three_useless_batches_in_a_row_stop_and_leave_the_last_checkpoint(tmp_path, run_toy):
    with pytest.raises(TrainingError, match=r"3 times in a row.*case6"):
        run_toy(tmp_path / "run", spoil=dict.fromkeys(range(4, 10), nan_loss))
    kept = checkpoint.load(tmp_path / "run", "last")
    assert kept.info.steps == 4
    assert all(torch.isfinite(tensor).all() for tensor in kept.tensors.values())


def test_two_useless_batches_in_a_row_do_not_stop(tmp_path, run_toy):
    spoil = dict.fromkeys((0, 1, 3, 4, 6, 7), nan_loss)
    run_toy(tmp_path / "run", spoil=spoil)
    assert checkpoint.load_state(tmp_path / "run")["counters"]["skipped"] == 6


def test_the_best_checkpoint_is_the_one_with_the_highest_score(tmp_path, run_toy):
    scores = iter([0.3, 0.9, 0.5, 0.9, 0.1])
    config = replace(CONFIG, validate_every=2, smoothing=0.0)
    run_toy(tmp_path / "run", config, validate=lambda: {"score": next(scores), "dice/1": 0.5})
    assert checkpoint.load(tmp_path / "run").info.steps == 4
    assert checkpoint.load(tmp_path / "run").info.scores == {
        "score": 0.9, "smoothed_score": 0.9, "dice/1": 0.5
    }  # fmt: skip
    assert checkpoint.load(tmp_path / "run", "last").info.steps == 10
    found = [line for line in read_metrics(tmp_path / "run") if "validation/score" in line]
    assert [(line["step"], line["validation/score"]) for line in found] == [
        (1, 0.3), (3, 0.9), (5, 0.5), (7, 0.9), (9, 0.1)
    ]  # fmt: skip


@pytest.mark.parametrize("scores", [[math.nan, 0.2, math.nan], [0.2, math.nan, 0.1]])
def test_a_score_that_is_nan_is_never_the_best(tmp_path, run_toy, scores):
    given = iter(scores)
    config = replace(CONFIG, steps=6, validate_every=2)
    run_toy(tmp_path / "run", config, validate=lambda: {"score": next(given)})
    assert checkpoint.read_index(tmp_path / "run")["best_score"] == 0.2
    assert checkpoint.load(tmp_path / "run").info.scores == {"score": 0.2, "smoothed_score": 0.2}


def test_the_last_checkpoint_loads_though_its_score_is_nan(tmp_path, run_toy):
    config = replace(CONFIG, steps=2, validate_every=2)
    run_toy(tmp_path / "run", config, validate=lambda: {"score": math.nan})
    assert "best" not in checkpoint.read_index(tmp_path / "run")
    assert checkpoint.load(tmp_path / "run").info.steps == 2


def test_validation_and_checkpoints_come_when_they_are_due_and_at_the_end(tmp_path, run_toy):
    seen = Counter()

    class Observer:
        def step(self, done, steps, loss):
            seen["step"] += 1

        def validated(self, done, scores):
            seen[done] += 1

    config = replace(CONFIG, validate_every=4)
    run_toy(tmp_path / "run", config, validate=lambda: {"score": 1.0}, observer=Observer())
    assert seen == {"step": 10, 4: 1, 8: 1, 10: 1}


def test_gradients_are_clipped_and_their_norm_is_recorded(tmp_path, run_toy):
    config = replace(CONFIG, steps=1, optimizer=replace(SGD, momentum=0.0, weight_decay=0.0), clip_norm=0.01)
    network = run_toy(tmp_path / "run", config)
    torch.manual_seed(0)
    before = nn.Linear(3, 1)
    moved = torch.cat(
        [(a - b).flatten() for a, b in zip(network.parameters(), before.parameters(), strict=True)]
    )
    line = read_metrics(tmp_path / "run")[0]
    assert line["gradient_norm"] > 0.01
    assert float(moved.detach().norm()) == pytest.approx(0.01 * line["lr"], rel=1e-3)


def test_metrics_hold_what_the_task_reports(tmp_path, run_toy):
    run_toy(tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    assert all(line["twice"] == pytest.approx(2 * line["loss"]) for line in lines)
    assert json.loads((tmp_path / "run/checkpoints/index.json").read_text()) == {"last": "step_000010"}


def test_something_follows_each_update_and_no_other_step(tmp_path, run_toy, monkeypatch):
    """A teacher's moving average: after the weights have moved, and not where they have not."""
    followed, update = [], torch.optim.AdamW.step

    def note(self, *args, **kwargs):
        followed.append("update")
        return update(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    config = replace(CONFIG, steps=4)
    run_toy(tmp_path / "run", config, spoil={2: nan_loss}, after_step=followed.append)
    assert followed == ["update", 0, "update", 1, "update", 3]


def test_what_follows_an_update_comes_before_the_scores_of_its_step(tmp_path, run_toy):
    events = []

    def validate():
        events.append("scores")
        return {"score": 0.0}

    config = replace(CONFIG, steps=3, validate_every=1)
    run_toy(tmp_path / "run", config, after_step=events.append, validate=validate)
    assert events == [0, "scores", 1, "scores", 2, "scores"]


@pytest.mark.parametrize("killed_at", [3, 5, 9])
def test_what_a_task_has_beside_its_network_is_continued_too(tmp_path, run_toy, assert_same_run, killed_at):
    run_toy(tmp_path / "whole", kind=HeadedTask)
    with pytest.raises(Killed):
        run_toy(tmp_path / "killed", meanwhile={killed_at: die}, kind=HeadedTask)
    run_toy(tmp_path / "killed", kind=HeadedTask)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    states = [checkpoint.load_state(tmp_path / run)["task"] for run in ("whole", "killed")]
    assert states[0].keys() == {"head.weight", "head.bias", "seen"}
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert states[1]["seen"] == 10
    # weights of the network stand in one file alone
    assert checkpoint.load(tmp_path / "killed").tensors.keys() == {"weight", "bias"}


def test_a_task_with_nothing_beside_its_network_keeps_nothing(tmp_path, run_toy):
    run_toy(tmp_path / "run")
    assert checkpoint.load_state(tmp_path / "run")["task"] == {}


def test_a_run_is_not_continued_by_a_task_of_another_kind(tmp_path, run_toy):
    """A head that was not saved would begin anew in silence."""
    run_toy(tmp_path / "run", replace(CONFIG, steps=4))
    with pytest.raises(RuntimeError, match=r"Missing key.*head\.weight"):
        run_toy(tmp_path / "run", kind=HeadedTask)


def test_scores_are_recorded_under_the_name_they_are_given(tmp_path, run_toy):
    config = replace(CONFIG, steps=4, validate_every=2)
    run_toy(tmp_path / "run", config, validate=lambda: {"spread": 0.5}, validation="monitor")
    lines = read_metrics(tmp_path / "run")
    assert [line for line in lines if "monitor/spread" in line] == [
        {"step": step, "monitor/spread": 0.5} for step in (1, 3)
    ]
    assert not any(name.startswith("validation") for line in lines for name in line)
    # nothing called "score" chooses a best one
    assert "best" not in checkpoint.read_index(tmp_path / "run")
    assert checkpoint.load(tmp_path / "run").info.scores == {"spread": 0.5}


def test_the_best_checkpoint_is_the_one_with_the_highest_smoothed_score(tmp_path, run_toy):
    """A lucky score among bad ones is not the best, and smoothing goes on after a kill."""
    values = {2: 0.0, 4: 0.9, 6: 0.1, 8: 0.8, 10: 0.7}
    smoothed = {2: 0.0, 4: 0.45, 6: 0.275, 8: 0.5375, 10: 0.61875}
    config = replace(CONFIG, validate_every=2)

    def validating(run):
        return {"score": values[read_metrics(run)[-1]["step"] + 1]}

    run = tmp_path / "run"
    with pytest.raises(Killed):
        run_toy(run, config, validate=lambda: validating(run), meanwhile={7: die})
    assert checkpoint.load(run).info.steps == 4
    run_toy(run, config, validate=lambda: validating(run))
    recorded = {
        line["step"] + 1: line["validation/smoothed_score"]
        for line in read_metrics(run)
        if "validation/smoothed_score" in line
    }
    assert recorded == pytest.approx(smoothed)
    assert checkpoint.load(run).info.steps == 10


def test_an_index_that_is_lost_is_found_again_by_smoothed_scores(tmp_path, run_toy):
    scores = iter([0.0, 0.9, 0.5])
    config = replace(CONFIG, steps=6, validate_every=2, keep_every=1)
    run_toy(tmp_path / "run", config, validate=lambda: {"score": next(scores)})
    (tmp_path / "run/checkpoints/index.json").unlink()
    assert checkpoint.read_index(tmp_path / "run") == {
        "last": "step_000006", "best": "step_000006", "best_score": 0.475
    }  # fmt: skip


def test_a_training_that_gets_no_better_ends_and_says_so(tmp_path, run_toy):
    scores = iter([0.5, 0.6, 0.2, math.nan, 0.3])
    config = replace(CONFIG, validate_every=1, early_stop=2)
    run = tmp_path / "run"
    run_toy(run, config, validate=lambda: {"score": next(scores)})
    last = checkpoint.load(run, "last").info
    assert (last.steps, last.stopped_early) == (4, True)
    assert not checkpoint.load(run).info.stopped_early
    assert checkpoint.load(run).info.steps == 2
    assert read_metrics(run)[-1] == {"step": 3, "stopped_early": 4}
    assert "stopped early, after 4 steps" in (run / "README.md").read_text()
    before = read_metrics(run)
    run_toy(run, config, meanwhile=dict.fromkeys(range(10), die))
    assert read_metrics(run) == before


def test_a_training_that_gets_no_better_up_to_its_last_step_has_stopped_too(tmp_path, run_toy):
    scores = iter([0.5, 0.3, 0.2])
    config = replace(CONFIG, steps=3, validate_every=1, early_stop=2)
    run_toy(tmp_path / "run", config, validate=lambda: {"score": next(scores)})
    last = checkpoint.load(tmp_path / "run", "last").info
    assert (last.steps, last.stopped_early) == (3, True)


@pytest.mark.parametrize("optimizer", [CONFIG.optimizer, SGD], ids=["adamw", "sgd"])
def test_accumulated_batches_are_one_large_batch(tmp_path, run_toy, optimizer):
    """For losses that are means over the items."""
    config = replace(CONFIG, optimizer=optimizer)

    def joined(first, last):
        for step in range(first, last):
            parts = list(batches(2 * step, 2 * step + 2))
            yield ToyBatch(torch.cat([part.inputs for part in parts]), ("joined",))

    large = run_toy(tmp_path / "large", config, batches=joined)
    small = run_toy(tmp_path / "small", replace(config, accumulate=2))
    assert torch.allclose(large.weight, small.weight, atol=1e-6)
    lines = [read_metrics(tmp_path / run) for run in ("large", "small")]
    for name in ("loss", "twice", "gradient_norm"):
        assert [line[name] for line in lines[1]] == pytest.approx([line[name] for line in lines[0]], rel=1e-4)


def test_a_number_that_some_batches_have_is_averaged_over_these(tmp_path, run_toy):
    class Sometimes(ToyTask):
        def forward(self, batch, step):
            result = super().forward(batch, step)
            number = int(batch.cases[0].removeprefix("case"))
            return replace(result, logs={"odd": torch.tensor(float(number))} if number % 2 else {})

    run_toy(tmp_path / "run", replace(CONFIG, steps=3, accumulate=4), kind=Sometimes)
    assert [line["odd"] for line in read_metrics(tmp_path / "run")] == [2, 6, 10]


def test_accumulated_batches_are_those_of_their_step_after_a_kill(tmp_path, run_toy, assert_same_run):
    config = replace(CONFIG, accumulate=3, average=0.9)
    run_toy(tmp_path / "whole", config)
    with pytest.raises(Killed):
        run_toy(tmp_path / "killed", config, meanwhile={6: die})
    run_toy(tmp_path / "killed", config)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_one_useless_batch_of_several_spoils_its_step_and_is_named(tmp_path, run_toy, caplog):
    def spoilt(first, last):
        for batch in batches(first, last):
            nan = batch.cases == ("case7",)
            yield ToyBatch(batch.inputs * math.nan, batch.cases) if nan else batch

    config = replace(CONFIG, steps=5, accumulate=3)
    run_toy(tmp_path / "run", config, batches=spoilt)
    skipped = {line["step"] for line in read_metrics(tmp_path / "run") if "skipped" in line}
    assert skipped == {2}
    assert "(cases case7)" in caplog.text


def test_averaged_weights_are_what_is_validated_and_saved(tmp_path, run_toy):
    def trained(name, average):
        """The weights at each validation, and those of the network in the end."""
        seen, tasks = [], []

        def made(network, *args):
            tasks.append(ToyTask(network, *args))
            return tasks[0]

        def validate():
            seen.append(tasks[0].network.weight.detach().clone())
            return {"score": 0.1}

        config = replace(CONFIG, steps=3, validate_every=1, average=average)
        return seen, run_toy(tmp_path / name, config, kind=made, validate=validate).weight

    raw, end = trained("raw", None)
    averaged, also_end = trained("averaged", 0.15)
    torch.manual_seed(0)
    mean = nn.Linear(3, 1).weight.detach()
    # the decay rises: 1/10, then what was set, below 2/11
    for decay, weight, found in zip((0.1, 0.15, 0.15), raw, averaged, strict=True):
        mean = decay * mean + (1 - decay) * weight
        assert torch.allclose(found, mean, atol=1e-6)
    # the training itself goes on with its own weights
    assert torch.equal(end, also_end)
    assert torch.equal(checkpoint.load(tmp_path / "averaged", "last").tensors["weight"], averaged[-1])
