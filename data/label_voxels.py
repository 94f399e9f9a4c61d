"""Label files as whole numbers, whatever their layout, and as the class numbers of a plan."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from .errors import UserError
from .labels import IGNORED, LabelKind, LabelTable, count_values, whole_numbers
from .slabs import Held, slabs, thin
from .volume import OpenVolume, Voxels

_COLOURS = {"red", "green", "blue"}


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelVoxels:
    """Label values (C, Z, Y, X) of a file, whole numbers from 0; slicing reads and checks a part.

    C is 1, or the number of classes where they overlap. A file with a channel for each class, exactly
    one set in every voxel (`one_hot`), is read as the numbers of the channels.
    """

    where: object
    array: Voxels
    one_hot: bool = False
    ignore: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent (C, Z, Y, X)."""
        return (1, *self.array.shape[1:]) if self.one_hot else tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the file's values."""
        return self.array.dtype

    @property
    def chunk(self) -> tuple[int, int, int]:
        """Extent (z, y, x) of the pieces that the file is stored in."""
        return getattr(self.array, "chunk", (1, 1, 1))

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        """Values of the part that the slices name."""
        return self.read(key)[0]

    def read(self, key: tuple[slice, ...]) -> tuple[np.ndarray, int]:
        """Values of a part, and how many of its voxels were rounded to be whole numbers."""
        given = (slice(None), *key[1:]) if self.one_hot else key
        values, rounded = whole_numbers(self.array[given], self.where, self.ignore)
        if self.one_hot:
            values = self._numbers(values)
        return values, rounded

    def _numbers(self, channels: np.ndarray) -> np.ndarray:
        """The number of the one channel that is set in each voxel, (1, z, y, x)."""
        is_set = channels != 0
        wrong = np.count_nonzero(is_set.sum(axis=0) != 1)
        if wrong or np.unique(channels[is_set]).size > 1:
            raise UserError(
                self.where,
                found=f"a label of {len(channels)} channels, and {wrong} voxels that are not in exactly one",
                rule="A label has one channel of numbers, or one a class of which each voxel has one",
                remedy="Say --label-kind overlapping where classes overlap; or save numbers in one channel",
            )
        return is_set.argmax(axis=0)[None].astype(np.min_scalar_type(len(channels)))


def label_voxels(
    volume: OpenVolume, where: object, kind: LabelKind | None = None, ignore: int | None = None
) -> LabelVoxels:
    """The label values of a file read as `volume`; raises UserError for a mask in colours."""
    channels = volume.array.shape[0]
    if channels > 1 and set(volume.channels) >= _COLOURS:
        raise UserError(
            where,
            found=f"a label in colours ({', '.join(volume.channels)})",
            rule="A label has one channel of whole numbers, one number a class",
            remedy="Save it with numbers instead of colours (one grey value for each class)",
        )
    one_hot = channels > 1 and kind != "overlapping"
    return LabelVoxels(where=where, array=volume.array, one_hot=one_hot, ignore=ignore)


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """What a pass over a whole label found: voxels of each value, all annotated ones, and those rounded.

    Of overlapping classes, the voxels of channel i - 1 count as value i, those in no class as 0.
    """

    voxels: dict[int, int]
    annotated: int
    rounded: int


def count_labels(labels: LabelVoxels, region: Voxels | None, kind: LabelKind | None) -> LabelCounts:
    """Reads a whole label and counts its annotated voxels; raises UserError for what is no label."""
    counts: Counter[int] = Counter()
    annotated = rounded = 0
    above: list[set[int]] = [set() for _ in range(labels.shape[0])]
    for z in slabs(labels):
        held = replace(labels, array=Held.of(labels.array, z))
        mask = None if region is None else Held.of(region, z)
        for part in thin(z, labels.shape):
            values, off = held.read((slice(None), part))
            if kind == "overlapping":
                _check_binary(values, above, labels)
            within = None if mask is None else mask[:, part][0] != 0
            found, known = _counted(values, within, labels.ignore, kind)
            counts.update(found)
            annotated, rounded = annotated + known, rounded + off
    return LabelCounts(voxels=dict(sorted(counts.items())), annotated=annotated, rounded=rounded)


def _counted(
    values: np.ndarray, annotated: np.ndarray | None, ignore: int | None, kind: LabelKind | None
) -> tuple[dict[int, int], int]:
    """Annotated voxels of each value, and all of them: in overlapping classes a voxel may have several."""
    if kind != "overlapping":
        counts = count_values(values if annotated is None else values[:, annotated])
        counts.pop(ignore, None)  # type: ignore[arg-type]
        return counts, sum(counts.values())
    kept = np.ones(values.shape[1:], bool) if annotated is None else annotated
    if ignore is not None:
        kept = kept & (values != ignore).all(axis=0)
    is_set = (values != 0) & kept
    found = {i: int(np.count_nonzero(channel)) for i, channel in enumerate(is_set, start=1)}
    none = int(np.count_nonzero(kept & ~is_set.any(axis=0)))
    return {0: none, **found}, int(np.count_nonzero(kept))


def _check_binary(values: np.ndarray, above: list[set[int]], labels: LabelVoxels) -> None:
    """Adds the values of a part to those `above` 0 of each channel; raises UserError for a second one."""
    for c, (channel, present) in enumerate(zip(values, above, strict=True)):
        present |= count_values(channel).keys() - {0, labels.ignore}
        if len(present) > 1:
            raise UserError(
                labels.where,
                found=f"the values {', '.join(map(str, sorted(present)[:5]))} in channel {c}",
                rule="With --label-kind overlapping each channel is a class, and one value above 0 says yes",
                remedy="Save one binary channel a class, or leave --label-kind out for a map of numbers",
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassNumbers:
    """The class numbers of a plan (C, Z, Y, X), read part by part from a label file.

    `region` (1, Z, Y, X) is above 0 where somebody annotated; elsewhere numbers are `IGNORED`.
    """

    labels: LabelVoxels
    table: LabelTable
    region: Voxels | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent (C, Z, Y, X)."""
        return self.labels.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the class numbers."""
        return self.table.dtype

    @property
    def chunk(self) -> tuple[int, int, int]:
        """Extent (z, y, x) of the pieces that the file is stored in."""
        return self.labels.chunk

    def held(self, z: slice) -> "ClassNumbers":
        """The same with these slices of the files in memory."""
        region = None if self.region is None else Held.of(self.region, z)
        return replace(self, labels=replace(self.labels, array=Held.of(self.labels.array, z)), region=region)

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        """Class numbers of the part that the slices name; raises UserError for a value of no class."""
        values = self.labels[key]
        unseen = None if self.region is None else self.region[(slice(None), *key[1:])][0] == 0
        if unseen is not None:  # what stands there is nobody's word
            values = np.where(unseen, np.asarray(self.table.values[0], values.dtype), values)
        self._check(values)
        numbers = self.table.encode(values)
        if unseen is not None:
            numbers[:, unseen] = IGNORED
        return numbers

    def _check(self, values: np.ndarray) -> None:
        if self.table.kind != "classes":
            return
        unknown = set(count_values(values)) - {*self.table.values, *self.table.aliases, self.table.ignore}
        if unknown:
            raise UserError(
                self.labels.where,
                found=f"the label value {min(unknown)}",
                rule=f"The plan has the values {', '.join(map(str, self.table.values))}",
                remedy="Correct the label, or add the value to `labels.values` of the plan",
            )
