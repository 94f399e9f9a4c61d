"""Pictures of slices with outlines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..data.volume import Triple

TRUE_COLOUR, PREDICTED_COLOUR = "#00c8ff", "#ff9d00"  # told apart by the colour-blind too


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """An image (Z, Y, X) with its true and predicted label maps."""

    title: str
    image: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    spacing: Triple = (1.0, 1.0, 1.0)


def outlines(cases: Sequence[Segmented], path: Path) -> None:
    """Writes a PNG: a row for each case, its fullest xy and xz slices, true and predicted outlines."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(7.5, 3.0 * len(cases) + 0.6), layout="constrained")
        grid = figure.subplots(len(cases), 2, squeeze=False)
        for row, case in zip(grid, cases, strict=True):
            for ax, axis, name in zip(row, (0, 1), ("xy", "xz"), strict=True):
                _draw(ax, case, axis)
                ax.set_title(f"{case.title}, {name}")
        lines = [Line2D([], [], color=c) for c in (TRUE_COLOUR, PREDICTED_COLOUR)]
        figure.legend(lines, ("true", "predicted"), loc="outside lower center", ncols=2, frameon=False)
        figure.savefig(path, dpi=130)


def _draw(ax: Axes, case: Segmented, axis: int) -> None:
    others = tuple(a for a in range(3) if a != axis)
    index = int((case.true > 0).sum(axis=others).argmax())
    image, true, predicted = (np.take(a, index, axis) for a in (case.image, case.true, case.predicted))
    low, high = np.percentile(image, (1, 99.5))
    aspect = case.spacing[others[0]] / case.spacing[others[1]]
    ax.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
    for mask, colour in ((true, TRUE_COLOUR), (predicted, PREDICTED_COLOUR)):
        for value in np.unique(mask[mask > 0]):
            ax.contour(mask == value, levels=[0.5], colors=[colour], linewidths=1.2)
    ax.set_axis_off()
