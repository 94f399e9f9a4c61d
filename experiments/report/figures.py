"""The report's figures, each a panel of SVG that stands inside the page and grows with its column."""

import io
import re
import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import MaxNLocator

from ..results import ArmSummary, Curve, Difference, Results, RunRecord

BASELINE_COLOUR = "#333333"
# Okabe and Ito 2008, which the colour-blind tell apart: a brown in place of the yellow, too pale for paper
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f4f24")
MARKERS = ("s", "^", "D", "v", "P", "*", "X")
_LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "fewvox",  # same results, same file
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
}
_ABSENT = dict.fromkeys(("Date", "Creator", "Format", "Type"))
# a browser draws no more points than this on the width of a panel
_MAX_POINTS = 300
_LONGEST_NAME = 34


@dataclass(frozen=True, kw_only=True)
class Style:
    """How an arm is drawn, in all figures."""

    colour: str
    marker: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One small figure under its title."""

    title: str
    svg: Markup


def arm_styles(results: Results) -> dict[str, Style]:
    """A colour and a marker for every arm; the baseline is a dark grey circle."""
    named = [*results.arms, *(r.arm for r in results.runs), *(s.arm for s in results.summaries)]
    others = [arm for arm in dict.fromkeys(named) if arm != results.baseline]
    styles = {results.baseline: Style(colour=BASELINE_COLOUR, marker="o")}
    for i, arm in enumerate(others):
        # past the last pair the markers shift against the colours, so that no pair comes twice
        turn, j = divmod(i, len(COLOURS))
        styles[arm] = Style(colour=COLOURS[j], marker=MARKERS[(j + turn) % len(MARKERS)])
    return styles


def swatch(style: Style, *, hollow: bool = False) -> Markup:
    """The marker of an arm, as large as a letter."""
    marker = MarkerStyle(style.marker)
    outline = marker.get_path().transformed(marker.get_transform()).to_polygons()[0]
    outline = outline / np.abs(outline).max() * 6
    points = " ".join(f"{x:.2f},{-y:.2f}" for x, y in outline)
    fill = "#ffffff" if hollow else style.colour
    return Markup(
        f'<svg class="swatch" viewBox="-8 -8 16 16" aria-hidden="true">'
        f'<polygon points="{points}" fill="{fill}" stroke="{style.colour}" stroke-width="1.6"/></svg>'
    )


def dice_by_labels(results: Results, styles: dict[str, Style]) -> Panel:
    """Mean Dice with interval against the number of labels: a line for each arm, a dot for each run."""
    counts = sorted({s.labels for s in results.summaries} | {n for n, _, _ in _scored(results)})
    places = _places(counts)
    gap = min((b - a for a, b in zip(places.values(), list(places.values())[1:], strict=False)), default=1.0)
    with _look():
        figure, ax = _canvas(5.2, 3.5)
        for i, (arm, style) in enumerate(styles.items()):
            dodge = gap * min(0.11, 0.62 / len(styles))
            shift = (i - (len(styles) - 1) / 2) * dodge
            for labels, dice, r in _scored(results):
                if r.arm == arm:
                    fill = "white" if r.zero_classes else style.colour
                    at = places[labels] + shift - dodge * 0.45
                    look = {"markersize": 4.2, "markeredgewidth": 0.8, "alpha": 1 if r.zero_classes else 0.45}
                    ax.plot(at, dice, style.marker, color=style.colour, mfc=fill, **look)
            own = sorted((s for s in results.summaries if s.arm == arm), key=lambda s: s.labels)
            if own:
                x = [places[s.labels] + shift for s in own]
                ax.plot(x, [s.dice.mean for s in own], "-", color=style.colour, lw=1.4, alpha=0.75)
                for at, s in zip(x, own, strict=True):
                    ax.plot([at, at], [s.dice.low, s.dice.high], color=style.colour, lw=1.8)
                    ax.plot(at, s.dice.mean, style.marker, color=style.colour, ms=7, mec="white", mew=0.7)
        ax.set_xticks(list(places.values()), [str(n) for n in counts])
        ax.set_xlim(min(places.values(), default=0) - gap * 0.5, max(places.values(), default=0) + gap * 0.5)
        ax.grid(visible=False, axis="x")
        ax.set_xlabel("labelled volumes to learn from (each doubling is one step)")
        ax.set_ylabel("Dice on the test cases")
        told = "; ".join(_tell_summary(s) for s in results.summaries)
        return _panel(figure, "Dice against the number of labels", told or "No run has finished.", "dice")


def differences(results: Results, styles: dict[str, Style]) -> list[Panel]:
    """A panel for each number of labels: every test case's difference to the baseline, mean, interval."""
    shown = results.differences
    reach = _padded([v for d in shown for v in (*d.per_case.values(), d.dice.low, d.dice.high, 0.0)])
    panels = []
    for labels in sorted({d.labels for d in shown}):
        own = [d for arm in styles for d in shown if d.labels == labels and d.arm == arm]
        with _look():
            figure, ax = _canvas(4.6, 0.75 + 0.72 * len(own))
            for row, difference in enumerate(own):
                _strip(ax, difference, styles[difference.arm], -row)
            ax.axvline(0, color="#222222", lw=1)
            ax.set_xlim(*reach)
            ax.set_ylim(0.5 - len(own), 0.62)
            ax.set_yticks([])
            ax.spines["left"].set_visible(False)
            ax.xaxis.set_major_locator(MaxNLocator(6))
            ax.set_xlabel("worse ← Dice minus baseline → better")
            told = "; ".join(_tell_difference(d) for d in own)
            panels.append(_panel(figure, f"With {volumes(labels)}", told, f"difference-{labels}"))
    return panels


