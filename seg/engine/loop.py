"""The training loop, for every task: supervised or pretext."""

import logging
import math
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field
from torch import nn

from ...data.errors import UserError
from ...data.settings import settings
from ..checkpoint import CheckpointInfo
from .average import Average
from .distributed import by_the_first, highest, rank
from .optimisers import OptimiserConfig, build_optimiser
from .precision import Precision, PrecisionName
from .progress import Progress
from .rates import Rates, block_namer
from .schedules import ScheduleConfig
from .state import TrainingState, random_numbers, random_states
from .step import Batch, Learned, learn
from .stopping import Interrupted, StopSignal
from .tracking import Tracker, Untracked

log = logging.getLogger(__name__)

# so many useless steps in a row are no accident (torchtitan stops at the first)
MAX_BAD_STEPS = 3


class TrainingError(UserError):
    """A training that cannot go on."""


@settings
class LoopConfig:
    """How long and how a network is trained; None stands for a value that is resolved before it starts.

    `steps` None is told by the training: 1000 in pretraining, by the number of labels in fine-tuning.
    `validate_every` and `checkpoint_every` are in steps: when None a tenth of the training, at least 50; of a
    pretraining a fifth.
    `clip_norm` is nnU-Net's. The first checkpoint of every `keep_every` steps stays for good (None: none).

    - `accumulate`: batches whose gradients are averaged before each step: less memory than a larger batch.
    - `precision`: what the forward pass computes in (`precision.py`).
    - `average`: decay of a moving average of the weights (`average.py`), which is then what is validated and
      predicts; None keeps the weights of the last step.
    - `smoothing`: the share of the old in the smoothed score that the best checkpoint is chosen by. nnU-Net's
      is 0.9 over 1,000 validations; over about ten, 0.5 takes two thirds of the noise's variance away and
      lags by one of them. 0 is the score itself.
    - `early_stop`: ends the training after so many validations without a better smoothed score.
    """

    steps: Annotated[int, Field(ge=1)] | None = None
    optimizer: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip_norm: Annotated[float, Field(gt=0)] = 12.0
    validate_every: Annotated[int, Field(ge=1)] | None = None
    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    keep_every: Annotated[int, Field(ge=1)] | None = None
    accumulate: Annotated[int, Field(ge=1)] = 1
    precision: PrecisionName = "auto"
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.5
    early_stop: Annotated[int, Field(ge=1)] | None = None


