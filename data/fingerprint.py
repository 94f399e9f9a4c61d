"""What a data set is like, as far as a plan needs to know."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import field

import numpy as np

from .intensities import Intensity
from .settings import settings
from .units import factor
from .volume import Orientation, Shape, Triple


@settings
class CaseFacts:
    """What the scan read of one case. Hashes are SHA-256: of the files' bytes and of the voxel values.

    `turned` is whether axes of the file were turned to RAS. `label_voxels` counts the annotated voxels of
    each label value (of overlapping classes: those of channel i - 1 as value i, and those of no class as 0).
    `corrections` tells what is mended when the case is prepared.
    """

    id: str
    subject: str
    shape: Shape
    spacing: Triple | None
    unit: str | None
    orientation: Orientation
    turned: bool = False
    channels: tuple[str, ...]
    dtype: str
    intensities: tuple[Intensity, ...]
    label_voxels: dict[int, int] | None
    annotated_voxels: int = 0
    image_hash: str
    label_hash: str | None
    content_hash: str
    annotated_voxels: int = 0
    label_dtype: str | None = None
    label_channels: int = 0
    replaced_voxels: int = 0
    corrections: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def annotated_share(self) -> float:
        """The share of voxels that somebody annotated; 0 without a label."""
        return self.annotated_voxels / math.prod(self.shape)

    def foreground(self, background: int = 0) -> int:
        """Labelled voxels of another value than `background`; those of several classes count for each."""
        return sum(n for value, n in (self.label_voxels or {}).items() if value != background)

    def voxels_of(self, value: int) -> int:
        """How many voxels have a label value; 0 without a label."""
        return (self.label_voxels or {}).get(value, 0)

    def spacing_in(self, unit: str | None) -> Triple:
        """The spacing (z, y, x) in `unit`; only for cases whose spacing is known."""
        if self.spacing is None:
            raise ValueError(f"the spacing of {self.id} is unknown")
        f = factor(self.unit, unit) if self.unit and unit else 1.0
        z, y, x = self.spacing
        return z * f, y * f, x * f


@settings
class Fingerprint:
    """Facts of all readable cases, and what they have in common.

    `unit` is the commonest of the data set; `spacing` is the median in it, per axis; both are None where
    the files do not tell. `median_shape` is in voxels of that spacing. `background` is the label value
    that is no object where labels are read as objects.
    """

    cases: tuple[CaseFacts, ...]
    unit: str | None
    spacing: Triple | None
    median_shape: Shape
    orientation: Orientation
    channels: tuple[str, ...]
    label_values: tuple[int, ...]
    background: int = 0
    aliases: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Sequence[CaseFacts]) -> "Fingerprint":
        """The fingerprint of these cases, in their order; empty when there is none."""
        known = [f for f in facts if f.spacing is not None]
        unit = Counter(f.unit for f in known).most_common(1)[0][0] if known else None
        spacing = _median_spacing(known, unit) if known and len(known) == len(facts) else None
        return cls(
            cases=tuple(facts),
            unit=unit,
            spacing=spacing,
            median_shape=_median_shape(facts, spacing, unit),
            orientation="RAS" if facts and all(f.orientation == "RAS" for f in facts) else "stored",
            channels=Counter(f.channels for f in facts).most_common(1)[0][0] if facts else (),
            label_values=tuple(sorted({0}.union(*(f.label_voxels or {} for f in facts)))),
        )

    @property
    def labelled(self) -> int:
        """How many cases have a label."""
        return sum(f.label_voxels is not None for f in self.cases)


def _median_spacing(known: Sequence[CaseFacts], unit: str | None) -> Triple:
    z, y, x = np.median([f.spacing_in(unit) for f in known], axis=0)
    return float(z), float(y), float(x)


def _median_shape(facts: Sequence[CaseFacts], spacing: Triple | None, unit: str | None) -> Shape:
    if not facts:
        return 0, 0, 0
    shapes = np.array([f.shape for f in facts], dtype=float)
    if spacing is not None:
        shapes *= np.array([f.spacing_in(unit) for f in facts]) / spacing
    z, y, x = np.maximum(1, np.rint(np.median(shapes, axis=0)).astype(int))
    return int(z), int(y), int(x)
