"""Slices of volumes with the outlines of their true and predicted label maps."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..data.volume import Triple

TRUE_COLOUR, PREDICTED_COLOUR = "#00c8ff", "#ff9d00"  # told apart by the colour-blind too


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """An image (Z, Y, X) with its true and predicted label maps, (K, Z, Y, X) where classes overlap."""

    title: str
    image: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    spacing: Triple = (1.0, 1.0, 1.0)


def outline_grid(rows: Sequence[Sequence[Segmented]]) -> bytes:
    """A PNG with a panel for each entry: the slice that has most of the true label, with both outlines."""
    columns = max(len(row) for row in rows)
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(2.9 * columns, 2.9 * len(rows) + 0.5), layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes, row in zip(grid, rows, strict=True):
            for ax in axes[len(row) :]:
                ax.set_axis_off()
            for ax, case in zip(axes, row, strict=False):
                _draw(ax, case)
                ax.set_title(case.title)
        lines = [Line2D([], [], color=c) for c in (TRUE_COLOUR, PREDICTED_COLOUR)]
        figure.legend(lines, ("true", "predicted"), loc="outside lower center", ncols=2, frameon=False)
        return png_of(figure)


def png_of(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _draw(ax: Axes, case: Segmented) -> None:
    foreground = (case.true > 0).reshape(-1, *case.image.shape).any(axis=0)
    index = int(foreground.sum(axis=(1, 2)).argmax())
    image, true, predicted = (array[..., index, :, :] for array in (case.image, case.true, case.predicted))
    low, high = np.percentile(image, (1, 99.5))
    aspect = case.spacing[1] / case.spacing[2]
    ax.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
    for mask, colour in ((true, TRUE_COLOUR), (predicted, PREDICTED_COLOUR)):
        for outlined in _classes(mask) if min(image.shape) > 1 else ():  # a line of voxels has no outline
            ax.contour(outlined, levels=[0.5], colors=[colour], linewidths=1.2)
    ax.set_axis_off()


def _classes(labels: np.ndarray) -> list[np.ndarray]:
    """The voxels (Y, X) of each class that a slice (Y, X) or (K, Y, X) has."""
    channels = labels.reshape(-1, *labels.shape[-2:])
    return [channel == value for channel in channels for value in np.unique(channel[channel > 0])]
