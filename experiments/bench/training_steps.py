"""How long a training step of the planned U-Net takes, as a user of each tool would start it.

Each tool runs in processes of its own, in turn, since what one does to the process's memory would meet the
other: fewvox tries whether to keep it, nnU-Net leaves it to the system. A step is one of the tool's own (loss
with deep supervision, backward pass, clipping, optimiser) on a batch that is there already.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import torch

from ...data.labels import LabelTable
from ...data.loader import PatchBatch
from ...data.plan import Plan, Preprocessing, Stride, Training
from ...data.settings import settings
from ...data.volume import Shape
from ...seg.deep_supervision import Heads
from ...seg.engine.allocator import kept_memory
from ...seg.engine.loop import whole
from ...seg.engine.optimisers import build_optimiser
from ...seg.engine.precision import Precision
from ...seg.engine.progress import Progress
from ...seg.engine.rates import Rates, block_namer
from ...seg.engine.state import TrainingState
from ...seg.engine.step import learn
from ...seg.finetune import FinetuneConfig, resolved_config
from ...seg.networks.registry import architecture_for, build
from ...seg.supervised import Supervised
from ...seg.training import accelerated, estimate
from .figure import Figure
from .nnunet_trainer import TRAINING, nnunet_step

_FOUR_POOLINGS: tuple[Stride, ...] = ((2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))


@settings
class StepSizes:
    """The network and the batch; 16.5 million parameters, as nnU-Net plans it for cubes of 64 voxels."""

    patch: Shape = (64, 64, 64)
    strides: tuple[Stride, ...] = _FOUR_POOLINGS
    width: int = 32
    batch: int = 2
    steps: int = 5


@settings
class Taken:
    """Median seconds of a step, and the most bytes that the process held."""

    seconds: float
    peak_bytes: int


def step_figures(runs: int, sizes: StepSizes | None = None) -> list[Figure]:
    """Seconds of a step and the peak of memory beside nnU-Net's, medians over processes."""
    sizes = sizes or StepSizes()
    tools = {"ours": our_steps, **({"theirs": nnunet_steps} if find_spec("nnunetv2") else {})}
    found: dict[str, list[Taken]] = {tool: [] for tool in tools}
    for _ in range(runs):
        for tool, steps in tools.items():
            found[tool].append(_apart(steps, sizes))
    millions = parameters(sizes) / 1e6
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


def _apart(steps: Callable[[StepSizes], Taken], sizes: StepSizes) -> Taken:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(steps, sizes).result()


def our_steps(sizes: StepSizes) -> Taken:
    """Steps of a fine-tuning with its defaults."""
    plan = _plan(sizes)
    config = resolved_config(FinetuneConfig(steps=1000, device="cpu"), plan, 1)
    network = build(architecture_for(plan), 0)
    heads = Heads(network, 1, plan.training.patch, 0)
    task = accelerated(Supervised(network, loss=config.loss, heads=heads), network, config)
    optimiser = build_optimiser(task, config.optimizer, block_namer(task, network))
    state = TrainingState(
        task=task,
        network=network,
        optimiser=optimiser,
        precision=Precision(config.precision, torch.device("cpu")),
        average=None,
        progress=Progress(),
    )
    rates = Rates(optimiser, network, config.schedule, whole(config.steps))
    images, labels = batch_of(sizes)
    batch = PatchBatch(images=images, labels=labels[:, 0], cases=("a",) * sizes.batch)
    needs = estimate(task, network, batch, config)

    def step(number: int) -> None:
        rates.set(number)
        task.train()
        learn(state, [batch], number, 1, config.clip_norm)

    with kept_memory(needs.keep_memory):
        return _taken(step, sizes.steps)


def nnunet_steps(sizes: StepSizes) -> Taken:
    """Steps of nnU-Net's trainer on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        return _taken(nnunet_step(Path(folder), _plan(sizes), *batch_of(sizes)), sizes.steps)


def parameters(sizes: StepSizes) -> int:
    """How many the network of a plan has."""
    with torch.device("meta"):
        network = build(architecture_for(_plan(sizes)))
    return sum(p.numel() for p in network.parameters())


def batch_of(sizes: StepSizes) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, 1, Z, Y, X) of noise, and labels of 0 and 1 that follow it."""
    shape = (sizes.batch, 1, *sizes.patch)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return images, (images > 1).long()


def _plan(sizes: StepSizes) -> Plan:
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
