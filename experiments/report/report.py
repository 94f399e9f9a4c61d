"""The report of a comparison: one HTML file that needs nothing else, for those who never programmed too."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ...data.atomic import write_text
from ..results import ArmSummary, Difference, Interval, Results, RunRecord, Score
from . import figures

HERE = Path(__file__).parent
# below this many test cases nothing was measured of how often the intervals hold the truth
_FEW_CASES = 6
_MAX_ACCEPTED = 5
# a longer table of runs is folded, and the failed ones stand before it
_MAX_OPEN_ROWS = 40
NOTHING = "\N{EN DASH}"
_FIXED = "\N{NO-BREAK SPACE}"
NO_DIFFERENCE = "no difference that these data can show"

Verdict = Literal["better", "worse", "open", "doubtful", "single"]
WORDS: dict[Verdict, str] = {
    "better": "better",
    "worse": "worse",
    "open": NO_DIFFERENCE,
    "doubtful": "a difference that rests on runs with a class at Dice 0",
    "single": "no statement, as there is one test case",
}
LEAD_WORDS: dict[Verdict, str] = {
    "better": "better",
    "worse": "worse",
    "open": f"with {NO_DIFFERENCE}",
    "doubtful": "with a difference that rests on runs with a class at Dice 0",
    "single": "without a statement, as there is one test case",
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG for the report, with words."""

    title: str
    caption: str
    group: Literal["slices", "embeddings"]
    png: bytes

    @property
    def source(self) -> str:
        """The image as an address that holds it."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What the table at the top says of an arm at a number of labels."""

    summary: ArmSummary | None
    difference: Difference | None
    verdict: Verdict | None
    failed: int


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Scores of one class by one arm at one number of labels, over test cases and seeds."""

    arm: str
    labels: int
    value: int
    dice: float | None
    iou: float | None
    hd95: float | None
    nsd: float | None
    missing: int


def write_report(results: Results, pictures: Sequence[Picture], out: Path) -> None:
    """Writes the report of a comparison to one HTML file without scripts, links or other files."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        interval=_interval, signed=_signed, clock=_clock, percent=_percent, number=_number, volumes=_volumes
    )
    styles = figures.arm_styles(results)
    runs = _once(sorted(results.runs, key=lambda r: _order(r, list(styles))))
    page = environment.get_template("report.html.j2").render(
        results=results,
        css=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        lead=lead(results),
        sentences=sentences(results),
        cautions=cautions(results),
        arms=list(styles),
        label_counts=_label_counts(results),
        cells=_cells(results, list(styles)),
        words=WORDS,
        swatches={arm: figures.swatch(style) for arm, style in styles.items()},
        hollow=figures.swatch(styles[results.baseline], hollow=True),
        finetuned=[arm for arm in styles if any(r.arm == arm and _has_loss(r) for r in runs)],
        overriding=_overriding(results),
        foreign=_arms_of(runs, "foreign"),
        untrained=_arms_of(runs, "untrained"),
        dice=figures.dice_by_labels(results, styles) if results.summaries else None,
        differences=figures.differences(results, styles),
        finetuning=figures.finetuning_curves(results, styles),
        pretraining=figures.pretraining_curves(results, styles),
        pictures={g: [p for p in pictures if p.group == g] for g in ("slices", "embeddings")},
        runs=runs,
        failed=[r for r in runs if r.status == "failed"],
        unfold=len(runs) <= _MAX_OPEN_ROWS,
        transferred=_transferred(runs),
        totals=_totals(runs),
        per_class=_per_class(results, list(styles)),
        config=yaml.safe_dump(results.config, sort_keys=False, allow_unicode=True, width=100),
    )
    write_text(out, page)


def lead(results: Results) -> str:
    """The first sentence: how many comparisons with the baseline came out which way."""
    total = len(results.differences)
    if not total:
        return (
            f"These data say nothing about pretraining: no arm could be compared with the baseline"
            f" “{results.baseline}”."
        )
    found: list[Verdict] = [verdict(results, d) for d in results.differences]
    counted = ", ".join(f"{found.count(kind)} {word}" for kind, word in LEAD_WORDS.items() if kind in found)
    if total == 1:
        return f"Compared with the baseline “{results.baseline}”: {WORDS[found[0]]}."
    return (
        f"Of {total} comparisons with the baseline “{results.baseline}” (each one arm at one number of"
        f" labels): {counted}."
    )


