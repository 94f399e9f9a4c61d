"""What fewvox and nnU-Net reached in finished comparisons, as a table in Markdown.

python -m fewvox.experiments.bench.nnunet_table OUT [OUT ...]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import typer
from rich.console import Console

from ...data.errors import UserError
from ...data.settings import read_json_mapping
from ..cli import answered
from ..markdown import in_brackets, markdown_table
from ..paired_tests import case_means, paired_table, percentile_interval
from ..results import Interval, Results, read_results
from .nnunet_runs import TRAINERS


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An arm in one setting: mean Dice on the test cases, over all and of each seed, Dice on the development
    cases (nnU-Net's alone), minutes of a training, and our Dice minus its Dice: with the interval of
    comparisons, and with that of the percentile bootstrap.
    """

    name: str
    dice: Interval
    of_seeds: tuple[float, ...]
    development: float | None
    minutes: float | None
    ahead: Interval | None
    ahead_by_percentiles: Interval | None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A comparison at one number of labels: the baseline, which is ours, and nnU-Net's arms."""

    name: str
    labels: int
    cases: int
    seeds: int
    ours: Arm
    theirs: tuple[Arm, ...]

    @property
    def better(self) -> Arm:
        """The arm of nnU-Net that the development cases choose."""
        return max(self.theirs, key=lambda arm: arm.development or 0.0)


def settings_in(out: Path) -> list[Setting]:
    """The settings of a finished comparison; raises UserError for one that is not."""
    results = read_results(out)
    return [_setting(results, out, labels) for labels in results.label_counts]


def table(settings: Sequence[Setting]) -> str:
    """A row for each arm in each setting, and below them the mean difference over the settings."""
    head = (
        "setting",
        "arm",
        "Dice",
        "of each seed",
        "Dice in development",
        "fewvox minus it",
        "by percentiles",
        "minutes",
    )
    told = markdown_table(head, [row for setting in settings for row in _rows(setting)])
    differences = [d.mean for d in (setting.better.ahead for setting in settings) if d is not None]
    pooled = f"Mean over {len(differences)} settings of fewvox minus the chosen nnU-Net: "
    return f"{told}\n\n{pooled}{fmean(differences):+.3f}."


def _setting(results: Results, out: Path, labels: int) -> Setting:
    names = [arm for arm in results.arms if arm in TRAINERS]
    failed = [r for r in results.runs if r.labels == labels and r.status == "failed"]
    if failed or not names:
        raise UserError(
            out,
            found=f"{failed[0].arm} failed: {failed[0].error}" if failed else "no arm of nnU-Net",
            rule=f"The arms of nnU-Net are {', '.join(TRAINERS)}, and every cell is scored",
            remedy="Run nnunet_runs, then `fewvox compare`, with the same --out, and this again",
        )
    return Setting(
        name=results.name,
        labels=labels,
        cases=len(results.test_cases),
        seeds=len(results.seeds),
        ours=_arm(results, out, results.baseline, labels),
        theirs=tuple(_arm(results, out, name, labels) for name in names),
    )


def _arm(results: Results, out: Path, name: str, labels: int) -> Arm:
    (summary,) = (s for s in results.summaries if (s.arm, s.labels) == (name, labels))
    differences = [d.dice for d in results.differences if (d.arm, d.labels) == (name, labels)]
    seconds = [r.seconds for r in results.runs if (r.arm, r.labels) == (name, labels) and r.seconds]
    of_seeds = case_means(results.scores, name, labels)
    files = sorted((out / "development" / name / f"labels_{labels}").glob("seed_*.json"))
    return Arm(
        name=name,
        dice=summary.dice,
        of_seeds=tuple(fmean(cases.values()) for _, cases in sorted(of_seeds.items())),
        development=fmean(read_json_mapping(file)["dice"] for file in files) if files else None,
        minutes=fmean(seconds) / 60 if seconds else None,
        ahead=_turned(differences[0]) if differences else None,
        ahead_by_percentiles=_by_percentiles(results, name, labels) if differences else None,
    )


def _turned(theirs: Interval) -> Interval:
    """Ours minus theirs, of theirs minus ours."""
    return Interval(mean=-theirs.mean, low=-theirs.high, high=-theirs.low)


def _by_percentiles(results: Results, name: str, labels: int) -> Interval:
    """Ours minus theirs."""
    table = paired_table(results.scores, results.baseline, name, labels)
    return percentile_interval(table, confidence=results.confidence)


def _rows(setting: Setting) -> list[tuple[str, ...]]:
    name = f"{setting.name}, {setting.labels} labels, {setting.cases} test volumes, {setting.seeds} seeds"
    return [_row(name, arm, arm is setting.better) for arm in (setting.ours, *setting.theirs)]


def _row(setting: str, arm: Arm, chosen: bool) -> tuple[str, ...]:
    by_percentiles = arm.ahead_by_percentiles
    return (
        setting,
        f"{arm.name} (chosen)" if chosen else arm.name,
        in_brackets(arm.dice),
        " ".join(f"{dice:.3f}" for dice in arm.of_seeds),
        _told(arm.development, ".3f"),
        in_brackets(arm.ahead, "+") if arm.ahead else "",
        f"[{by_percentiles.low:+.3f}, {by_percentiles.high:+.3f}]" if by_percentiles else "",
        _told(arm.minutes, ".1f"),
    )


def _told(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def main(out: list[Path]) -> None:
    """Prints the table of the comparisons in the folders OUT."""
    told = table([s for folder in out for s in settings_in(folder)])
    Console(width=10_000).print(told, highlight=False, markup=False)


if __name__ == "__main__":
    answered(lambda: typer.run(main))
