"""Masks and labels as they are scored and shown: the values of a file, and where somebody annotated."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..data.errors import UserError
from ..data.formats.alike import stored_alike
from ..data.formats.choices import ReadChoices
from ..data.formats.files import read_volume
from ..data.geometry import differences
from ..data.label_voxels import label_voxels
from ..data.labels import LabelKind, LabelTable, label_map, unannotated
from ..data.volume import Volume


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelFile:
    """A mask or label as read.

    `values` are (Z, Y, X) as in the file, 0 and 1 for instances; where classes overlap (K, Z, Y, X), with i
    or 0 in channel i - 1. They are 0 where `annotated` (Z, Y, X) is False. `ids` are the numbers of instances
    as in the file, whatever number stands for none.
    """

    volume: Volume
    values: np.ndarray
    annotated: np.ndarray
    ids: np.ndarray | None = None

    @property
    def classes(self) -> set[int]:
        """The values above 0 that occur; every class where they overlap, as each has a channel."""
        if self.values.ndim == 4:
            return set(range(1, len(self.values) + 1))
        return {int(value) for value in np.unique(self.values) if value > 0}

    def voxels_of(self, value: int) -> np.ndarray:
        """Which voxels have a value above 0, (Z, Y, X) bool."""
        return self.values[value - 1] == value if self.values.ndim == 4 else self.values == value

    @property
    def objects(self) -> np.ndarray:
        """The instances numbered from 1, 0 elsewhere (Z, Y, X)."""
        if self.ids is None:
            raise ValueError("only instances have objects")
        numbers = np.zeros(self.values.shape, np.int32)
        numbers[self.values == 1] = np.unique(self.ids[self.values == 1], return_inverse=True)[1] + 1
        return numbers

    def within(self, annotated: np.ndarray) -> "LabelFile":
        """The same with 0 wherever `annotated` (Z, Y, X) is False."""
        return replace(self, values=np.where(annotated, self.values, 0), annotated=self.annotated & annotated)


def read_label(
    path: Path,
    kind: LabelKind,
    ignore: int | None = None,
    *,
    table: LabelTable | None = None,
    like: Volume | None = None,
    region: Path | None = None,
) -> LabelFile:
    """The mask or label in a file.

    Args:
        path: the file.
        kind: what it holds.
        ignore: the value of voxels that nobody annotated.
        table: what is no object, and which values stand for others.
        like: a volume whose voxels it has whatever its own header says.
        region: a mask of what was annotated.

    Raises UserError for a file that is no label of this kind.
    """
    volume = read_volume(path, ReadChoices(fourth_is_channels=kind == "overlapping"))
    volume = volume if like is None else stored_alike(volume, like).load()
    annotated = np.ones(volume.shape, bool) if region is None else _annotated(region, volume, path)
    if ignore is not None:
        annotated &= ~unannotated(volume.array, kind, ignore)[0]
    # cleared first: what stands there is nobody's word
    background = 0 if table is None else table.background
    volume = replace(
        volume, array=np.where(annotated, volume.array, np.asarray(background, volume.array.dtype))
    )
    values = _channels(volume, path) if kind == "overlapping" else _map(volume, path)
    if kind == "instances":
        filled = (values != background).astype(np.uint8)
        return LabelFile(volume=volume, values=filled, annotated=annotated, ids=values)
    if table is not None:
        values = table.unaliased(values)
    return LabelFile(volume=volume, values=values, annotated=annotated)


def _annotated(region: Path, label: Volume, path: Path) -> np.ndarray:
    mask = read_volume(region)
    for field, of_region, of_label in differences(mask, label):
        raise UserError(
            region,
            found=f"{field} {of_region}, but {of_label} in {path}",
            rule=f"The mask of what was annotated has the {field} of its label",
            remedy="Export it again from the image it was drawn on",
        )
    return mask.array[0] != 0


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