def sentences(results: Results) -> dict[str, str]:
    """For each arm a sentence with its difference to the baseline at each number of labels."""
    remarks = dict.fromkeys(_arms_of(results.runs, "foreign"), "(another tool's predictions) ")
    remarks |= dict.fromkeys(_arms_of(results.runs, "untrained"), "(a threshold, without training) ")
    told = {}
    for arm in dict.fromkeys(d.arm for d in results.differences):
        clauses: list[tuple[Verdict, list[Difference]]] = []
        for d in sorted((d for d in results.differences if d.arm == arm), key=lambda d: d.labels):
            kind = verdict(results, d)
            if not clauses or clauses[-1][0] != kind:
                clauses.append((kind, []))
            clauses[-1][1].append(d)
        text = "; ".join(_clause(results, kind, group) for kind, group in clauses) + "."
        told[arm] = remarks.get(arm, "") + text
    return told


def verdict(results: Results, difference: Difference) -> Verdict:
    """What the interval lets one say.

    A difference whose sign is lost without the runs that have a class at Dice 0 is "doubtful".
    """
    if difference.cases < 2:
        return "single"
    side = _side(difference.dice)
    if side == "open" or not _touched(results, difference):
        return side
    without = difference.without_zero_runs
    return side if without is not None and _side(without) == side else "doubtful"


def cautions(results: Results) -> list[str]:
    """What a reader must know before believing the numbers; failed runs first."""
    found = [f"Failed: {_name_run(r)}: {r.error or 'no reason was recorded'}" for r in _failed(results)]
    found += [
        f"Collapsed: {_name_run(r)}: {r.collapse}. What was fine-tuned from it is shown, and not compared"
        for r in results.runs
        if r.collapse and r.stage == "pretraining"
    ]
    found += [
        f"{d.arm}, {_volumes(d.labels)}: with the collapsed runs the difference to {d.baseline} would be "
        f"{d.with_collapsed.mean:+.3f} [{d.with_collapsed.low:+.3f}, {d.with_collapsed.high:+.3f}]"
        for d in results.differences
        if d.with_collapsed is not None
    ]
    for s in results.summaries:
        if s.runs_with_zero_class:
            found.append(f"{s.arm}, {_volumes(s.labels)}: {_tell_zero(s)}")
    summarised = {s.arm for s in results.summaries}
    found += [
        f"{arm}: no run has finished, so there are no scores" for arm in results.arms if arm not in summarised
    ]
    if len(results.seeds) == 1:
        found.append(
            "There is one seed, so the intervals know nothing about how results vary between repeated"
            " trainings"
        )
    if 0 < len(results.test_cases) < _FEW_CASES:
        found.append(
            f"There {_are(len(results.test_cases), 'test case')}: intervals from so few are"
            " little more than a guess"
        )
    for labels in _label_counts(results):
        steps = {
            r.steps
            for r in results.runs
            if r.stage == "fine-tuning" and r.labels == labels and r.status == "done" and r.steps is not None
        }
        if len(steps) > 1:
            listed = ", ".join(map(str, sorted(steps)))
            found.append(f"With {_volumes(labels)} not all runs took equally many steps: {listed}")
    found += [f"In the data, {record.removesuffix('.')}" for record in results.accepted[:_MAX_ACCEPTED]]
    if len(results.accepted) > _MAX_ACCEPTED:
        found.append(f"{len(results.accepted) - _MAX_ACCEPTED} more such in the data; store.json lists them")
    chance = 1 - results.confidence
    if len(results.differences) > 2 and chance > 0:
        found.append(
            f"There are {len(results.differences)} comparisons: even if pretraining changed nothing, about"
            f" 1 in {1 / chance:.0f} such intervals would miss 0 by chance"
        )
    return found


def _once(runs: list[RunRecord]) -> list[RunRecord]:
    """The runs, with the first of an arm that is the same at every number of labels and seed."""
    found: dict[object, RunRecord] = {}
    for run in runs:
        found.setdefault(run.arm if run.stage == "untrained" else (run.arm, run.labels, run.seed), run)
    return list(found.values())


def _arms_of(runs: Sequence[RunRecord], stage: str) -> list[str]:
    return list(dict.fromkeys(r.arm for r in runs if r.stage == stage))


def _has_loss(run: RunRecord) -> bool:
    return run.stage == "fine-tuning" and any(c.name == "loss" for c in run.curves)


def _clause(results: Results, kind: Verdict, group: list[Difference]) -> str:
    """better with 2 (+0.020 [0.010, 0.030]) and 4 (+0.040 [0.030, 0.050]) labelled volumes."""
    listed = [f"{d.labels} ({_tell(results, d)})" for d in group]
    head, last = listed[:-1], listed[-1]
    noun = "labelled volume" if [d.labels for d in group] == [1] else "labelled volumes"
    return f"{WORDS[kind]} with {', '.join(head)}{' and ' if head else ''}{last} {noun}"


def _tell(results: Results, d: Difference) -> str:
    text = f"{_signed(d.dice.mean)} {_interval(d.dice)}"
    if _touched(results, d):
        without = d.without_zero_runs
        text += "; without runs that have a class at Dice 0: "
        text += f"{_signed(without.mean)} {_interval(without)}" if without else "nothing left to compare"
    return text


