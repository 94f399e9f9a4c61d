"""What every training shares, whatever its task: patch and network, device, and what it will take."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import psutil
import torch
from pydantic import Field
from torch import Tensor, nn

from ..data.augment.chain import AugmentConfig
from ..data.errors import UserError
from ..data.plan import Plan
from ..data.settings import checked, settings
from ..data.supply import default_workers
from . import run
from .checkpoint import CheckpointInfo, load
from .engine.acceleration import accelerate, has_compiler
from .engine.allocator import Trial, can_keep, kept_memory, tried
from .engine.distributed import processes, rank
from .engine.estimate import seconds_per_step, training_bytes
from .engine.launch import launched
from .engine.loop import LoopConfig, whole
from .engine.memory import told_out_of_memory
from .engine.optimisers import SHORT_TRAINING, resolved
from .engine.precision import Precision, resolved_precision
from .engine.rates import highest_rate
from .engine.schedules import resolved_schedule
from .engine.step import Batch
from .inputs import input_statistics
from .networks.network import Network
from .networks.registry import DEFAULT, NetworkName
from .probe import probed

log = logging.getLogger(__name__)


@settings
class TrainingConfig(LoopConfig):
    """A training of the network of a plan. Patch, width and batch come from the plan where they are None.

    `network` is one that `fewvox networks` lists; the plain U-Net where it is None.
    `checkpointing`, `compile` and `channels_last` are ways to compute the same (`engine/acceleration.py`);
    the last two are used on a GPU where they are None. `keep_memory` keeps on a CPU what a step frees for the
    next (`engine/allocator.py`); None: where two steps tried either way say that it helps.
    `seed` decides initial weights and sampling. `workers` are the processes that make batches, which are the
    same whatever their number; 0 is a thread of the training. None: 0 on the CPU, whose cores the network
    needs; half of the cores, up to 8, for a GPU.
    `processes` are those that train together, each with `batch` items of a step: as many as torchrun started,
    which is recorded here and need not be set.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    patch: (
        tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None
    ) = None
    network: NetworkName | None = None
    width: Annotated[int, Field(ge=1, le=512)] | None = None
    batch: Annotated[int, Field(ge=1)] | None = None
    workers: Annotated[int, Field(ge=0)] | None = None
    checkpointing: bool = False
    compile: bool | None = None
    channels_last: bool | None = None
    keep_memory: bool | None = None
    processes: Annotated[int, Field(ge=1)] | None = None


