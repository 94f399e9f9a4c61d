"""What predicting a whole volume takes beside the network itself, and with a small one."""

import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from typing import Literal, cast

import psutil
import torch
from torch import Tensor, nn

from ...data.labels import LabelTable
from ...data.plan import Plan, Preprocessing, Training
from ...data.volume import Shape
from ...seg.networks.network import Network
from ...seg.networks.registry import architecture_for, build
from ...seg.predict import Model, Predictor
from ...seg.tiles import Tiles
from .figure import Figure
from .windows_of_peers import PREDICTING, Windows, monai_windows, nnunet_windows

VOLUME: Shape = (192, 256, 256)
PATCH: Shape = (96, 96, 96)
Tool = Literal["fewvox", "nnunet", "monai"]
PEERS: dict[Tool, str] = {"nnunet": "nnU-Net", "monai": "MONAI"}


def predict_figures(runs: int, volume: Shape = VOLUME, patch: Shape = PATCH) -> list[Figure]:
    """Our prediction beside nnU-Net's and MONAI's windows, in turn in one process, without mirroring.

    From an image in memory to its class numbers; of the peers' logits those are torch's argmax. The overhead
    is what is not spent in a network that does next to nothing. Memory is the peak of a process of its own
    above what it held before.
    """
    image = torch.randn((1, *volume), generator=torch.Generator().manual_seed(0))
    tools = _tools(patch)
    work = f"{Tiles(shape=volume, patch=patch).count} windows of {patch} over {volume}"
    overheads = _in_turn(tools, _Timed(_Trivial()), image, min(runs, 5))
    totals = _in_turn(tools, _Timed(small_model(patch).network), image, min(runs, 3), whole=True)
    peaks: dict[Tool, float] = {tool: _peak(tool, volume, patch) for tool in tools}
    return [
        figure
        for what, words, found in (
            ("overhead", f"{work}, outside the network", overheads),
            ("total", f"{work}, with a small U-Net", totals),
            ("memory", f"{work}, with a small U-Net", peaks),
        )
        for figure in _figures(what, words, found)
    ]


def small_model(patch: Shape) -> Model:
    """A U-Net of three levels with 8 features at the finest."""
    how = Preprocessing(
        unit=None, spacing=None, orientation="stored", channels=("image",), normalisation=("zscore",)
    )
    training = Training(patch=patch, strides=((2, 2, 2), (2, 2, 2)), width=8)
    plan = Plan(preprocessing=how, training=training, labels=LabelTable())
    return Model(network=build(architecture_for(plan), seed=0).eval(), plan=plan)


class _Trivial(nn.Module):
    """Two classes by the sign of a voxel."""

    def __init__(self) -> None:
        super().__init__()
        self.device = nn.Parameter(torch.empty(0))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images, -images], dim=1)


class _Timed(nn.Module):
    """A network that counts the seconds in it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seconds = network, 0.0

    def forward(self, images: Tensor) -> Tensor:
        start = time.perf_counter()
        found = self.network(images)
        self.seconds += time.perf_counter() - start
        return found


def _tools(patch: Shape) -> dict[Tool, Windows]:
    """Class numbers (Z, Y, X) by us, and by the peers that are installed."""
    tools: dict[Tool, Windows] = {"fewvox": _ours(patch)}
    with suppress(ImportError):
        tools["nnunet"] = _chosen(nnunet_windows(patch, classes=2))
    with suppress(ImportError):
        tools["monai"] = _chosen(monai_windows(patch))
    return tools


def _ours(patch: Shape) -> Windows:
    plan = small_model(patch).plan

    def predict(network: nn.Module, image: Tensor) -> Tensor:
        model = Model(network=cast(Network, network), plan=plan)
        return torch.from_numpy(Predictor(models=(model,)).classes(image.numpy()))

    return predict


def _chosen(windows: Windows) -> Windows:
    return lambda network, image: windows(network, image).argmax(dim=0)


def _in_turn(
    tools: dict[Tool, Windows], network: _Timed, image: Tensor, runs: int, *, whole: bool = False
) -> dict[Tool, float]:
    """Median seconds of each tool, those in the network only where `whole`, after a run to warm up."""
    seconds: dict[Tool, list[float]] = {tool: [] for tool in tools}
    for _ in range(runs + 1):
        for tool, predict in tools.items():
            network.seconds, start = 0.0, time.perf_counter()
            predict(network, image)
            spent = time.perf_counter() - start
            seconds[tool].append(spent if whole else spent - network.seconds)
    return {tool: statistics.median(found[1:]) for tool, found in seconds.items()}


def _figures(what: str, work: str, found: dict[Tool, float]) -> list[Figure]:
    return [
        Figure(
            what="predict",
            work=work,
            ours=found["fewvox"],
            peer=name,
            theirs=found.get(tool),
            unit="peak bytes" if what == "memory" else "s",
            key=f"{what}_vs_{tool}",
            missing=None if tool in found else PREDICTING,
        )
        for tool, name in PEERS.items()
    ]


def _peak(tool: Tool, volume: Shape, patch: Shape) -> float:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        return apart.submit(peak_bytes, tool, volume, patch).result()


def peak_bytes(tool: Tool, volume: Shape, patch: Shape) -> int:
    """The most that this process holds beside what it does now while a tool makes class numbers of a volume.

    A volume of one window is predicted before, for what is loaded or compiled at first use.
    """
    predict, network = _tools(patch)[tool], small_model(patch).network
    predict(network, torch.zeros((1, *patch)))
    image = torch.randn((1, *volume))
    process, peaks, done = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.002):
            peaks[0] = max(peaks[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    predict(network, image)
    done.set()
    watcher.join()
    return peaks[0] - before
