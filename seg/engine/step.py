"""One step of a training: from batches to moved weights, or to none where they are of no use."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .distributed import average_gradients, everyone
from .state import TrainingState


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


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a step found in the batches of all processes: mean loss, gradient norm, cases, and logs.

    Each log is the mean over the batches that have it. `useful`: whether the weights have moved; where not,
    `cases` are those of the batches at fault, and `overflow` tells that the loss scale was.
    """

    loss: float
    logs: dict[str, float]
    norm: float
    cases: tuple[str, ...]
    useful: bool
    overflow: bool


def learn(
    state: TrainingState, batches: Iterable[Batch], step: int, number: int, clip_norm: float
) -> Learned:
    """Moves the weights by the mean gradient of so many batches, unless that is not finite."""
    device, precision = next(state.network.parameters()).device, state.precision
    kept = [buffer.clone() for buffer in state.task.buffers()]
    state.optimiser.zero_grad(set_to_none=True)
    seen = _Seen()
    for batch in batches:
        with precision.forward():
            result: StepResult = state.task(batch.to(device), step)
        seen.add(result, batch.cases, number)
        # one that is not finite too: other processes may wait for what is exchanged on the way
        precision.scaler.scale(result.loss / number).backward()
    everywhere = everyone(seen)
    bad = [case for each in everywhere for case in each.bad]
    may_overflow = not bad and precision.may_overflow
    norm = math.nan if bad else _update(state, clip_norm)
    useful = math.isfinite(norm)
    if not useful:
        # running means have seen the batches already
        for buffer, before in zip(state.task.buffers(), kept, strict=True):
            buffer.copy_(before)
    return Learned(
        loss=_mean([each.loss for each in everywhere]),
        logs=_means(everywhere),
        norm=norm,
        cases=tuple(dict.fromkeys(bad or [case for each in everywhere for case in each.cases])),
        useful=useful,
        overflow=may_overflow and not useful,
    )


@dataclass
class _Seen:
    """What a process has seen of a step: mean loss and all logs, its cases, those of its first bad batch."""

    loss: float = 0.0
    logs: dict[str, list[float]] = field(default_factory=dict)
    cases: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def add(self, result: StepResult, cases: tuple[str, ...], number: int) -> None:
        """Takes in one of so many batches."""
        self.loss += float(result.loss.detach() / number)
        self.cases += cases
        if not math.isfinite(self.loss):
            self.bad = self.bad or list(cases)
        for name, value in result.logs.items():
            self.logs.setdefault(name, []).append(float(value))


def _means(everywhere: Sequence[_Seen]) -> dict[str, float]:
    """The mean of each log over the batches, of all processes, that have it."""
    names = dict.fromkeys(name for each in everywhere for name in each.logs)
    return {
        name: _mean([found for each in everywhere for found in each.logs.get(name, ())]) for name in names
    }


def _mean(values: Sequence[float]) -> float:
    # fmean refuses infinities of both signs
    return sum(values) / len(values)


def _update(state: TrainingState, clip_norm: float) -> float:
    """Moves the weights by the mean gradients of all processes, clipped, if finite; gives the norm."""
    scaler, optimiser = state.precision.scaler, state.optimiser
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    # before the scale is taken off, which looks for overflows: it has to find the same everywhere
    average_gradients(parameters)
    scaler.unscale_(optimiser)
    norm = float(nn.utils.clip_grad_norm_(parameters, clip_norm))
    if math.isfinite(norm):
        scaler.step(optimiser)
    scaler.update()
    return norm