class Observer(Protocol):
    """Is told how a training goes."""

    def step(self, done: int, steps: int, loss: float) -> None: ...  # noqa: D102

    def validated(self, done: int, scores: dict[str, float]) -> None: ...  # noqa: D102


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
    seed: int = 0,
    trained: nn.Module | None = None,
) -> dict[str, float]:
    """Trains to the last step, from the run's last checkpoint if it has one; returns the last scores.

    What is recorded of a step are means over those of its batches that have the number. Where several
    processes train together, all call this alike; the first one alone validates, writes and tells `observer`,
    and all return its scores.

    Args:
        task: called with (batch, step), gives a StepResult; holds `network`. What it has beside (heads, a
            teacher) is kept in the training state.
        network: what checkpoints keep as weights.
        batches: gives the batches from a first up to a last, `accumulate` for each step; closed when the
            training ends.
        run: folder of the run.
        config: resolved: no None, no "auto".
        describe: what a checkpoint after so many steps with such scores says of itself.
        after_step: called with the step (from 0) after each update of the weights.
        validate: scores of the network now; "score" is what best checkpoints are chosen by.
        validation: what the recorded names of these scores begin with.
        glance: cheap scores, recorded under "patches" every `glance_every` steps; nothing is chosen by them.
        observer: is told of every step and validation.
        seed: of what the network itself draws (dropout).
        trained: whose blocks the schedule goes by, where what learns is another network than what is kept: a
            student.

    Raises:
        TrainingError: the loss was not finite three times in a row.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was written if a step was trained.
    """
    steps, each = whole(config.steps), config.accumulate
    if rank():
        observer = glance = None
    learner = network if trained is None else trained
    optimiser = build_optimiser(task, config.optimizer, block_namer(task, learner))
    rates = Rates(optimiser, learner, config.schedule, steps)
    state = TrainingState(
        task=task,
        network=network,
        optimiser=optimiser,
        precision=Precision(config.precision, next(network.parameters()).device),
        average=None if config.average is None else Average(network, config.average),
        progress=Progress(),
    )
    with ExitStack() as stack:
        stack.enter_context(random_numbers(seed))
        scores = state.restore(run)
        state.check_alike()
        progress = state.progress
        if progress.stops(config.early_stop):
            return scores
        tracker = stack.enter_context(closing(Untracked() if rank() else Tracker(run, progress.step)))
        stop = stack.enter_context(StopSignal())
        stream = stack.enter_context(closing(batches(each * progress.step, each * steps)))
        # the data start up here
        supply = chain(list(islice(stream, 1)), stream)
        if asked := highest(stop.number):
            raise Interrupted(asked, None)
        for step in range(progress.step, steps):
            lr = rates.set(step)
            task.train()
            learned = learn(state, islice(supply, each), step, each, config.clip_norm)
            progress.made(useful=learned.useful, overflow=learned.overflow)
            if learned.useful:
                if after_step is not None:
                    after_step(step)
                if state.average is not None:
                    state.average.update()
                found = {**learned.logs, "loss": learned.loss, "lr": lr, "gradient_norm": learned.norm}
                tracker.log(step, found)
            else:
                tracker.log(step, {"lr": lr, "skipped": progress.skipped, **progress.overflown()})
                _warn_or_stop(step, learned, progress.bad_in_a_row)
            if observer is not None:
                observer.step(progress.step, steps, learned.loss)

            if glance is not None and glance_every and progress.step % glance_every == 0:
                with state.presented():
                    tracker.log(step, {f"patches/{name}": value for name, value in glance().items()})
            last = progress.step == steps
            due = validate is not None and (last or progress.step % whole(config.validate_every) == 0)
            # a signal to one process is one to all
            asked = highest(stop.number)
            if not (due or last or asked or progress.step % whole(config.checkpoint_every) == 0):
                continue
            with state.presented() as beside:
                told, score = {}, None
                if validate is not None and due:
                    scores = by_the_first(validate)
                    score = progress.validated(scores.get("score"), config.smoothing)
                    scores |= {"smoothed_score": score} if score is not None else {}
                    tracker.log(step, {f"{validation}/{name}": value for name, value in scores.items()})
                    if observer is not None:
                        observer.validated(progress.step, scores)
                    # metadata are JSON, which has no NaN
                    told = {name: value for name, value in scores.items() if math.isfinite(value)}
                early = progress.stops(config.early_stop)
                if early:
                    tracker.log(step, {"stopped_early": progress.step})
                info = replace(by_the_first(describe, progress.step, told), stopped_early=early)
                beside |= {"random": random_states()}
                by_the_first(state.save, run, info, score, config.keep_every, beside)
            if early:
                log.warning("stopped early: no better score in %d validations", progress.since_best)
                break
            asked = highest(stop.number)
            if asked and not last:
                raise Interrupted(asked, progress.step)
    return scores


def _warn_or_stop(step: int, learned: Learned, in_a_row: int) -> None:
    if learned.overflow:
        log.info("step %d: a gradient beyond float16; the loss scale was lowered", step)
        return
    cases, loss = ", ".join(learned.cases), learned.loss
    log.warning("step %d: loss %g or its gradient is not finite; skipped (cases %s)", step, loss, cases)
    if in_a_row >= MAX_BAD_STEPS:
        raise TrainingError(
            f"step {step}",
            found=f"loss {loss:g} or its gradient was not finite {in_a_row} times in a row (now: {cases})",
            rule="A training learns from finite numbers",
            remedy="Lower optimizer.lr, and look at these cases; the last checkpoint is from before",
        )


def whole(steps: int | None) -> int:
    """A number of steps that was resolved; ValueError where it was not."""
    if steps is None:
        raise ValueError("resolve the configuration first")
    return steps
