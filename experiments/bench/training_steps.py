"""How long a training step takes: of the planned U-Net, as a user of each tool starts it, and of networks.

Each tool runs in processes of its own, in turn, since what one does to the process's memory would meet the
other: fewvox tries whether to keep it, nnU-Net leaves it to the system. A step is one of the tool's own (loss
with deep supervision, backward pass, clipping, optimiser) on a batch that is there already.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, TypeVar

import torch

from ...data.labels import LabelTable
from ...data.loader import PatchBatch
from ...data.plan import Plan, Preprocessing, Stride, Training
from ...data.settings import settings
from ...data.volume import Shape
from ...seg.engine.allocator import kept_memory
from ...seg.engine.loop import whole
from ...seg.engine.optimisers import build_optimiser
from ...seg.engine.precision import Precision
from ...seg.engine.progress import Progress
from ...seg.engine.rates import Rates, block_namer
from ...seg.engine.state import TrainingState
from ...seg.engine.step import learn
from ...seg.finetune import FinetuneConfig, resolved_config, task_of
from ...seg.networks.registry import Architecture, architecture_for, build
from ...seg.predict import kind_of
from ...seg.training import choose_device, estimate
from .figure import Figure
from .nnunet_trainer import TRAINING, nnunet_step

# after one to warm up
_STEPS = 5
_FOUR_POOLINGS: tuple[Stride, ...] = ((2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))


@settings
class StepSizes:
    """The network and the batch; 16.5 million parameters, as nnU-Net plans it for cubes of 64 voxels."""

    patch: Shape = (64, 64, 64)
    strides: tuple[Stride, ...] = _FOUR_POOLINGS
    width: int = 32
    batch: int = 2
    steps: int = _STEPS


@settings
class Trained:
    """A network as it was trained: its plan, and the resolved configuration of the fine-tuning."""

    architecture: Architecture
    plan: Plan
    config: FinetuneConfig


What = TypeVar("What")


@settings
class Taken:
    """Median seconds of a step, and the most bytes that the process held."""

    seconds: float
    peak_bytes: int


def step_figures(runs: int, sizes: StepSizes | None = None) -> list[Figure]:
    """Seconds of a step and the peak of memory beside nnU-Net's, medians over processes."""
    sizes = sizes or StepSizes()
    tools = {"ours": our_steps, **({"theirs": nnunet_steps} if find_spec("nnunetv2") else {})}
    found = _in_turn({tool: partial(_apart, steps, sizes) for tool, steps in tools.items()}, runs)
    millions = parameters(architecture_for(plan_of(sizes))) / 1e6
    work = f"a step of the planned U-Net ({millions:.1f} M), batch {sizes.batch} of {sizes.patch}"
    return [
        _figure(work, {tool: [t.seconds for t in taken] for tool, taken in found.items()}, "s", "step"),
        _figure(
            work,
            {tool: [t.peak_bytes for t in taken] for tool, taken in found.items()},
            "peak bytes",
            "memory",
        ),
    ]


def _figure(work: str, found: dict[str, list[float]], unit: Literal["s", "peak bytes"], what: str) -> Figure:
    medians = {tool: statistics.median(values) for tool, values in found.items()}
    return Figure(
        what="train",
        work=work,
        ours=medians["ours"],
        peer="nnU-Net",
        theirs=medians.get("theirs"),
        unit=unit,
        key=f"{what}_vs_nnunet",
        missing=None if "theirs" in medians else TRAINING,
    )


def seconds_of(trainings: Mapping[str, Trained], runs: int) -> dict[str, float]:
    """Seconds of a step of each training, medians over processes."""
    found = _in_turn({name: partial(_apart, steps_of, what) for name, what in trainings.items()}, runs)
    return {name: statistics.median(t.seconds for t in taken) for name, taken in found.items()}


def _in_turn(measured: Mapping[str, Callable[[], Taken]], runs: int) -> dict[str, list[Taken]]:
    found: dict[str, list[Taken]] = {name: [] for name in measured}
    for _ in range(runs):
        for name, measure in measured.items():
            found[name].append(measure())
    return found


def _apart(steps: Callable[[What], Taken], what: What) -> Taken:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(steps, what).result()


def our_steps(sizes: StepSizes) -> Taken:
    """Steps of a fine-tuning of the U-Net with its defaults on the CPU."""
    plan = plan_of(sizes)
    config = resolved_config(FinetuneConfig(steps=1000, device="cpu"), plan, 1)
    return steps_of(Trained(architecture=architecture_for(plan), plan=plan, config=config), sizes.steps)


def steps_of(trained: Trained, steps: int = _STEPS) -> Taken:
    """Steps of a fine-tuning on a batch of noise, whose patch and size are the plan's."""
    architecture, plan, config = trained.architecture, trained.plan, trained.config
    device = choose_device(config.device)
    network = build(architecture, 0).to(device)
    task = task_of(network, architecture.in_channels, plan, None, config)
    optimiser = build_optimiser(task, config.optimizer, block_namer(task, network))
    state = TrainingState(
        task=task,
        network=network,
        optimiser=optimiser,
        precision=Precision(config.precision, device),
        average=None,
        progress=Progress(),
    )
    rates = Rates(optimiser, network, config.schedule, whole(config.steps))
    images, labels = batch_of(plan)
    overlapping = kind_of(plan) == "overlapping"
    labels = labels.expand(-1, architecture.classes, -1, -1, -1) if overlapping else labels[:, 0]
    batch = PatchBatch(images=images, labels=labels, cases=("a",) * len(images))
    needs = estimate(task, network, batch, config)

    def step(number: int) -> None:
        rates.set(number)
        task.train()
        learn(state, [batch] * config.accumulate, number, config.accumulate, config.clip_norm)
        if device.type == "cuda":
            torch.cuda.synchronize()

    with kept_memory(needs.keep_memory):
        return _taken(step, steps)


def nnunet_steps(sizes: StepSizes) -> Taken:
    """Steps of nnU-Net's trainer on the CPU."""
    plan = plan_of(sizes)
    with tempfile.TemporaryDirectory() as folder:
        return _taken(nnunet_step(Path(folder), plan, *batch_of(plan)), sizes.steps)


def parameters(architecture: Architecture) -> int:
    """How many a network has."""
    with torch.device("meta"):
        return sum(p.numel() for p in build(architecture).parameters())


def batch_of(plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, C, Z, Y, X) of noise, and labels (B, 1, Z, Y, X) of 0 and 1 by the first channel."""
    shape = (plan.training.batch, len(plan.preprocessing.channels), *plan.training.patch)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return images, (images[:, :1] > 1).long()


def plan_of(sizes: StepSizes) -> Plan:
    """Of one channel and two classes."""
    how = Preprocessing(
        unit=None, spacing=None, orientation="stored", channels=("image",), normalisation=("zscore",)
    )
    training = Training(patch=sizes.patch, strides=sizes.strides, width=sizes.width, batch=sizes.batch)
    return Plan(preprocessing=how, training=training, labels=LabelTable())


def _taken(step: Callable[[int], object], steps: int) -> Taken:
    """Of the steps after the first, which warms up."""
    seconds = []
    for number in range(steps + 1):
        start = time.perf_counter()
        step(number)
        seconds.append(time.perf_counter() - start)
    return Taken(seconds=statistics.median(seconds[1:]), peak_bytes=_peak())


def _peak() -> int:
    import resource  # on Unix alone

    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib * 1024
