"""Pictures of embeddings, by volume."""

import csv
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ..data.settings import plain
from ..seg.outlines import png_of
from ..ssl.embeddings import Embeddings

# more volumes than this cannot be told apart by colour: the others are grey
_COLOURED = 10


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
        return png_of(figure)


def write_embeddings(embeddings: Embeddings, title: str, folder: Path) -> None:
    """Writes embeddings.npz (values, components, cases), embeddings.csv, measures.json and pca.png.

    Of those by random weights, where there are some, it writes the measures and pca_random.png.
    """
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
    measures = _measures(embeddings)
    if embeddings.random is not None:
        measures["random"] = _measures(embeddings.random)
        (folder / "pca_random.png").write_bytes(embedding_map(embeddings.random, "random weights"))
    (folder / "measures.json").write_text(json.dumps(measures, indent=1), encoding="utf-8")
    (folder / "pca.png").write_bytes(embedding_map(embeddings, title))


def _measures(embeddings: Embeddings) -> dict[str, Any]:
    return {
        **plain(embeddings.measures),
        "silhouette": embeddings.silhouette,
        "explained": list(embeddings.explained),
    }
