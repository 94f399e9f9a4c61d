"""The training loop, for every task: supervised or pretext."""

import logging
import math
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from ...data.errors import UserError
from ...data.settings import settings
from .. import checkpoint
from ..checkpoint import CheckpointInfo
from ..model_card import write_card
from .optimisers import OptimiserConfig, build_optimiser
from .schedules import ScheduleConfig, lr_factor
from .tracking import Tracker

log = logging.getLogger(__name__)

# so many useless steps in a row are no accident (torchtitan stops at the first)
MAX_BAD_STEPS = 3


class TrainingError(UserError):
    """A training that cannot go on."""


@settings
class LoopConfig:
    """How long and how a network is trained; None stands for a value that is resolved before it starts.

    `steps` None is told by the training: 1000 in pretraining, by the number of labels in fine-tuning.
    `validate_every` and `checkpoint_every` are in steps: a tenth of the training, at least 50, when None.
    `clip_norm` is nnU-Net's. The first checkpoint of every `keep_every` steps stays for good (None: none).
    """

    steps: Annotated[int, Field(ge=1)] | None = None
    optimizer: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip_norm: Annotated[float, Field(gt=0)] = 12.0
    validate_every: Annotated[int, Field(ge=1)] | None = None
    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    keep_every: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a task makes of a batch: the loss, shape (), and numbers to record."""

    loss: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)


class Batch(Protocol):
    """What a task is given: it can be moved, and says which cases it comes from."""

    @property
    def cases(self) -> tuple[str, ...]: ...  # noqa: D102

    def to(self, device: torch.device) -> Any: ...  # noqa: D102


class Observer(Protocol):
    """Is told how a training goes."""

    def step(self, done: int, steps: int, loss: float) -> None: ...  # noqa: D102

    def validated(self, done: int, scores: dict[str, float]) -> None: ...  # noqa: D102


class Interrupted(Exception):
    """The training was asked to stop (SIGINT or SIGTERM), and has saved what it had."""

    def __init__(self, signal_number: int, step: int) -> None:
        self.signal_number, self.step = signal_number, step
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name} after step {step}, checkpoint saved"
        )


@dataclass
class _Counters:
    """What the loop must remember beside weights and optimiser."""

    step: int = 0
    skipped: int = 0
    bad_in_a_row: int = 0


def train(
    task: nn.Module,
    network: nn.Module,
    batches: Callable[[int, int], Generator[Batch, None, None]],
    run: Path,
    config: LoopConfig,
    *,
    describe: Callable[[int, dict[str, float]], CheckpointInfo],
    after_step: Callable[[int], None] | None = None,
    validate: Callable[[], dict[str, float]] | None = None,
    validation: str = "validation",
    glance: Callable[[], dict[str, float]] | None = None,
    glance_every: int | None = None,
    observer: Observer | None = None,
) -> dict[str, float]:
    """Trains to the last step, from the run's last checkpoint if it has one; returns the last scores.

    Args:
        task: called with (batch, step), gives a StepResult; holds `network`. What it has beside (heads, a
            teacher) is kept in the training state.
        network: what checkpoints keep as weights.
        batches: gives the batches from a first step up to a last; closed when the training ends.
        run: folder of the run.
        config: resolved: no None, no "auto".
        describe: what a checkpoint after so many steps with such scores says of itself.
        after_step: called with the step (from 0) after each update of the weights.
        validate: scores of the network now; "score" is what best checkpoints are chosen by.
        validation: what the recorded names of these scores begin with.
        glance: cheap scores, recorded under "patches" every `glance_every` steps; nothing is chosen by them.
        observer: is told of every step and validation.

    Raises:
        TrainingError: the loss was not finite three times in a row.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was written.
    """
    device, steps = next(network.parameters()).device, whole(config.steps)
    optimiser = build_optimiser(task, config.optimizer, _block_of(task, network))
    peaks = [group["lr"] for group in optimiser.param_groups]
    blocks = blocks_of(network)
    counters, scores = _restore(run, task, network, optimiser)
    with ExitStack() as stack:
        tracker = stack.enter_context(closing(Tracker(run, counters.step)))
        stop = stack.enter_context(StopSignal())
        for batch in stack.enter_context(closing(batches(counters.step, steps))):
            step = counters.step
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                factor = lr_factor(step, steps, config.schedule, group["block"], blocks)
                group["lr"] = peak * factor
                for parameter in group["params"]:
                    parameter.requires_grad_(factor > 0)

            task.train()
            before = [buffer.clone() for buffer in task.buffers()]
            result: StepResult = task(batch.to(device), step)
            loss, lr = float(result.loss.detach()), max(group["lr"] for group in optimiser.param_groups)
            norm = _backward(result.loss, optimiser, config.clip_norm)
            counters.step += 1
            if norm is None:
                # running means have seen the batch already
                for buffer, kept in zip(task.buffers(), before, strict=True):
                    buffer.copy_(kept)
                counters.skipped += 1
                counters.bad_in_a_row += 1
                tracker.log(step, {"lr": lr, "skipped": counters.skipped})
                _warn_or_stop(step, batch, loss, counters.bad_in_a_row)
            else:
                optimiser.step()
                counters.bad_in_a_row = 0
                if after_step is not None:
                    after_step(step)
                named = {name: float(value) for name, value in result.logs.items()}
                tracker.log(step, {"loss": loss, "lr": lr, "gradient_norm": norm, **named})
            if observer is not None:
                observer.step(counters.step, steps, loss)

            if glance is not None and glance_every and counters.step % glance_every == 0:
                tracker.log(step, {f"patches/{name}": value for name, value in glance().items()})
            last = counters.step == steps
            if validate is not None and (last or counters.step % whole(config.validate_every) == 0):
                scores = validate()
                tracker.log(step, {f"{validation}/{name}": value for name, value in scores.items()})
                if observer is not None:
                    observer.validated(counters.step, scores)
                # metadata are JSON, which has no NaN
                told = {name: value for name, value in scores.items() if math.isfinite(value)}
                info = describe(counters.step, told)
                _save(run, task, network, optimiser, counters, info, scores.get("score"), config.keep_every)
            elif last or stop.number or counters.step % whole(config.checkpoint_every) == 0:
                info = describe(counters.step, {})
                _save(run, task, network, optimiser, counters, info, None, config.keep_every)
            if stop.number and not last:
                raise Interrupted(stop.number, counters.step)
    return scores


class StopSignal:
    """Notes the first SIGINT or SIGTERM instead of dying in the middle of a step."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, self._note) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number:  # asked twice: do not wait for the step's end
            raise KeyboardInterrupt
        self.number = number


