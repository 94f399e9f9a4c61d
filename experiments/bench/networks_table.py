"""What a finished comparison of networks came to, as a table in Markdown: Dice, step time, parameters.

python -m fewvox.experiments.bench.networks_table OUT

Steps are measured when the table is made, on this machine, all networks in turn, as they were trained.
"""

from pathlib import Path

import typer
from rich.console import Console

from ...data.errors import UserError
from ...data.settings import read_yaml
from ...seg import run as runs
from ...seg.checkpoint import load
from ...seg.finetune import FinetuneConfig
from ..cli import answered
from ..comparison import Cell
from ..markdown import in_brackets, markdown_table
from ..results import Results, read_results
from .training_steps import Trained, parameters, seconds_of

_HEAD = ("network", "parameters, millions", "step, s", "of the baseline's", "Dice", "minus the baseline")


def table(out: Path, rounds: int = 3) -> str:
    """A row for each network and number of labels; raises UserError where they are not what was compared."""
    results = read_results(out)
    _check(results, out)
    trained = {arm: _trained(results, out, arm) for arm in results.arms}
    seconds = seconds_of(trained, rounds)
    base = seconds[results.baseline]
    rows = []
    for labels in results.label_counts:
        for arm, one in trained.items():
            millions = parameters(one.architecture) / 1e6
            told = (f"{millions:.2f}", f"{seconds[arm]:.3f}", f"{seconds[arm] / base:.2f}")
            name = arm if len(results.label_counts) == 1 else f"{arm}, {labels} labels"
            rows.append((name, *told, *_dice(results, arm, labels)))
    return markdown_table(_HEAD, rows)


def _check(results: Results, out: Path) -> None:
    """Raises UserError where something else than networks was compared, or one of them has no result."""
    if not results.config.get("compare_networks"):
        raise UserError(
            out,
            found="a comparison of something else",
            rule="Networks are what is compared: compare_networks is true",
            remedy="Give the folder of `make networks`, or of a comparison like it",
        )
    for run in results.runs:
        if run.stage in ("foreign", "untrained"):
            raise UserError(
                out,
                found=f"{run.arm}: masks that were not trained for here",
                rule="Every arm of a table of networks is a network",
                remedy="Leave such arms out of the comparison",
            )
        if run.status == "failed":
            raise UserError(
                out,
                found=f"{run.arm}: {run.error}",
                rule="Every network was trained to its end",
                remedy="Run `fewvox compare` with the same --out, which tries it again, and then this",
            )


def _trained(results: Results, out: Path, arm: str) -> Trained:
    """The network of an arm as it was trained, which is the same in all its cells but for labels and seed."""
    run = out / "finetuning" / Cell(arm=arm, labels=results.label_counts[0], seed=results.seeds[0]).path
    info = load(run, "last").info
    config = read_yaml(run / runs.CONFIG, FinetuneConfig)
    return Trained(architecture=info.architecture, plan=info.plan, config=config)


def _dice(results: Results, arm: str, labels: int) -> tuple[str, str]:
    """Mean Dice, and its paired difference to the baseline's, with intervals."""
    (own,) = (s.dice for s in results.summaries if (s.arm, s.labels) == (arm, labels))
    paired = [d.dice for d in results.differences if (d.arm, d.labels) == (arm, labels)]
    return in_brackets(own), in_brackets(paired[0], "+") if paired else ""


def main(out: Path) -> None:
    """Prints the table of the comparison in the folder OUT."""
    Console(width=10_000).print(table(out), highlight=False, markup=False)


if __name__ == "__main__":
    answered(lambda: typer.run(main))
