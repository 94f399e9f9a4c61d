"""Tables that a person reads: what a scan found, what an evaluation measured."""

from collections import Counter
from collections.abc import Callable, Sequence

from rich.markup import escape
from rich.table import Table

from ..data.fingerprint import CaseFacts
from ..data.scan import Scan
from ..seg.evaluate import Evaluation
from ..seg.object_metrics import ObjectScores
from ..ssl.embeddings import SILHOUETTE_OF, Embeddings
from ..ssl.probes import Probed
from .bench.figure import Figure
from .method_list import MethodFacts
from .plugin_checks import Checked
from .results import ArmSummary, Difference, Results

# more rows than this hide the problems that follow them
_MAX_ROWS = 40
_MAX_KINDS = 4
# of the many metrics, those that are shown
_SHOWN = ("dice", "iou", "hd95", "nsd")


def scan_table(scanned: Scan) -> Table:
    """A row for each case: shape, spacing, channels, type, grey values, labels; then what differs."""
    facts = scanned.fingerprint.cases
    table = Table(
        title=f"{len(facts)} readable cases, {scanned.fingerprint.labelled} with labels",
        caption="\n".join(_summary_of(scanned)),
        caption_justify="left",
    )
    for column in (
        "case",
        "shape (z, y, x)",
        "spacing (z, y, x)",
        "channels",
        "type",
        "grey values",
        "labels (voxels)",
    ):
        table.add_column(column, overflow="fold", no_wrap=column == "case")
    for f in facts[:_MAX_ROWS]:
        grey = "; ".join(f"{i.lowest:.4g} to {i.highest:.4g}" for i in f.intensities)
        table.add_row(
            escape(f.id),
            " x ".join(map(str, f.shape)),
            _spacing(f),
            escape(", ".join(f.channels)),
            f.dtype,
            grey,
            _labels(f, scanned.fingerprint.background),
        )
    return table


def _summary_of(scanned: Scan) -> list[str]:
    """What the rows have in common, and how many differ."""
    facts = scanned.fingerprint.cases
    lines = [f"and {len(facts) - _MAX_ROWS} more cases; --json FILE writes them all"] * (
        len(facts) > _MAX_ROWS
    )
    subjects = len({f.subject for f in facts})
    lines += [f"subjects: {subjects}"] * (subjects < len(facts))
    for name, values in (
        ("types", [f.dtype for f in facts]),
        ("spacings (z, y, x)", [_spacing(f) for f in facts]),
        ("label types", [f.label_dtype for f in facts if f.label_dtype is not None]),
    ):
        counted = [f"{n} x {value}" for value, n in Counter(values).most_common(_MAX_KINDS)]
        more = len(set(values)) - len(counted)
        lines += [f"{name}: " + ", ".join(counted) + f" and {more} more" * (more > 0)] * bool(counted)
    return lines


def _spacing(f: CaseFacts) -> str:
    if f.spacing is None:
        return "unknown"
    return " x ".join(f"{s:.4g}" for s in f.spacing) + f" {f.unit or '(no unit)'}"


def _labels(f: CaseFacts, background: int) -> str:
    if f.label_voxels is None:
        return "-"
    foreground = {value: n for value, n in f.label_voxels.items() if value != background}
    # where classes overlap a voxel may have several values
    share = 1 - f.voxels_of(background) / max(1, f.annotated_voxels)
    shown = ", ".join(f"{value}: {n}" for value, n in list(foreground.items())[:4])
    more = f" and {len(foreground) - 4} more" if len(foreground) > 4 else ""
    partial = f", {f.annotated_share:.1%} annotated" if f.annotated_share < 1 else ""
    return f"{shown}{more} ({share:.1%} foreground{partial})"


def score_table(evaluation: Evaluation) -> Table:
    """Means of the main scores per class, and in how many cases each is defined."""
    within = "the coarsest spacing" if evaluation.tolerance is None else f"{evaluation.tolerance:g}"
    unit = "" if evaluation.tolerance is None else f" {evaluation.unit}"
    table = Table(
        title="mean over cases that the model has not seen",
        caption=f"nsd: share of the surfaces within {within}{unit}",
    )
    table.add_column("label value")
    for metric in _SHOWN:
        table.add_column(f"{metric} ({evaluation.unit})" if metric == "hd95" else metric, justify="right")
    for value in sorted({m.value for m in evaluation.means}):
        row = {m.metric: m for m in evaluation.means if m.value == value}
        table.add_row(
            str(value),
            *(_mean(row[metric].mean, row[metric].cases, row[metric].undefined) for metric in _SHOWN),
        )
    return table


def object_table(scores: ObjectScores) -> Table:
    """Precision, recall, F1 and panoptic quality of all objects, a row for each IoU that makes a match."""
    table = Table(
        title="objects of all cases together",
        caption=f"{scores.predicted} predicted, {scores.true} true ({scores.count_error:+})",
    )
    for column in ("IoU at least", "found", "wrong", "missed", "precision", "recall", "F1", "PQ"):
        table.add_column(column, justify="right")
    for m in scores.matches:
        counts = (m.true_positives, m.false_positives, m.false_negatives)
        shares = (m.precision, m.recall, m.f1, m.panoptic_quality)
        table.add_row(f"{m.threshold:g}", *map(str, counts), *map(_number, shares))
    means = ("mean", "", "", "", "", "", _number(scores.mean_f1), "")
    table.add_row(*means)
    return table