def _backward(loss: Tensor, optimiser: torch.optim.Optimizer, clip_norm: float) -> float | None:
    """Gradients of the loss, clipped; their norm before that, or None when it is no use."""
    optimiser.zero_grad(set_to_none=True)
    if not torch.isfinite(loss):
        return None
    loss.backward()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(parameters, clip_norm))
    return norm if norm < float("inf") else None


def _warn_or_stop(step: int, batch: Batch, loss: float, in_a_row: int) -> None:
    cases = ", ".join(batch.cases)
    log.warning("step %d: loss %g or its gradient is not finite; skipped (cases %s)", step, loss, cases)
    if in_a_row >= MAX_BAD_STEPS:
        raise TrainingError(
            f"step {step}",
            found=f"loss {loss:g} or its gradient was not finite {in_a_row} times in a row (now: {cases})",
            rule="A training learns from finite numbers",
            remedy="Lower optimizer.lr, and look at these cases; the last checkpoint is from before",
        )


def _restore(
    run: Path, task: nn.Module, network: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[_Counters, dict[str, float]]:
    """Takes up the run's last checkpoint, if there is one: where it stood and what it scored."""
    if "last" not in checkpoint.read_index(run):
        return _Counters(), {}
    last, state = checkpoint.load_training(run)
    weights = {_prefix(task, network) + name: tensor for name, tensor in last.tensors.items()}
    task.load_state_dict({**weights, **state["task"]}, strict=True)
    optimiser.load_state_dict(state["optimiser"])
    return _Counters(**state["counters"]), dict(last.info.scores)


def _save(
    run: Path,
    task: nn.Module,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    counters: _Counters,
    info: CheckpointInfo,
    score: float | None,
    keep_every: int | None,
) -> None:
    prefix = _prefix(task, network)
    beside = {name: tensor for name, tensor in task.state_dict().items() if not name.startswith(prefix)}
    state = {"optimiser": optimiser.state_dict(), "counters": dict(vars(counters)), "task": beside}
    checkpoint.save(run, network, info, state, score, keep_every)
    write_card(run, info)


def blocks_of(network: nn.Module) -> list[str]:
    """The blocks of a network from its input to its output: "encoder.0", ..., "decoder.0", ..., "output"."""
    return list(dict.fromkeys(_block(name) for name, _ in network.named_parameters()))


def _block(name: str) -> str:
    part, *rest = name.split(".")
    return ".".join([part, *rest[:1]]) if part != "output" else part


def _block_of(task: nn.Module, network: nn.Module) -> Callable[[str], str]:
    """The block of a parameter of the task; what is not of the network goes with its output."""
    prefix, last = _prefix(task, network), blocks_of(network)[-1]
    return lambda name: _block(name.removeprefix(prefix)) if name.startswith(prefix) else last


def _prefix(task: nn.Module, network: nn.Module) -> str:
    """What the names of the network's tensors begin with among the task's."""
    name = next(name for name, module in task.named_modules() if module is network)
    return f"{name}." if name else ""


def whole(steps: int | None) -> int:
    """A number of steps that was resolved; ValueError where it was not."""
    if steps is None:
        raise ValueError("resolve the configuration first")
    return steps
