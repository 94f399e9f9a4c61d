"""What finished comparisons of networks came to, as a table in Markdown: Dice, seconds of a step, parameters.

python -m fewvox.experiments.bench.networks_table OUT

Steps are measured when the table is made, on this machine, all networks in turn.
"""

from pathlib import Path

import torch
import typer
from rich.console import Console

from ...data.errors import UserError
from ...data.plan import Plan
from ...seg.checkpoint import load
from ...seg.networks.registry import Architecture, build
from ..cli import answered
from ..comparison import Cell
from ..results import Interval, Results, read_results
from .training_steps import seconds_of_networks

_HEAD = ("network", "parameters, millions", "step, s", "of the baseline's", "Dice", "minus the baseline")


def table(out: Path, runs: int = 3) -> str:
    """A row for each network and number of labels; raises UserError where one was not trained."""
    results = read_results(out)
    _check_trained(results, out)
    trained = {arm: _trained(results, out, arm) for arm in results.arms}
    seconds = seconds_of_networks(trained, runs)
    base = seconds[results.baseline]
    rows = [_HEAD, ("---",) * len(_HEAD)]
    for labels in results.label_counts:
        for arm, (architecture, _) in trained.items():
            told = (
                f"{_parameters(architecture) / 1e6:.2f}",
                f"{seconds[arm]:.3f}",
                f"{seconds[arm] / base:.2f}",
            )
            name = arm if len(results.label_counts) == 1 else f"{arm}, {labels} labels"
            rows.append((name, *told, *_dice(results, arm, labels)))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _check_trained(results: Results, out: Path) -> None:
    """Raises UserError where an arm failed, or is no network's."""
    for run in results.runs:
        if run.status == "failed" or run.stage in ("foreign", "untrained"):
            raise UserError(
                out,
                found=f"{run.arm}: {run.error or 'masks that were not trained for here'}",
                rule="Every arm of a comparison of networks is a network that was trained to its end",
                remedy="Run `fewvox compare` with the same --out and such arms alone, and this again",
            )


def _trained(results: Results, out: Path, arm: str) -> tuple[Architecture, Plan]:
    """The network of an arm, and the plan that it was trained by."""
    cell = Cell(arm=arm, labels=results.label_counts[0], seed=results.seeds[0])
    info = load(out / "finetuning" / cell.path, "last").info
    return info.architecture, info.plan


def _parameters(architecture: Architecture) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build(architecture).parameters())


def _dice(results: Results, arm: str, labels: int) -> tuple[str, str]:
    """Mean Dice, and its paired difference to the baseline's, with intervals."""
    (own,) = (s.dice for s in results.summaries if (s.arm, s.labels) == (arm, labels))
    paired = [d.dice for d in results.differences if (d.arm, d.labels) == (arm, labels)]
    return _told(own, ""), _told(paired[0], "+") if paired else ""


def _told(interval: Interval, sign: str) -> str:
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def main(out: Path) -> None:
    """Prints the table of the comparison in the folder OUT."""
    Console(width=10_000).print(table(out), highlight=False, markup=False)


if __name__ == "__main__":
    answered(lambda: typer.run(main))
