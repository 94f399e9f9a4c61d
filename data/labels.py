"""Checking label maps: whole numbers, one channel, and the values a data set uses."""

from dataclasses import field, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from .errors import UserError
from .settings import settings
from .volume import Volume

LabelKind = Literal["classes", "instances", "overlapping"]
# the class number of voxels that nobody annotated
IGNORED = -1
# whole numbers beyond this are not exact in float32 files
_LARGEST = 2**24
# floats this close to a whole number are that number
_ROUNDED = 1e-3


def _rising(values: tuple[int, ...]) -> tuple[int, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError("label values rise")
    return values


@settings
class LabelTable:
    """What the label values of a data set mean to a network.

    `values[i]` is the value that stands for class i in the user's files, `values[0]` = 0 the background, so
    that values with gaps (0, 255) train as 0, 1 and come back as they were. With `kind` "instances" each
    object has a number of its own, and every number but `background` is class 1. With "overlapping" a label
    has a channel for each class, and class i is channel i - 1; a voxel may be in several.

    Where 0 is the `ignore` value (as ilastik writes), the background is the lowest other value.

    `background` is the value that is no object in labels of kind "instances". `ignore` is the value of
    voxels that nobody annotated; they are drawn, learned and scored nowhere. `aliases` are values of files
    that stand for another one (255 for 1).
    """

    kind: LabelKind = "classes"
    values: Annotated[tuple[int, ...], Field(min_length=2), AfterValidator(_rising)] = (0, 1)
    background: int = 0
    ignore: int | None = None
    aliases: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values[0] != 0 and self.ignore != 0:
            raise ValueError("label values begin with 0, the background")

    @property
    def classes(self) -> int:
        """Number of classes, background included."""
        return len(self.values)

    @property
    def outputs(self) -> int:
        """Channels of a network's output: one a class, without the background where classes may overlap."""
        return self.classes - (self.kind == "overlapping")

    @property
    def dtype(self) -> np.dtype:
        """Type of class numbers: int8 up to 128 classes, int16 above."""
        return np.min_scalar_type(-self.classes)

    @property
    def mask_dtype(self) -> np.dtype:
        """Type of the values of the user's files: the narrowest unsigned one."""
        return np.dtype(np.uint8) if self.kind == "overlapping" else np.min_scalar_type(max(self.values))

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """File values as class numbers, `IGNORED` where nobody annotated, same shape.

        Overlapping classes, (K, Z, Y, X), become 0 and 1; a voxel that any channel leaves open is `IGNORED`
        in all.
        """
        labels = self.unaliased(labels)
        if self.kind == "classes":
            numbers = np.searchsorted(np.asarray(self.values), labels).astype(self.dtype)
        else:
            numbers = (labels != self.background).astype(self.dtype)
        if self.ignore is not None:
            numbers[unannotated(labels, self.kind, self.ignore)] = IGNORED
        return numbers

    def unaliased(self, labels: np.ndarray) -> np.ndarray:
        """File values, each alias replaced by what it stands for."""
        for alias, value in self.aliases.items():
            labels = np.where(labels == alias, np.asarray(value, labels.dtype), labels)
        return labels

    def decode(self, classes: np.ndarray) -> np.ndarray:
        """Class numbers as the values of the user's files, in the narrowest unsigned type.

        Overlapping classes, (K, Z, Y, X) of 0 and 1, stay what they are, and so do the numbers of objects.
        """
        if self.kind == "overlapping":
            return classes.astype(self.mask_dtype)
        if self.kind == "instances":
            return classes.astype(np.min_scalar_type(classes.max(initial=0)))
        return np.asarray(self.values).astype(self.mask_dtype)[classes]

    def members(self, numbers: np.ndarray, of_class: int) -> np.ndarray:
        """Which voxels are of a class (from 1), (Z, Y, X) bool, by class numbers as `encode` makes them."""
        return numbers[of_class - 1] == 1 if self.kind == "overlapping" else numbers == of_class

    def same_classes(self, other: "LabelTable") -> bool:
        """Whether two tables mean the same classes, whatever stands for voxels that nobody annotated."""
        return replace(self, ignore=None) == replace(other, ignore=None)


def unannotated(labels: np.ndarray, kind: LabelKind, ignore: int) -> np.ndarray:
    """Which voxels of a label in file values nobody annotated, bool of the same shape.

    Of overlapping classes, (K, Z, Y, X), a voxel that any channel leaves open is open in all.
    """
    is_open = labels == ignore
    return np.broadcast_to(is_open.any(axis=0), labels.shape) if kind == "overlapping" else is_open


def label_map(volume: Volume, where: object) -> np.ndarray:
    """The label map (Z, Y, X) as whole numbers from 0; raises UserError when it is not one.

    Whole numbers stored as floats are taken, as float files often hold masks.
    """
    if volume.array.shape[0] != 1:
        raise UserError(
            where,
            found=f"a label of {volume.array.shape[0]} channels ({', '.join(volume.channels)})",
            rule="A label map has one channel of whole numbers",
            remedy="Save it as one channel in which each class has a number",
        )
    return whole_numbers(volume.array[0], where)[0]


def whole_numbers(labels: np.ndarray, where: object, ignore: int | None = None) -> tuple[np.ndarray, int]:
    """The same array as whole numbers from 0 (or `ignore`), and how many voxels were rounded to be that.

    Floats up to a thousandth off are rounded: what other programs computed from masks is often so. Raises
    UserError for negative, fractional, huge and non-finite values.
    """
    if labels.dtype == bool:
        return labels.astype(np.uint8), 0
    rounded = 0
    if labels.dtype.kind == "f":
        labels, rounded = _rounded(labels, where)
    negative = labels < 0 if ignore is None or ignore >= 0 else (labels < 0) & (labels != ignore)
    if negative.any():
        raise UserError(
            where,
            found=f"the label value {labels[negative].min()}",
            rule="Label values are 0 (background) and above",
            remedy="Give these voxels a value that is not negative, or say with --ignore-value that it means "
            "unannotated",
        )
    return labels, rounded


def _rounded(labels: np.ndarray, where: object) -> tuple[np.ndarray, int]:
    if not np.isfinite(labels).all():
        raise UserError(
            where,
            found=f"{int((~np.isfinite(labels)).sum())} voxels are NaN or infinite",
            rule="Label values are whole numbers",
            remedy="Replace these voxels, by 0 if they are background",
        )
    if np.abs(labels).max() > _LARGEST:
        raise UserError(
            where,
            found=f"the label value {np.abs(labels).max():g}",
            rule=f"Label values are whole numbers up to {_LARGEST}",
            remedy="Check that this is a label map, and save it with small numbers",
        )
    whole = np.rint(labels)
    off = np.abs(whole - labels)
    if (off > _ROUNDED).any():
        wrong = off > _ROUNDED
        raise UserError(
            where,
            found=f"the label value {labels[wrong][0]:g} (and {int(wrong.sum()) - 1} more like it)",
            rule="Label values are whole numbers",
            remedy="Save the label without interpolation or rescaling",
        )
    return whole.astype(np.int64), int(np.count_nonzero(off))


def count_values(labels: np.ndarray) -> dict[int, int]:
    """How many voxels have each value that occurs."""
    if labels.dtype.kind == "u" and labels.dtype.itemsize <= 2:  # far faster than sorting
        counts = np.bincount(labels.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(labels, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}