def finetuning_curves(results: Results, styles: dict[str, Style]) -> list[Panel]:
    """A panel for each number of labels: the training loss of every fine-tuning."""
    lines = [(r, c) for r in results.runs if r.stage == "fine-tuning" for c in r.curves if c.name == "loss"]
    reach = _padded([v for _, c in lines for v in _smooth(c)[1]])
    panels = []
    for labels in sorted({r.labels or 0 for r, _ in lines}):
        own = [(r, c) for r, c in lines if (r.labels or 0) == labels]
        panels.append(_curves(own, styles, f"With {volumes(labels)}", f"finetuning-{labels}", reach))
    return panels


def pretraining_curves(results: Results, styles: dict[str, Style]) -> dict[str, list[Panel]]:
    """For each pretrained arm a panel for each recorded number, the loss first.

    Monitors of one name share their axis in all arms; losses do not, as methods measure different ones.
    """
    runs = [r for r in results.runs if r.stage == "pretraining" and any(c.steps for c in r.curves)]
    names = sorted({c.name for r in runs for c in r.curves}, key=lambda name: (name != "loss", name))
    reach = {}
    for name in names:
        values = [v for r in runs for c in r.curves if c.name == name for v in _smooth(c)[1]]
        reach[name] = None if name == "loss" else _padded([*values, *([0.0, 1.0] if _spread(name) else [])])
    found: dict[str, list[Panel]] = {}
    for i, arm in enumerate(arm for arm in styles if any(r.arm == arm for r in runs)):
        found[arm] = []
        for j, name in enumerate(names):
            own = [(r, c) for r in runs if r.arm == arm for c in r.curves if c.name == name and c.steps]
            if own:
                found[arm].append(_curves(own, styles, _title(name), f"pretraining-{i}-{j}", reach[name]))
    return found


def volumes(labels: int) -> str:
    """1 labelled volume, 2 labelled volumes."""
    return f"{labels} labelled volume{'' if labels == 1 else 's'}"


def _scored(results: Results) -> list[tuple[int, float, RunRecord]]:
    """Number of labels, mean Dice and record of each run that has them."""
    found = [(r.labels, r.mean_dice, r) for r in results.runs]
    return [(n, dice, r) for n, dice, r in found if n is not None and dice is not None]


def _places(counts: Sequence[int]) -> dict[int, float]:
    """Where each number of labels stands: equal steps for doublings, and 0 a step below the least."""
    least = min((n for n in counts if n > 0), default=2)
    return {n: float(np.log2(n)) if n else float(np.log2(least)) - 1 for n in counts}


