"""From what a data set is like to how it is prepared and trained on; every choice with its reason.

The rule for patch and pooling is that of Biom3d (Mougeot et al. 2024, doi:10.1242/jcs.262178, methods;
`auto_config.py` of its repository): the median shape, scaled down with its proportions until it fits a
budget of voxels, pooled until four to seven voxels are left, at most five times. We differ in that a
shape that fits the budget is rounded up to a multiple of its strides and one that was scaled is rounded
down, so that the budget is a bound, and in that width and batch follow the budget too.
"""

import math
from dataclasses import field
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from .fingerprint import Fingerprint
from .hashing import settings_hash
from .labels import LabelKind, LabelTable
from .settings import plain, settings
from .volume import Orientation, Shape, Triple

BudgetName = Literal["default", "cpu"]
# voxels of a patch: Biom3d's 128^3 fits a GPU of 12 GiB; 64^3 trains in minutes on two CPU cores
BUDGETS: dict[BudgetName, int] = {"default": 128**3, "cpu": 64**3}
MAX_POOLINGS = 5
MAX_BATCH = 8
# spacings closer than this to the target are left as they are: resampling would only blur
SPACING_TOLERANCE = 1e-3

Stride = tuple[Literal[1, 2], Literal[1, 2], Literal[1, 2]]
Extent = Annotated[int, Field(ge=1)]


@settings
class Preprocessing:
    """What is done to every volume before a network sees it; hashed into the store.

    `spacing` (z, y, x) in `unit` is the voxel size volumes are resampled to, None where the files know
    none (then nothing is resampled). `orientation` is what volumes are turned to: "RAS", or "stored" for
    files that know none. `normalisation` names one scheme per channel; "zscore" subtracts
    the volume's mean and divides by its standard deviation.
    """

    unit: str | None
    spacing: (
        tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
        | None
    )
    orientation: Orientation
    channels: Annotated[tuple[str, ...], Field(min_length=1)]
    normalisation: tuple[Literal["zscore"], ...]


@settings
class Training:
    """Patch and network size; changing them needs no new store.

    `patch` is (z, y, x) in voxels; `strides` has one entry per pooling, from the finest level down.
    `width` is the number of features of the finest level, doubled at each level up to `max_width`.
    """

    patch: tuple[Extent, Extent, Extent]
    strides: tuple[Stride, ...]
    width: Annotated[int, Field(ge=1, le=512)]
    max_width: Annotated[int, Field(ge=1, le=2048)] = 320
    batch: Annotated[int, Field(ge=1)] = 2


@settings
class Plan:
    """All that follows from a fingerprint. `labels` is None for a data set without any label.

    `reasons` tells for each choice why it was made; it is for readers and has no effect.
    """

    version: Literal[1] = 1
    preprocessing: Preprocessing
    labels: LabelTable | None
    training: Training
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def store_hash(self) -> str:
        """Hash of all that a prepared store depends on."""
        return settings_hash([plain(self.preprocessing), self.labels and plain(self.labels)])


def make_plan(
    fingerprint: Fingerprint, *, budget: BudgetName = "default", label_kind: LabelKind = "classes"
) -> Plan:
    """The plan for a data set, from its images alone but for the table of label values."""
    spacing = fingerprint.spacing and _rounded(fingerprint.spacing)
    patch, strides = patch_and_strides(fingerprint.median_shape, BUDGETS[budget])
    voxels = BUDGETS[budget]
    width = width_for(voxels)
    batch = batch_for(patch, voxels)
    labels = label_table(fingerprint, label_kind)
    return Plan(
        preprocessing=Preprocessing(
            unit=fingerprint.unit,
            spacing=spacing,
            orientation=fingerprint.orientation,
            channels=fingerprint.channels,
            normalisation=("zscore",) * len(fingerprint.channels),
        ),
        labels=labels,
        training=Training(patch=patch, strides=strides, width=width, batch=batch),
        reasons=_reasons(fingerprint, budget, patch, strides),
    )


