"""Pictures of SmartPatch for docs/smartpatch.md: its boxes over a training, schedule and coverage."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..data.synthetic import NucleiConfig, nuclei_volume
from ..ssl.box import Box, allowed, placed
from ..ssl.schedule import Course
from ..ssl.smartpatch import Frame, SmartPatchConfig, draw_boxes

GLOBAL, LOCAL = "#ff9d00", "#00c8ff"  # told apart by the colour-blind too
_TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
_FRAME = Frame(extent=(24, 96, 96), patch=(8, 32, 32))
_CONFIG = SmartPatchConfig()


def write_smartpatch_pictures(folder: Path) -> None:
    """Writes smartpatch_boxes.png, smartpatch_schedule.png and smartpatch_coverage.png."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"boxes": boxes_figure, "schedule": schedule_figure, "coverage": coverage_figure}
    with matplotlib.rc_context({"font.size": 8}):
        for name, draw in drawn.items():
            draw().savefig(folder / f"smartpatch_{name}.png", dpi=90)


def boxes_figure() -> Figure:
    """Boxes of samples of one volume, seen along z, at five times of a training."""
    image, _ = nuclei_volume(NucleiConfig(shape=_FRAME.extent, nuclei=(9, 14)), 0, 0)
    rows = {"1 global, 1 local": (1, 1), "2 global, 4 local": (2, 4)}
    figure = Figure(figsize=(8.5, 1.75 * len(rows) + 0.3), layout="constrained")
    grid = figure.subplots(len(rows), len(_TIMES))
    for r, (name, (global_views, local_views)) in enumerate(rows.items()):
        for column, progress in enumerate(_TIMES):
            rng = np.random.default_rng([3 + r, column])
            boxes = draw_boxes(_FRAME, global_views, local_views, progress, _CONFIG, rng)
            ax = grid[r][column]
            _draw_boxes(ax, image.max(axis=0), boxes, global_views)
            if r == 0:
                ax.set_title(f"{progress:.0%} of the training")
        grid[r][0].set_ylabel(name)
    return figure


def schedule_figure() -> Figure:
    """Sizes and overlaps that were drawn over a training, and the courses there are."""
    times = np.linspace(0, 1, 400)
    rng = np.random.default_rng(0)
    drawn = [draw_boxes(_FRAME, 1, 1, t, _CONFIG, rng) for t in times]
    figure = Figure(figsize=(8.5, 2.4), layout="constrained")
    sizes, overlaps, courses = figure.subplots(1, 3)
    for i, (name, colour) in enumerate((("global", GLOBAL), ("local", LOCAL))):
        edges = [boxes[i].size[2] / _FRAME.patch[2] for boxes in drawn]
        sizes.plot(times, edges, ".", ms=3, color=colour, label=name)
    sizes.set(title="sizes", ylabel="edge, in patches", ylim=(0, 3.2))
    sizes.legend(frameon=False)
    overlaps.plot(times, [one.overlap(other) for one, other in drawn], ".", ms=3, color="0.5", label="drawn")
    overlaps.plot(times, [_CONFIG.overlap.at(t) for t in times], color="black", label="asked for")
    overlaps.set(title="overlap", ylabel="share of the smaller box", ylim=(0, 1.05))
    overlaps.legend(frameon=False, loc="lower left")
    for course, style in (
        (Course(), "-"),
        (Course(shape="cosine"), "--"),
        (Course(shape="polynomial", power=2), ":"),
    ):
        passed = [course.passed(t) for t in times]
        power = f", power {course.power:g}" if course.shape == "polynomial" else ""
        courses.plot(times, passed, style, color="black", label=course.shape + power)
    courses.set(title="courses", ylabel="share of the way")
    courses.legend(frameon=False, loc="lower right", fontsize=7)
    for ax in (sizes, overlaps, courses):
        ax.set_xlabel("share of the training")
    return figure


def coverage_figure() -> Figure:
    """How often each voxel of a plane is covered by a box of a third of its width."""
    size, rng = np.array(_FRAME.patch, float), np.random.default_rng(0)
    here = [placed(_FRAME.extent, size, rng) for _ in range(5000)]
    evenly = [rng.uniform(*allowed(_FRAME.extent, size)) for _ in range(5000)]
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    axes = figure.subplots(1, 2)
    titles = ("middles drawn evenly, then moved inside", "starts drawn evenly")
    colours = ScalarMappable(Normalize(0, 2.5), "viridis")
    for ax, starts, title in zip(axes, (here, evenly), titles, strict=True):
        covered = coverage(starts, size)
        ax.imshow(covered, norm=colours.norm, cmap=colours.cmap)
        ax.set(title=f"{title}\nleast {covered.min():.2f}, most {covered.max():.2f}", xticks=[], yticks=[])
    figure.colorbar(colours, ax=axes, label="against the middle")
    return figure


def coverage(starts: Sequence[np.ndarray], size: np.ndarray) -> np.ndarray:
    """How often boxes of one size cover each voxel (Y, X) of a plane, against its middle third."""
    _, y, x = _FRAME.extent
    total = np.zeros((y, x))
    for start in starts:
        low, high = np.rint(start[1:]).astype(int), np.rint(start[1:] + size[1:]).astype(int)
        total[low[0] : high[0], low[1] : high[1]] += 1
    third = y // 3
    return total / total[third : 2 * third, third : 2 * third].mean()


def _draw_boxes(ax: Axes, image: np.ndarray, boxes: Sequence[Box], global_views: int) -> None:
    ax.imshow(image, cmap="gray", vmax=float(np.percentile(image, 99.7)), extent=(0, *image.T.shape, 0))
    for i, box in enumerate(boxes):
        _, y, x = box.start
        _, height, width = box.size
        colour = GLOBAL if i < global_views else LOCAL
        ax.add_patch(Rectangle((x, y), width, height, fill=False, color=colour, lw=2 if i == 0 else 1.3))
    ax.set(xticks=[], yticks=[], xlim=(-2, image.shape[1] + 2), ylim=(image.shape[0] + 2, -2))