def _strip(ax: Axes, difference: Difference, style: Style, y: float) -> None:
    """One row: name, a dot for each case, and below them the mean with its interval."""
    values = np.array([difference.per_case[case] for case in sorted(difference.per_case)])
    # the golden ratio spreads any number of dots evenly, the same at every drawing
    jitter = (np.arange(len(values)) * 0.618034 % 1 - 0.5) * 0.2
    ax.plot(values, y + 0.04 + jitter, style.marker, color=style.colour, ms=4.2, alpha=0.6, mec="none")
    interval = difference.dice
    ax.plot([interval.low, interval.high], [y - 0.24] * 2, color=style.colour, lw=2.2)
    ax.plot(interval.mean, y - 0.24, style.marker, color=style.colour, ms=7, mec="white", mew=0.7)
    better = round(difference.share_better * difference.cases)
    text = f"{_short(difference.arm)}: better in {better} of {difference.cases}"
    look = {"va": "center", "fontsize": 9, "parse_math": False}
    ax.text(0.0, y + 0.36, text, transform=ax.get_yaxis_transform(), bbox=_PAPER, **look)


# behind a name, so that the zero line does not strike it through
_PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}


def _curves(
    lines: Iterable[tuple[RunRecord, Curve]],
    styles: dict[str, Style],
    title: str,
    key: str,
    reach: tuple[float, float] | None,
) -> Panel:
    with _look():
        figure, ax = _canvas(3.0, 2.1)
        told = []
        for r, curve in lines:
            steps, values = _smooth(curve)
            dots = {"marker": styles[r.arm].marker, "ms": 3} if len(steps) < 2 else {}
            ax.plot(steps, values, color=styles[r.arm].colour, lw=1, alpha=0.85, **dots)
            ends = f"from {values[0]:.3g} to {values[-1]:.3g}" if len(values) else "without a finite value"
            told.append(f"{r.arm}, seed {r.seed}: {ends}")
            if _spread(curve.name):
                ax.axhline(1, color="#222222", lw=1, ls=":")
        if reach is not None:
            ax.set_ylim(*reach)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlabel("training step")
        return _panel(figure, title, "; ".join(told), key)


def _smooth(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Steps and running means over a 25th of the curve, thinned; values that are not finite are left out."""
    values, steps = np.asarray(curve.values, float), np.asarray(curve.steps, float)
    steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
    window = np.ones(2 * (len(values) // 50) + 1)
    if len(values):
        weights = np.convolve(np.ones(len(values)), window, "same")
        values = np.convolve(values, window, "same") / weights
    keep = np.unique(np.linspace(0, max(0, len(values) - 1), _MAX_POINTS).astype(int))[: len(values)]
    return steps[keep], values[keep]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    finite = [v for v in values if np.isfinite(v)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    pad = (high - low) * 0.06 or 0.05
    return low - pad, high + pad


def _spread(name: str) -> bool:
    return name == "monitor/spread"


def _title(name: str) -> str:
    plain = {"loss": "Pretraining loss", "monitor/spread": "spread (healthy: 1)"}
    return plain.get(name, name.removeprefix("monitor/").replace("_", " "))


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1].rstrip() + "…"


def _tell_summary(s: ArmSummary) -> str:
    return f"{s.arm} with {volumes(s.labels)}: {s.dice.mean:.3f} [{s.dice.low:.3f}, {s.dice.high:.3f}]"


def _tell_difference(d: Difference) -> str:
    return f"{d.arm}: mean difference {d.dice.mean:+.3f} [{d.dice.low:+.3f}, {d.dice.high:+.3f}]"


def _look() -> AbstractContextManager[None]:
    return matplotlib.rc_context(_LOOK)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _panel(figure: Figure, title: str, description: str, key: str) -> Panel:
    """The figure as SVG for a page: no header, no style or name that reaches beyond it."""
    file = io.StringIO()
    with warnings.catch_warnings():
        # only measuring uses matplotlib's font; the browser finds the letters that it lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format="svg", metadata=_ABSENT, transparent=True)
    text = file.getvalue()
    box = re.search(r'viewBox="([^"]*)"', text)
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r"<[^>]+>", lambda tag: re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", tag[0]), body)
    return Panel(
        title=title,
        svg=Markup(
            f'<svg viewBox="{box[1] if box else ""}" role="img" aria-labelledby="{key}-title {key}-desc">'
            f'<title id="{key}-title">{escape(title)}</title>'
            f'<desc id="{key}-desc">{escape(description)}</desc>'
            f"{body}</svg>"
        ),
    )