def _side(interval: Interval) -> Literal["better", "worse", "open"]:
    if interval.low > 0:
        return "better"
    return "worse" if interval.high < 0 else "open"


def _touched(results: Results, d: Difference) -> bool:
    """Whether a run with a class at Dice 0 takes part in a difference."""
    sides = [s for s in results.summaries if s.labels == d.labels and s.arm in (d.arm, d.baseline)]
    return any(s.runs_with_zero_class for s in sides) and d.seeds_without_zero_runs < d.seeds


def _cells(results: Results, arms: list[str]) -> dict[tuple[str, int], Cell]:
    summaries = {(s.arm, s.labels): s for s in results.summaries}
    compared = {(d.arm, d.labels): d for d in results.differences}
    cells = {}
    for key in ((arm, labels) for arm in arms for labels in _label_counts(results)):
        summary, difference = summaries.get(key), compared.get(key)
        cells[key] = Cell(
            summary=summary,
            difference=difference,
            verdict=verdict(results, difference) if difference else None,
            failed=sum((r.arm, r.labels) == key for r in _failed(results)),
        )
    return cells


def _tell_zero(s: ArmSummary) -> str:
    n = s.runs_with_zero_class
    return (
        f"{n} of {s.runs} runs ended with a class at Dice 0:"
        f" {'it measures' if n == 1 else 'they measure'} optimisation, not pretraining"
    )


def _per_class(results: Results, arms: list[str]) -> list[ClassRow]:
    """Mean Dice as the statistics have it, IoU, HD95 and NSD over the scores that have a meaning."""
    rows = []
    for s in sorted(results.summaries, key=lambda s: (arms.index(s.arm), s.labels)):
        for value, dice in sorted(s.per_class.items()):
            own = [p for p in results.scores if (p.arm, p.labels, p.value) == (s.arm, s.labels, value)]
            rows.append(
                ClassRow(
                    arm=s.arm,
                    labels=s.labels,
                    value=value,
                    dice=dice,
                    iou=_mean(own, "iou"),
                    hd95=_mean(own, "hd95"),
                    nsd=_mean(own, "nsd"),
                    missing=sum(p.dice is None for p in own),
                )
            )
    return rows


def _mean(scores: list[Score], name: Literal["iou", "hd95", "nsd"]) -> float | None:
    values = [v for v in (getattr(score, name) for score in scores) if v is not None]
    return sum(values) / len(values) if values else None


def _transferred(runs: list[RunRecord]) -> list[RunRecord]:
    """The first run of each arm that began with pretrained weights: its others begin alike."""
    return list({r.arm: r for r in reversed(runs) if r.transferred is not None}.values())[::-1]


def _totals(runs: list[RunRecord]) -> dict[str, Any]:
    return {
        "runs": len(runs),
        "failed": sum(r.status == "failed" for r in runs),
        "seconds": {
            stage: sum(r.seconds or 0 for r in runs if r.stage == stage)
            for stage in ("pretraining", "fine-tuning")
        },
        "untimed": sum(r.seconds is None and r.stage in ("pretraining", "fine-tuning") for r in runs),
    }


def _order(run: RunRecord, arms: list[str]) -> tuple[int, int, int, int]:
    stage = ("pretraining", "fine-tuning", "foreign", "untrained").index(run.stage)
    return stage, run.labels or 0, arms.index(run.arm), run.seed


def _label_counts(results: Results) -> list[int]:
    run = {r.labels for r in results.runs if r.labels is not None}
    return sorted({*results.label_counts, *run, *(s.labels for s in results.summaries)})


def _failed(results: Results) -> list[RunRecord]:
    return [r for r in results.runs if r.status == "failed"]


def _name_run(r: RunRecord) -> str:
    labels = "" if r.labels is None else f", {_volumes(r.labels)}"
    return f"{r.stage} of {r.arm}{labels}, seed {r.seed}"


def _are(count: int, noun: str) -> str:
    return f"is only 1 {noun}" if count == 1 else f"are only {count} {noun}s"


def _volumes(labels: int) -> str:
    return figures.volumes(labels)


def _number(value: float | None, digits: int = 3) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _interval(interval: Interval) -> str:
    return f"[{_number(interval.low)},{_FIXED}{_number(interval.high)}]"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}{_FIXED}%"


def _clock(seconds: float | None) -> str:
    """Hours:minutes:seconds."""
    if seconds is None:
        return NOTHING
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _overriding(results: Results) -> dict[str, str]:
    """The settings of fine-tuning that single arms have of their own, in words."""
    arms = results.config.get("arms", {})
    own = {arm: chosen.get("finetune") for arm, chosen in arms.items() if isinstance(chosen, dict)}
    return {
        arm: yaml.safe_dump(given, default_flow_style=True).strip() for arm, given in own.items() if given
    }