def patch_and_strides(shape: Shape, budget: int) -> tuple[Shape, tuple[Stride, ...]]:
    """Patch (z, y, x) for volumes of `shape` and the strides of its poolings, within `budget` voxels.

    (95, 512, 512) under 128^3 gives (40, 224, 224), pooled (3, 5, 5) times.
    """
    target = _scaled(shape, budget)
    poolings = [min(MAX_POOLINGS, max(0, int(math.log2(t)) - 2)) for t in target]
    multiple = [2**p for p in poolings]
    patch = [int(t) // m * m for t, m in zip(target, multiple, strict=True)]
    whole = [-(-extent // m) * m for extent, m in zip(shape, multiple, strict=True)]
    if target == list(shape) and math.prod(whole) <= budget:
        patch = whole
    z, y, x = patch
    return (z, y, x), _strides(poolings)


def _scaled(shape: Shape, budget: int) -> list[float]:
    """The shape in its proportions, within the budget; where an axis stays at 1 the others make up for it."""
    target = [float(extent) for extent in shape]
    free = [axis for axis in range(3) if shape[axis] > 1]
    while math.prod(target) > budget:
        scale = (budget / math.prod(shape[axis] for axis in free)) ** (1 / len(free))
        for axis in free:
            target[axis] = max(1.0, shape[axis] * scale)
        free = [axis for axis in free if target[axis] > 1]
        if math.prod(target) <= budget * (1 + 1e-9):
            break
    return target


def _strides(poolings: list[int]) -> tuple[Stride, ...]:
    """Strides level by level: an axis pooled fewer times skips levels at the head and the tail in turn."""
    depth = max(poolings)
    per_axis = []
    for count in poolings:
        head = math.ceil((depth - count) / 2)
        tail = depth - count - head
        per_axis.append([1] * head + [2] * count + [1] * tail)
    return tuple(zip(*per_axis, strict=True))  # type: ignore[return-value]


def width_for(budget: int) -> int:
    """Features of the finest level: nnU-Net's 32 at 128^3, in proportion to the edge, a multiple of 8."""
    return max(8, round(32 * (budget / BUDGETS["default"]) ** (1 / 3) / 8) * 8)


def batch_for(patch: Shape, budget: int) -> int:
    """Patches per step: as many as the budget holds, from nnU-Net's least (2) to MAX_BATCH."""
    return min(MAX_BATCH, max(2, budget // math.prod(patch)))


def label_table(fingerprint: Fingerprint, kind: LabelKind) -> LabelTable | None:
    """What the label values of a data set mean; None where nothing is labelled."""
    if not fingerprint.labelled:
        return None
    return LabelTable(kind=kind, values=(0, 1) if kind == "instances" else fingerprint.label_values)


def _rounded(spacing: Triple) -> Triple:
    """Six digits: headers in float32 give 0.99999994 for 1."""
    z, y, x = (float(np.format_float_positional(s, 6, fractional=False)) for s in spacing)
    return z, y, x


def _reasons(
    fingerprint: Fingerprint, budget: BudgetName, patch: Shape, strides: tuple[Stride, ...]
) -> dict[str, str]:
    shape, voxels = fingerprint.median_shape, BUDGETS[budget]
    fits = math.prod(patch) >= math.prod(shape)
    poolings = tuple(sum(s[a] == 2 for s in strides) for a in range(3))
    return {
        "spacing": (
            f"median of {len(fingerprint.cases)} cases"
            if fingerprint.spacing
            else "unknown: the files tell none, so nothing is resampled"
        ),
        "normalisation": "z-score per volume and channel: needs no labels and no statistics of other volumes",
        "patch": (
            f"median shape {shape} "
            + ("rounded to its strides" if fits else f"scaled to {round(voxels ** (1 / 3))}^3 voxels")
            + f" (budget '{budget}')"
        ),
        "strides": f"pooled {poolings} times, until 4 to 8 voxels are left, at most {MAX_POOLINGS} times",
        "width": f"32 features at 128^3 voxels, in proportion to the edge of the budget '{budget}'",
        "batch": f"as many patches as {voxels} voxels hold, from 2 to {MAX_BATCH}",
        "labels": f"values found in {fingerprint.labelled} labels, in rising order",
    }
