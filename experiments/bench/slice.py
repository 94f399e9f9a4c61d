"""Measures the slice on this machine: patches from the store, their augmentation, training and prediction.

    python -m fewvox.experiments.bench.slice [--json FILE]

All data are synthetic and made anew; medians of several runs in one process. Ratios say more than
seconds, which are those of one machine on one day.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from ...data.formats.files import read_volume
from ...data.loader import PatchConfig, PatchSampler
from ...data.plan import make_plan
from ...data.prepare import prepare
from ...data.scan import scan
from ...data.store import Store
from ...data.synthetic import NucleiConfig, write_nuclei
from ...seg.finetune import Supervised
from ...seg.networks.registry import architecture_for, build
from ...seg.predict import Predictor
from ..display import console

RUNS = 7
# large enough that reading a whole volume for one patch shows
LARGE = NucleiConfig(shape=(48, 256, 256), nuclei=(20, 30))


def measure() -> dict[str, float]:
    """Seconds of each part, and ratios between them; see the keys."""
    with tempfile.TemporaryDirectory() as folder:
        data = write_nuclei(Path(folder) / "data", unannotated=0, annotated=4, test=1, seed=1, config=LARGE)
        scanned = scan(data / "train")
        plan = make_plan(scanned.fingerprint, budget="cpu")
        store = prepare(scanned, plan, Path(folder) / "store")
        return _measure_store(store, data / "train" / "images")


def _measure_store(store: Store, images: Path) -> dict[str, float]:
    case = store.annotated[0]
    training = store.plan.training
    bare = _sampler(store, PatchConfig(spatial=None, intensity=None))
    full = _sampler(store, PatchConfig())
    network = build(architecture_for(store.plan), seed=0)
    task = Supervised(network)
    batch = full.batch(0)
    predictor = Predictor(network=network, plan=store.plan)
    image = store.image(case.id)[:]
    read = _median(lambda k: bare.batch(k)) / training.batch
    supply = _median(lambda k: full.batch(k)) / training.batch
    whole = _median(lambda _: read_volume(images / f"{case.id}.tif"))
    step = _median(lambda k: task(batch, k).loss.backward()) / training.batch
    predicted = _median(lambda _: predictor.classes(image), runs=3)
    return {
        "patch_read_seconds": read,
        "patch_supply_seconds": supply,
        "whole_file_read_seconds": whole,
        "training_step_seconds_per_patch": step,
        "prediction_voxels_per_second": float(np.prod(case.shape)) / predicted,
        "whole_file_over_patch_read": whole / read,
        "training_step_over_supply": step / supply,
    }


def _sampler(store: Store, config: PatchConfig) -> PatchSampler:
    training = store.plan.training
    cases = [case.id for case in store.annotated]
    return PatchSampler(store, cases, training.patch, training.batch, config, seed=0)


def _median(work: Callable[[int], object], runs: int = RUNS) -> float:
    """Median wall-clock seconds of `work`, after one run to warm up."""
    seconds = []
    for k in range(runs + 1):
        start = time.perf_counter()
        work(k)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> None:
    """Prints the figures as a table, and writes them with `--json FILE`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = measure()
    table = Table(title=f"one process, {torch.get_num_threads()} threads, medians of {RUNS} runs")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    console.print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