C = TypeVar("C", bound=TrainingConfig)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a training will take: seconds (measured), bytes of memory and disk (computed).

    `trial` is of memory that is kept between steps, `keep_memory` whether it is to be. Each of the
    `processes` that train together takes this memory.
    """

    seconds: float
    memory_bytes: int
    disk_bytes: int
    parameters: int
    keep_memory: bool = False
    trial: Trial | None = None
    processes: int = 1

    def line(self) -> str:
        """The estimate as a person reads it."""
        free = psutil.virtual_memory().available
        short = (
            f" (only {free / 2**30:.1f} GiB are free!)" if self.processes * self.memory_bytes > free else ""
        )
        return (
            f"estimate: {self.seconds / 60:.1f} min of training steps, {self.memory_bytes / 2**30:.2f} GiB "
            f"memory{short}, {self.disk_bytes / 2**20:.0f} MiB disk, {self.parameters:,} parameters"
            + (f"\n{self.trial.line()}" if self.trial else "")
            + (f"\n{self.processes} processes train together: that memory each" if self.processes > 1 else "")
        )


def said(announce: Callable[[str], None] | None) -> Callable[[str], None]:
    """What to tell the user with: by the first of several processes, and to the log where nobody listens."""
    return log.debug if rank() else announce or log.info


def planned(plan: Plan, config: TrainingConfig) -> Plan:
    """The plan with the configuration's own patch, width and batch in it.

    Another patch must be a multiple of the plan's strides, whose number stays; UserError otherwise.
    """
    training = plan.training
    patch, width = config.patch or training.patch, config.width or training.width
    multiple = tuple(math.prod(stride[axis] for stride in training.strides) for axis in range(3))
    if any(n % m for n, m in zip(patch, multiple, strict=True)):
        raise UserError(
            "patch",
            found=f"{patch}",
            rule=f"Each axis is a multiple of {multiple}, the product of the plan's strides",
            remedy="Choose such a patch, or other strides in the plan",
        )
    changed = replace(
        training,
        patch=patch,
        width=width,
        max_width=max(width, training.max_width),
        batch=config.batch or training.batch,
    )
    return checked(replace(plan, training=changed), "plan")


def resolved_training(config: C, plan: Plan) -> C:
    """The configuration with `auto` and None replaced by what will be used, all but `steps`, which are set.

    `plan` is the planned one.
    """
    steps = whole(config.steps)
    every, device = max(50, steps // 10), choose_device(config.device)
    if config.processes not in (None, processes()):
        raise UserError(
            f"processes {config.processes}",
            found=f"{processes()} of them",
            rule="torchrun starts as many as are to train together",
            remedy=f"Say `torchrun --nproc-per-node {config.processes} --no-python fewvox ...`, or leave "
            "processes out",
        )
    return replace(
        config,
        optimizer=resolved(config.optimizer, steps),
        schedule=resolved_schedule(config.schedule, steps),
        precision=resolved_precision(config.precision, device),
        validate_every=config.validate_every or every,
        checkpoint_every=config.checkpoint_every or every,
        patch=plan.training.patch,
        network=config.network or DEFAULT,
        width=plan.training.width,
        batch=plan.training.batch,
        device="cuda" if device.type == "cuda" else "cpu",
        workers=_workers(device) if config.workers is None else config.workers,
        compile=has_compiler(device) and processes() == 1 if config.compile is None else config.compile,
        processes=processes(),
        channels_last=device.type == "cuda" if config.channels_last is None else config.channels_last,
    )


def _workers(device: torch.device) -> int:
    number = default_workers(device, launched().local_processes)
    why = "on the CPU the network needs the cores" if device.type == "cpu" else "half of its cores, up to 8"
    log.info("workers: %d (%s)", number, why)
    return number


def with_flips(augment: AugmentConfig, plan: Plan, steps: int) -> AugmentConfig:
    """The same with its flip probability chosen, where it was left open."""
    spatial = augment.spatial
    if spatial is None or spatial.flip_probability is not None:
        return augment
    return replace(augment, spatial=replace(spatial, flip_probability=flip_probability(plan, steps)))


def flip_probability(plan: Plan, steps: int) -> float:
    """How often each axis is flipped: a half where volumes know no orientation or training is long.

    In a short training on oriented volumes flips cost more than they give: on hippocampi (16 labels, 300
    steps) they took 0.09 of mean Dice, as the front of a flipped volume is its back.
    """
    return 0.5 if plan.preprocessing.orientation == "stored" or steps >= SHORT_TRAINING else 0.0


def described(
    network: Network, info: CheckpointInfo, patches: Tensor, steps: int, scores: dict[str, float]
) -> CheckpointInfo:
    """What a checkpoint of `network` after so many steps says of itself.

    `patches` (B, C, Z, Y, X) are of its data set, without augmentation.
    """
    return replace(
        info,
        steps=steps,
        scores=scores,
        probe=probed(network, info.architecture.in_channels),
        inputs=input_statistics(network, patches),
    )


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` is the GPU where there is one. Raises UserError when there is none."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(
            f"device {name}",
            found="no such device",
            rule="There are: auto, cpu, cuda",
            remedy="Choose one of them",
        )
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device cuda",
            found="torch sees no GPU",
            rule="A CUDA build of torch and a driver are needed",
            remedy="Use device=cpu, or see the README on installing with a GPU",
        )
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    here, gpus = launched(), torch.cuda.device_count()
    if here.local_processes > gpus:
        raise UserError(
            f"{here.local_processes} processes",
            found=f"{gpus} GPUs",
            rule="Each process has a GPU of its own",
            remedy=f"Say `torchrun --nproc-per-node {gpus}`, or device=cpu",
        )
    # of several processes each has its own; threads would take the first
    return torch.device("cuda", here.local_rank) if here.processes > 1 else torch.device("cuda")


def accelerated(task: nn.Module, network: Network, config: TrainingConfig) -> nn.Module:
    """The task, which computes as a resolved configuration says; see `accelerate`."""
    accelerate(
        task,
        network,
        checkpointing=config.checkpointing,
        compiled=bool(config.compile),
        channels_last=bool(config.channels_last),
    )
    return task


@contextmanager
def within_memory(
    network: Network, config: TrainingConfig, *, views: int = 1, least: int = 1
) -> Iterator[None]:
    """Lack of memory within the block is told with a setting that would fit; see `told_out_of_memory`."""
    if config.patch is None or config.batch is None:
        raise ValueError("resolve the configuration first")
    with told_out_of_memory(network, config.batch, config.patch, views=views, least=least):
        yield


def check_validated(settings: Mapping[str, object], *, validated: bool) -> None:
    """Raises UserError where settings, None where they are not used, need scores that a training lacks."""
    idle = [f"{name}={value}" for name, value in settings.items() if value is not None]
    if idle and not validated:
        raise UserError(
            ", ".join(idle),
            found="no validation score",
            rule="It goes by the scores of validation cases",
            remedy="Fine-tune with validation cases, or leave it out",
        )


def extended(out: Path, network: Network, config: TrainingConfig) -> str:
    """Gives a run the steps of this configuration; says in words how the learning rate changes.

    Raises RunError unless they are more than it had.
    """
    steps, peak = whole(config.steps), config.optimizer.lr
    if peak is None:
        raise ValueError("resolve the configuration first")
    before = run.extend(out, config)
    done = load(out, "last").info.steps if run.has_checkpoint(out) else 0
    old, new = (highest_rate(peak, done, n, config.schedule, network) for n in (before, steps))
    return (
        f"extended from {before} to {steps} steps; at step {done} the learning rate goes on at {new:.3g}, "
        f"where it was {old:.3g}"
    )


def estimate(
    task: nn.Module, network: Network, batch: Batch, config: TrainingConfig, *, views: int = 1
) -> Estimate:
    """What the whole training will take, from a few steps on a copy of the task.

    `config` is resolved; `views` is how many times the network reads a batch before a step is made.
    """
    if config.patch is None or config.batch is None:
        raise ValueError("resolve the configuration first")
    device = next(task.parameters()).device
    timed = partial(seconds_per_step, task, batch.to(device), Precision(config.precision, device))
    trial, keep = None, bool(config.keep_memory)
    with within_memory(network, config, views=views), kept_memory(keep):
        if config.keep_memory is None and device.type == "cpu" and can_keep():
            trial = tried(timed)
            keep, seconds = trial.helps, trial.best
        else:
            seconds = timed()
    channels = next(network.parameters()).shape[1]
    parameters = sum(p.numel() for p in task.parameters())
    return Estimate(
        seconds=seconds * whole(config.steps) * config.accumulate,
        memory_bytes=training_bytes(network, views * config.batch, channels, config.patch),
        # last, the one before, best and the one being written; float32 weights, their average where there is
        # one, and up to two moments each
        disk_bytes=4 * parameters * 4 * (3 if config.average is None else 4),
        parameters=parameters,
        keep_memory=keep,
        trial=trial,
        processes=processes(),
    )
