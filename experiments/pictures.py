"""Pictures: slices with outlines, and embeddings by volume."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..data.settings import plain
from ..data.volume import Triple
from ..ssl.embeddings import Embeddings

TRUE_COLOUR, PREDICTED_COLOUR = "#00c8ff", "#ff9d00"  # told apart by the colour-blind too
# more volumes than this cannot be told apart by colour: the others are grey
_COLOURED = 10


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
        return _png(figure)


def embedding_map(embeddings: Embeddings, title: str) -> bytes:
    """A PNG of the first two principal components, a point for each view; the first volumes in colour."""
    names = list(dict.fromkeys(embeddings.cases))
    colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    points = embeddings.components.numpy()
    owners = np.array(embeddings.cases)
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(6.0, 4.3), layout="constrained")
        ax = figure.subplots()
        others = ~np.isin(owners, names[:_COLOURED])
        ax.scatter(*points[others].T, s=8, color="0.8", linewidths=0)
        for name, colour in zip(names[:_COLOURED], colours, strict=False):
            own = points[owners == name]
            ax.scatter(*own.T, s=22, color=[colour], linewidths=0, label=name)
            for point in own:
                ax.plot(*np.stack([own.mean(axis=0), point], axis=1), color=colour, linewidth=0.6, alpha=0.6)
        ax.set_xlabel(f"component 1 ({embeddings.explained[0]:.0%} of the variance)")
        ax.set_ylabel(f"component 2 ({embeddings.explained[1]:.0%})")
        ax.set_title(title)
        more = f"{len(names) - _COLOURED} more in grey" if len(names) > _COLOURED else None
        figure.legend(loc="outside right upper", fontsize=7, frameon=False, title=more, title_fontsize=7)
        return _png(figure)


def write_embeddings(embeddings: Embeddings, title: str, folder: Path) -> None:
    """Writes embeddings.npz (values, components, cases), embeddings.csv, measures.json and pca.png."""
    values, components = embeddings.values.numpy(), embeddings.components.numpy()
    np.savez(
        folder / "embeddings.npz", values=values, components=components, cases=np.array(embeddings.cases)
    )
    with (folder / "embeddings.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["case", "component_1", "component_2"])
        table.writerows(
            [case, f"{a:.6g}", f"{b:.6g}"] for case, (a, b) in zip(embeddings.cases, components, strict=True)
        )
    measures = {**plain(embeddings.measures), "explained": list(embeddings.explained)}
    (folder / "measures.json").write_text(json.dumps(measures, indent=1), encoding="utf-8")
    (folder / "pca.png").write_bytes(embedding_map(embeddings, title))


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


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
