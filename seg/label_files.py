"""Masks and labels as they are scored and shown: the values of a file, and where somebody annotated."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..data.formats.choices import ReadChoices
from ..data.formats.files import read_volume
from ..data.label_voxels import label_voxels
from ..data.labels import LabelKind, label_map, unannotated
from ..data.volume import Volume


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelFile:
    """A mask or label as read.

    `values` are (Z, Y, X) as in the file, 0 and 1 for instances; where classes overlap (K, Z, Y, X), with i
    or 0 in channel i - 1. They are 0 where `annotated` (Z, Y, X) is False.
    """

    volume: Volume
    values: np.ndarray
    annotated: np.ndarray

    @property
    def classes(self) -> set[int]:
        """The values above 0 that occur; every class where they overlap, as each has a channel."""
        if self.values.ndim == 4:
            return set(range(1, len(self.values) + 1))
        return {int(value) for value in np.unique(self.values) if value > 0}

    def voxels_of(self, value: int) -> np.ndarray:
        """Which voxels have a value above 0, (Z, Y, X) bool."""
        return self.values[value - 1] == value if self.values.ndim == 4 else self.values == value

    def within(self, annotated: np.ndarray) -> "LabelFile":
        """The same with 0 wherever `annotated` (Z, Y, X) is False."""
        return replace(self, values=np.where(annotated, self.values, 0), annotated=self.annotated & annotated)


def read_label(path: Path, kind: LabelKind, ignore: int | None = None, *, background: int = 0) -> LabelFile:
    """The mask or label in a file; voxels of the value `ignore` were annotated by nobody.

    In labels of kind "instances" `background` is no object.

    Raises UserError for a file that is no label of this kind.
    """
    volume = read_volume(path, ReadChoices(fourth_is_channels=kind == "overlapping"))
    annotated = np.ones(volume.shape, bool)
    if ignore is not None:
        annotated = ~unannotated(volume.array, kind, ignore)[0]
        # cleared first: a value such as -1 is no error where it means this
        volume = replace(volume, array=np.where(annotated, volume.array, 0))
    values = _channels(volume, path) if kind == "overlapping" else _map(volume, path)
    return LabelFile(
        volume=volume,
        values=((values != background) & annotated).astype(np.uint8) if kind == "instances" else values,
        annotated=annotated,
    )


def _map(volume: Volume, path: Path) -> np.ndarray:
    return label_voxels(volume, path)[(slice(None),) * 4][0]


def _channels(volume: Volume, path: Path) -> np.ndarray:
    """The number of its class (from 1) in each channel's voxels that are set, (K, Z, Y, X)."""
    alone = (
        replace(volume, array=volume.array[c : c + 1], channels=(name,))
        for c, name in enumerate(volume.channels)
    )
    numbered = [(label_map(channel, path) > 0) * np.uint16(c) for c, channel in enumerate(alone, start=1)]
    return np.stack(numbered)