def comparison_table(results: Results) -> Table:
    """Mean Dice with its interval for each arm and number of labels, and the paired difference below it."""
    table = Table(
        title=f"mean Dice on {len(results.test_cases)} test volumes, {results.confidence:.0%} interval"
    )
    table.add_column("arm")
    for labels in results.label_counts:
        table.add_column(f"{labels} label{'s' if labels > 1 else ''}")
    for arm in results.arms:
        cells = []
        for labels in results.label_counts:
            found = [s for s in results.summaries if (s.arm, s.labels) == (arm, labels)]
            differences = [d for d in results.differences if (d.arm, d.labels) == (arm, labels)]
            cells.append("\n".join([*map(_summary, found), *map(_difference, differences)]) or "n/a")
        table.add_row(escape(arm), *cells)
    return table


def _summary(summary: ArmSummary) -> str:
    d = summary.dice
    zero = f", {summary.runs_with_zero_class} with a class at 0" if summary.runs_with_zero_class else ""
    return f"{d.mean:.3f} ({d.low:.3f} to {d.high:.3f}{zero})"


def _difference(difference: Difference) -> str:
    d = difference.dice
    return f"{d.mean:+.3f} ({d.low:+.3f} to {d.high:+.3f}) to {escape(difference.baseline)}"


def measures_table(embeddings: Embeddings) -> Table:
    """Measures of embeddings, a row each; beside those by random weights, where there are some."""
    table, beside = Table(), embeddings.random
    for column in ("measure", "value", *(["random weights"] if beside else []), "meaning"):
        table.add_column(column)

    def row(name: str, of: Callable[[Embeddings], float | None], form: str, meaning: str) -> None:
        values = [of(each) for each in (embeddings, beside) if each is not None]
        if values[0] is not None:
            shown = ("" if value is None else format(value, form) for value in values)
            table.add_row(name, *shown, meaning)

    row("spread", lambda e: e.measures.spread, ".3f", "1: everywhere alike; near 0: collapsed to a point")
    row("effective rank", lambda e: e.measures.effective_rank, ".1f", "directions that carry the variation")
    chance = embeddings.measures.chance or 0.0
    of_volume = f"views whose nearest other is of the same volume (chance {chance:.1%})"
    row("retrieval", lambda e: e.measures.retrieval, ".1%", of_volume)
    together = (
        f"of at most {SILHOUETTE_OF} volumes at a time; 1: views of one lie together, apart from others; "
        "0 and below: they do not"
    )
    row("silhouette", lambda e: e.silhouette, ".3f", together)
    return table


def probe_table(found: Sequence[Probed]) -> Table:
    """A row for each probe: what was read, and its Dice."""
    table = Table(title="a linear layer on frozen features", caption="Dice on the test cases")
    classes = sorted({value for each in found for value in each.per_class})
    for column in ("features of", "weights", "mean Dice", *(f"class {value}" for value in classes)):
        table.add_column(column, justify="left" if column in ("features of", "weights") else "right")
    for each in found:
        per_class = (_number(each.per_class.get(value)) for value in classes)
        table.add_row(each.part, each.weights, _number(each.dice), *per_class)
    return table


def methods_table(methods: Sequence[MethodFacts]) -> Table:
    """A row for each method: what it does and where it is from, what it trains, what a step costs."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("method", "what it does, and where it is from", "trains"):
        table.add_column(column, no_wrap=column != "what it does, and where it is from")
    table.add_column("cost", justify="right")
    for m in methods:
        source = m.source if m.package is None else f"{m.source} (from {m.package})"
        told = f"{escape(m.summary)}\n[dim]{escape(source)}[/]"
        cost = "-" if m.cost is None else f"{m.cost:.1f}"
        table.add_row(f"[bold]{escape(m.name)}[/]", told, ", ".join(m.trains), cost)
    table.caption = (
        "cost: the time of a training step, relative to supervised training; -: not measured. What it was "
        "measured on: experiments/configs/method_costs.csv"
    )
    table.caption_justify = "left"
    return table


def checks_table(name: str, found: Sequence[Checked]) -> Table:
    """A row for each check: ok, or what was found in which situation."""
    failed = sum(not each.passed for each in found)
    table = Table(title=f"{escape(name)}: {failed} of {len(found)} checks failed" if failed else escape(name))
    for column in ("kind", "check", "found"):
        table.add_column(column, overflow="fold")
    for each in found:
        faults = [f"{what}: {fault}" if what else fault for what, fault in each.faults.items()]
        told = f"[red]{escape(chr(10).join(faults))}[/]" if faults else "[green]ok[/]"
        note = f"\n[dim]{escape(each.note)}[/]" if each.note and not faults else ""
        table.add_row(each.kind, escape(each.check), told + note)
    return table


def bench_table(figures: Sequence[Figure]) -> Table:
    """Times and sizes, ours and a peer's, with their ratio; below it how peers that are missing are had."""
    table = Table(title="medians of runs in turn, in one process")
    for column in ("what", "work", "ours", "peer", "the peer's", "ratio", "key"):
        table.add_column(column, justify="right" if column in ("ours", "the peer's", "ratio") else "left")
    for f in figures:
        theirs = ("", "") if f.theirs is None else (_amount(f.theirs, f.unit), f"{f.ratio:.2f}")
        table.add_row(f.what, f.work, _amount(f.ours, f.unit), f.peer or "none", *theirs, f.key or "")
    missing = dict.fromkeys(f.missing for f in figures if f.missing)
    rule = "times and peaks of memory: the peer's over ours; sizes: ours over the peer's"
    table.caption = escape("\n".join([rule, *missing]))
    return table


def _amount(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value / 1e6:.1f} MB"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _mean(mean: float | None, cases: int, undefined: int) -> str:
    without = f", {undefined} undefined" if undefined else ""
    return f"{_number(mean)} (n={cases}{without})"
