"""One step of a training: from batches to moved weights, or to none where they are of no use."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

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
    """What a step found in its batches: mean loss, mean logs, the gradient's norm, and the cases of it.

    `useful`: whether the weights have moved; where not, `cases` are those of the batches at fault, and
    `overflow` tells that the loss scale was.
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
    loss, logs, cases, bad = 0.0, dict[str, float](), list[str](), list[str]()
    for batch in batches:
        with precision.forward():
            result: StepResult = state.task(batch.to(device), step)
        share = result.loss / number
        loss += float(share.detach())
        cases += batch.cases
        if not math.isfinite(loss):
            bad = bad or list(batch.cases)
            continue
        precision.scaler.scale(share).backward()
        for name, value in result.logs.items():
            logs[name] = logs.get(name, 0.0) + float(value) / number
    may_overflow = not bad and precision.may_overflow
    norm = math.nan if bad else _update(state, clip_norm)
    useful = math.isfinite(norm)
    if not useful:
        # running means have seen the batches already
        for buffer, before in zip(state.task.buffers(), kept, strict=True):
            buffer.copy_(before)
    return Learned(
        loss=loss,
        logs=logs,
        norm=norm,
        cases=tuple(dict.fromkeys(bad or cases)),
        useful=useful,
        overflow=may_overflow and not useful,
    )


def _update(state: TrainingState, clip_norm: float) -> float:
    """Moves the weights by the clipped gradients, if these are finite; gives their norm before that."""
    scaler, optimiser = state.precision.scaler, state.optimiser
    scaler.unscale_(optimiser)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(parameters, clip_norm))
    if math.isfinite(norm):
        scaler.step(optimiser)
    scaler.update()
    return norm
