"""How long a step of each pretext method takes beside a step of supervised training.

Both have the same network, patch and batch, and take turns in one process; a step is that of the training
loop (loss, backward pass, clipping, AdamW, and what follows a step) on a batch that is there already. The
costs that `fewvox methods` shows are written by

    python -m fewvox.experiments.bench.methods
"""

import csv
import io
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from ...data.atomic import write_text
from ...data.csv_table import read_rows
from ...data.loader import PatchBatch
from ...data.plan import Stride, Training
from ...data.settings import settings
from ...data.volume import Shape
from ...seg.deep_supervision import Heads
from ...seg.engine.loop import LoopConfig
from ...seg.engine.optimisers import OptimiserConfig, build_optimiser, resolved
from ...seg.engine.precision import Precision
from ...seg.engine.progress import Progress
from ...seg.engine.rates import block_namer
from ...seg.engine.state import TrainingState
from ...seg.engine.step import learn
from ...seg.networks.network import Network
from ...seg.networks.registry import Architecture, build
from ...seg.networks.topology import topology
from ...seg.supervised import Supervised
from ...ssl.method import PLUGINS, Registered, Views, find_method
from ...ssl.method_checks import Situation, fresh
from ...ssl.methods.registry import METHODS
from ..display import console
from ..method_list import COSTS
from .figure import RUNS, Figure, measured
from .volumes import spelled, volume

COLUMNS: tuple[str, ...] = (
    "method",
    "cost",
    "seconds",
    "supervised_seconds",
    "work",
    "machine",
    "commit",
    "command",
)


@settings
class MethodSizes:
    """The network and the batch: those of a small data set on a CPU; 1.4 million parameters."""

    patch: Shape = (32, 40, 32)
    strides: tuple[Stride, ...] = ((2, 2, 2), (2, 2, 2), (2, 2, 2))
    width: int = 16
    batch: int = 4

    @property
    def situation(self) -> Situation:
        """The same, as the checks of methods take it."""
        training = Training(patch=self.patch, strides=self.strides, width=self.width, batch=self.batch)
        architecture = Architecture(in_channels=1, classes=2, topology=topology(training))
        return Situation(architecture=architecture, extent=self.patch, batch=self.batch)

    @property
    def work(self) -> str:
        """The same in words."""
        return f"{self.batch} x {spelled(self.patch)}, {len(self.strides)} poolings, width {self.width}"


def method_figures(
    runs: int, names: Sequence[str] | None = None, sizes: MethodSizes | None = None
) -> list[Figure]:
    """Seconds of a step of each method (all of ours when None) beside those of a supervised step."""
    sizes = sizes or MethodSizes()
    ours = [name for name in sorted(METHODS) if PLUGINS.package(name) is None]
    return [_figure(name, runs, sizes) for name in (ours if names is None else names)]


def _figure(name: str, runs: int, sizes: MethodSizes) -> Figure:
    registered, supervised = find_method(name), supervised_step(sizes)
    return measured(
        "methods",
        f"a step of {name} ({sizes.work})",
        pretext_step(registered, sizes),
        "a supervised step",
        supervised,
        runs,
    )


def pretext_step(registered: Registered, sizes: MethodSizes) -> Callable[[int], object]:
    """A step of a pretraining with the method's defaults."""
    method = fresh(registered, sizes.situation)
    return _step(method, method.network, views(registered, sizes), method.after_step)


def supervised_step(sizes: MethodSizes) -> Callable[[int], object]:
    """A step of a fine-tuning with its defaults."""
    network = build(sizes.situation.architecture, 0)
    pairs = [volume(sizes.patch, seed) for seed in range(sizes.batch)]
    batch = PatchBatch(
        images=torch.stack([torch.from_numpy(image)[None] for image, _ in pairs]),
        labels=torch.stack([torch.from_numpy(labels).long() for _, labels in pairs]),
        cases=tuple(f"v{k}" for k in range(sizes.batch)),
    )
    task = Supervised(network, heads=Heads(network, 1, sizes.patch, 0))
    return _step(task, network, batch, lambda _: None)


