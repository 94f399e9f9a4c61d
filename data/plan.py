"""From what a data set is like to how it is prepared and trained on; every choice with its reason.

The rule for patch and pooling is that of Biom3d (Mougeot et al. 2024, doi:10.1242/jcs.262178, methods;
`auto_config.py` of its repository): the median shape, scaled down with its proportions until it fits a
budget of voxels, pooled until four to seven voxels are left, at most five times. We differ in that a
shape that fits the budget is rounded up to a multiple of its strides and one that was scaled is rounded
down, so that the budget is a bound, and in that width and batch follow the budget too.
"""

import math
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from .errors import UserError
from .fingerprint import Fingerprint
from .hashing import settings_hash
from .labels import LabelKind, LabelTable
from .resample import LINEAR, Orders
from .settings import plain, settings
from .volume import Orientation, Shape, Triple

BudgetName = Literal["default", "cpu"]
# voxels of a patch: Biom3d's 128^3 fits a GPU of 12 GiB; 64^3 trains in minutes on two CPU cores
BUDGETS: dict[BudgetName, int] = {"default": 128**3, "cpu": 64**3}
MAX_POOLINGS = 5
MAX_BATCH = 8
# spacings closer than this to the target are left as they are: resampling would only blur
SPACING_TOLERANCE = 1e-3

Scheme = Literal["zscore", "ct", "percentile", "none"]
# an axis this many times coarser than the others keeps its slices when resampled (nnU-Net's rule)
ANISOTROPIC = 3.0
_FLUORESCENCE = (
    "dapi",
    "hoechst",
    "gfp",
    "rfp",
    "yfp",
    "cfp",
    "mcherry",
    "cy3",
    "cy5",
    "alexa",
    "fitc",
    "h2b",
)
# air in Hounsfield units
_AIR = -900.0

Stride = tuple[Literal[1, 2], Literal[1, 2], Literal[1, 2]]
Extent = Annotated[int, Field(ge=1)]


@settings
class Window:
    """The grey values of a whole data set: what is clipped to, and what is subtracted and divided by."""

    low: float
    high: float
    mean: float
    std: Annotated[float, Field(gt=0)]


@settings
class Preprocessing:
    """What is done to every volume before a network sees it; hashed into the store.

    `spacing` (z, y, x) in `unit` is the voxel size volumes are resampled to, None where the files know
    none (then nothing is resampled); `orders` tells per axis whether images are interpolated linearly (1) or
    keep their nearest slice (0). `orientation` is what volumes are turned to: "RAS", or "stored" for files
    that know none.

    `normalisation` names one scheme per channel: "zscore" subtracts the volume's mean and divides by its
    standard deviation; "ct" clips to the `windows` of the data set and standardises by them; "percentile"
    maps the volume's percentiles 0.5 and 99.5 to 0 and 1; "none" leaves values as they are.
    """

    unit: str | None
    spacing: (
        tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
        | None
    )
    orders: Orders = LINEAR
    orientation: Orientation
    channels: Annotated[tuple[str, ...], Field(min_length=1)]
    normalisation: tuple[Scheme, ...]
    windows: tuple[Window | None, ...] = ()


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
    fingerprint: Fingerprint,
    *,
    budget: BudgetName = "default",
    voxels: int | None = None,
    label_kind: LabelKind = "classes",
    ignore: int | None = None,
    normalisation: Sequence[Scheme] | None = None,
) -> Plan:
    """The plan for a data set, from its images alone but for the table of label values.

    Args:
        fingerprint: what a scan found.
        budget: size of patches and network by name.
        voxels: the same as a number of voxels, instead of the name.
        label_kind, ignore: what the label values mean, and the value of voxels nobody annotated.
        normalisation: one scheme for all channels, or one each; chosen by channel names and grey values
            when None.
    """
    spacing = fingerprint.spacing and _rounded(fingerprint.spacing)
    limit = voxels or BUDGETS[budget]
    patch, strides = patch_and_strides(fingerprint.median_shape, limit)
    schemes = _schemes(fingerprint, normalisation)
    return Plan(
        preprocessing=Preprocessing(
            unit=fingerprint.unit,
            spacing=spacing,
            orders=orders_for(spacing),
            orientation=fingerprint.orientation,
            channels=fingerprint.channels,
            normalisation=tuple(scheme for scheme, _ in schemes),
            windows=tuple(
                _window(fingerprint, c) if scheme == "ct" else None for c, (scheme, _) in enumerate(schemes)
            ),
        ),
        labels=label_table(fingerprint, label_kind, ignore),
        training=Training(
            patch=patch, strides=strides, width=width_for(limit), batch=batch_for(patch, limit)
        ),
        reasons=_reasons(fingerprint, limit, patch, strides, schemes),
    )