def views(registered: Registered, sizes: MethodSizes) -> Views:
    """The views that the method asks for, each item's of one place, with noise of their own."""
    count, generator = registered.method.views(registered.config()).count, torch.Generator().manual_seed(0)
    images = torch.stack([torch.from_numpy(volume(sizes.patch, k)[0])[None] for k in range(sizes.batch)])
    images = (images - images.mean()) / images.std()
    return Views(
        views=tuple(images + 0.1 * torch.randn(images.shape, generator=generator) for _ in range(count)),
        maps=(torch.eye(3, 4, dtype=torch.float64).expand(sizes.batch, 3, 4),) * count,
        cases=tuple(f"v{k}" for k in range(sizes.batch)),
    )


def _step(
    task: nn.Module, network: Network, batch: Any, after_step: Callable[[int], object]
) -> Callable[[int], object]:
    config = LoopConfig(precision="float32", optimizer=resolved(OptimiserConfig(), 1000))
    step = stepper(task, network, config, after_step)
    return lambda number: step(number, [batch])


def stepper(
    task: nn.Module, network: Network, config: LoopConfig, after_step: Callable[[int], object]
) -> Callable[[int, Iterable[Any]], None]:
    """A step of the training loop, of a number (from 0) and its batches; `config` is resolved."""
    state = TrainingState(
        task=task.train(),
        network=network,
        optimiser=build_optimiser(task, config.optimizer, block_namer(task, network)),
        precision=Precision(config.precision, next(network.parameters()).device),
        average=None,
        progress=Progress(),
    )

    def step(number: int, batches: Iterable[Any]) -> None:
        learn(state, batches, number, config.accumulate, config.clip_norm)
        after_step(number)

    return step


def write_costs(file: Path, figures: dict[str, Figure], sizes: MethodSizes, command: str) -> None:
    """Writes what was measured, in place of what the file told of the same methods."""
    kept = {row["method"]: row for row in read_rows(file, COLUMNS)} if file.is_file() else {}
    machine, commit = _machine(), _commit()
    for name, figure in figures.items():
        if figure.theirs is None:
            raise ValueError("a cost is relative to supervised training")
        kept[name] = {
            "method": name,
            "cost": f"{figure.ours / figure.theirs:.2f}",
            "seconds": f"{figure.ours:.3f}",
            "supervised_seconds": f"{figure.theirs:.3f}",
            "work": sizes.work,
            "machine": machine,
            "commit": commit,
            "command": command,
        }
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    # a method that is gone has no cost
    writer.writerows(row for name, row in sorted(kept.items()) if name in METHODS)
    write_text(file, table.getvalue())


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores ({model}), {torch.get_num_threads()} threads, torch {torch.__version__}"


def _commit() -> str:
    """Of the checkout that this file is in, "-dirty" where something is changed; "unknown" without one."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def main(
    method: Annotated[list[str] | None, typer.Option(help="Only these; all of ours if not given.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Steps of each, after one to warm up.")] = RUNS,
    out: Annotated[Path, typer.Option(help="The table to write into.")] = COSTS,
) -> None:
    """Measures the methods, and writes what a step of each costs beside a supervised one."""
    sizes, command = MethodSizes(), ["python", "-m", "fewvox.experiments.bench.methods", *sys.argv[1:]]
    figures = {}
    for name in method or [name for name in sorted(METHODS) if PLUGINS.package(name) is None]:
        (figures[name],) = method_figures(runs, [name], sizes)
        ratio = figures[name].ours / (figures[name].theirs or 1.0)
        console.print(f"{name}: {ratio:.2f} x a supervised step", highlight=False)
    write_costs(out, figures, sizes, shlex.join(command))


if __name__ == "__main__":
    typer.run(main)