def orders_for(spacing: Triple | None) -> Orders:
    """Interpolation per axis: linear, but for an axis so coarse that slices hardly know of each other."""
    if spacing is None:
        return LINEAR
    z, y, x = (s > ANISOTROPIC * min(spacing) for s in spacing)
    return 0 if z else 1, 0 if y else 1, 0 if x else 1


def _schemes(fingerprint: Fingerprint, given: Sequence[Scheme] | None) -> list[tuple[Scheme, str]]:
    """The normalisation of each channel, and why."""
    names = fingerprint.channels
    if given is None:
        return [_scheme(fingerprint, c) for c in range(len(names))]
    if len(given) not in (1, len(names)):
        raise UserError(
            "normalisation",
            found=f"{len(given)} schemes ({', '.join(given)})",
            rule=f"There is one for all channels, or one for each of {len(names)}",
            remedy=f"Give one or {len(names)}, separated by commas",
        )
    schemes: list[Scheme] = [*given] * (len(names) if len(given) == 1 else 1)
    return [(scheme, "as given") for scheme in schemes]


def _scheme(fingerprint: Fingerprint, channel: int) -> tuple[Scheme, str]:
    name = fingerprint.channels[channel].casefold()
    lowest = [case.intensities[channel].lowest for case in fingerprint.cases]
    if name.split("_")[0] == "ct" or (
        fingerprint.orientation == "RAS" and np.median(lowest) <= _AIR and _whole_numbers(fingerprint)
    ):
        return "ct", "looks like CT by name or by air below -900: absolute values mean something"
    if any(dye in name for dye in _FLUORESCENCE):
        return "percentile", "fluorescence by the channel's name: dark is 0, bright is 1"
    return "zscore", "per volume: needs no labels and no statistics of other volumes"


def _whole_numbers(fingerprint: Fingerprint) -> bool:
    return all(np.dtype(case.dtype).kind in "iu" for case in fingerprint.cases)


def _window(fingerprint: Fingerprint, channel: int) -> Window:
    """Medians over the cases: no case of another field of view decides."""
    found = [case.intensities[channel] for case in fingerprint.cases]
    low, high, mean, std = (
        float(np.median([getattr(i, name) for i in found]))
        for name in ("percentile_0_5", "percentile_99_5", "mean", "std")
    )
    return Window(low=low, high=high, mean=mean, std=std or 1.0)


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


def label_table(fingerprint: Fingerprint, kind: LabelKind, ignore: int | None = None) -> LabelTable | None:
    """What the label values of a data set mean; None where nothing is labelled."""
    if not fingerprint.labelled:
        return None
    if kind == "instances":
        return LabelTable(kind=kind, background=fingerprint.background, ignore=ignore)
    if kind == "overlapping":
        channels = max(case.label_channels for case in fingerprint.cases)
        return LabelTable(kind=kind, values=tuple(range(channels + 1)), ignore=ignore)
    values = tuple(v for v in fingerprint.label_values if v != ignore and v not in fingerprint.aliases)
    return LabelTable(kind=kind, values=values, ignore=ignore, aliases=fingerprint.aliases)


def _rounded(spacing: Triple) -> Triple:
    """Six digits: headers in float32 give 0.99999994 for 1."""
    z, y, x = (float(np.format_float_positional(s, 6, fractional=False)) for s in spacing)
    return z, y, x


def _reasons(
    fingerprint: Fingerprint,
    voxels: int,
    patch: Shape,
    strides: tuple[Stride, ...],
    schemes: list[tuple[Scheme, str]],
) -> dict[str, str]:
    shape = fingerprint.median_shape
    fits = math.prod(patch) >= math.prod(shape)
    poolings = tuple(sum(s[a] == 2 for s in strides) for a in range(3))
    edge = f"{round(voxels ** (1 / 3))}^3 voxels"
    return {
        "spacing": (
            f"median of {len(fingerprint.cases)} cases"
            if fingerprint.spacing
            else "unknown: the files tell none, so nothing is resampled"
        ),
        "orders": f"0 (nearest slice) along axes over {ANISOTROPIC:g} times as coarse as the finest, else 1",
        "normalisation": "; ".join(
            f"{name}: {scheme}, {why}"
            for name, (scheme, why) in zip(fingerprint.channels, schemes, strict=True)
        ),
        "patch": f"median shape {shape} "
        + ("rounded to its strides" if fits else f"scaled to the budget of {edge}"),
        "strides": f"pooled {poolings} times, until 4 to 8 voxels are left, at most {MAX_POOLINGS} times",
        "width": f"32 features at 128^3 voxels, in proportion to the edge of the budget, {edge}",
        "batch": f"as many patches as {voxels} voxels hold, from 2 to {MAX_BATCH}",
        "labels": f"values found in {fingerprint.labelled} labels, in rising order",
    }
