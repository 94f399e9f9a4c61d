"""Opening the files of a case, with what a user says of them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from .cases import Case
from .errors import DatasetError, UserError, VolumeError
from .formats.alike import stored_alike
from .formats.choices import AS_STORED, ReadChoices
from .formats.files import open_volume
from .intensities import Intensity, IntensityMeter
from .label_voxels import ClassNumbers, label_voxels
from .labels import LabelKind, LabelTable
from .sidecars import Spacing, read_sidecar
from .slabs import Channel, parts
from .volume import OpenVolume, Triple, Volume, Voxels

_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """What the files cannot tell, and what is to be done about what is wrong with them.

    Args:
        spacing, unit: voxel size (z, y, x) of the files that tell none.
        spacings: spacing and unit by case; they stand above what the files tell.
        image, label: how files that can be read in several ways are read.
        label_kind: what labels are; classes when None, with an error where they look like numbered objects.
        classes: how many classes are expected, background included.
        ignore: the label value of voxels that nobody annotated.
        fix: mend what has one sensible correction; an error otherwise.
        replace_nonfinite: what stands for voxels that are NaN or infinite; an error when None.
        accept_geometry: take labels voxel by voxel although their header disagrees with that of the image.
    """

    spacing: Triple | None = None
    unit: str | None = None
    spacings: Mapping[str, Spacing] = field(default_factory=dict)
    image: ReadChoices = AS_STORED
    label: ReadChoices = AS_STORED
    label_kind: LabelKind | None = None
    classes: Annotated[int, Field(ge=2)] | None = None
    ignore: int | None = None
    fix: bool = True
    replace_nonfinite: Annotated[float, Field(ge=-_FLOAT32, le=_FLOAT32)] | None = None
    accept_geometry: bool = False


AS_FOUND = ScanOptions()


def open_image(case: Case, options: ScanOptions = AS_FOUND) -> OpenVolume:
    """The image of a case, from one file or one a channel, with the names and the spacing that are known.

    A spacing is that of the table in `options`, of the sidecar, of the file, or what `options` tell of all.
    Voxels are not judged, but for those that `options` replace.
    """
    choices = options.image if case.axes is None else replace(options.image, axes=case.axes)
    opened = [open_volume(path, choices) for path in case.images]
    volume = _opened(opened[0]) if len(opened) == 1 else _stacked(case.images, opened)
    if case.channels:
        volume = _named(volume, case)
    volume = as_told(volume, case, options)
    if options.replace_nonfinite is not None and volume.array.dtype.kind == "f":
        volume = replace(volume, array=Finite(array=volume.array, value=options.replace_nonfinite))
    return volume


def read_image(case: Case, options: ScanOptions = AS_FOUND) -> Volume:
    """The image of a case in memory; raises UserError unless every voxel is a finite float32."""
    volume = open_image(case, options).load()
    bad = sum(nonfinite(part) for _, part in parts(volume.array))
    if bad:
        raise not_finite(case.image, bad, volume.array.size)
    return volume


def measured_image(volume: OpenVolume, where: object) -> list[Intensity]:
    """The grey values of each channel of a whole volume, read piece by piece.

    Raises UserError unless every voxel is a finite float32.
    """
    found = []
    for c in range(volume.array.shape[0]):
        channel, bad = Channel(whole=volume.array, number=c), 0
        meter = IntensityMeter(math.prod(channel.shape))
        for _, part in parts(channel):
            bad += nonfinite(part)
            if not bad:
                meter.add(part)
        if bad:
            raise not_finite(where, bad, math.prod(channel.shape))
        found.append(meter.result())
    return found


def as_told(volume: OpenVolume, case: Case, options: ScanOptions) -> OpenVolume:
    """The same with the spacing that a table or a sidecar tells; with that of `options` if it has none."""
    told = options.spacings.get(case.id) or (read_sidecar(case.sidecar) if case.sidecar else None)
    if told is None and volume.spacing is None and options.spacing is not None:
        told = options.spacing, options.unit
    return volume if told is None else replace(volume, spacing=told[0], unit=told[1])


def open_label(path: Path, image: OpenVolume, options: ScanOptions = AS_FOUND) -> OpenVolume:
    """The label in a file; where its geometry is to be disregarded, turned as its image is."""
    label = open_stored_label(path, options)
    return stored_alike(label, image) if options.accept_geometry else label


def open_region(case: Case, image: OpenVolume, options: ScanOptions) -> OpenVolume | None:
    """The mask of what was annotated, one channel; None where the case has none."""
    if case.region is None:
        return None
    region = open_volume(case.region)
    if region.array.shape[0] != 1:
        raise UserError(
            case.region,
            found=f"{region.array.shape[0]} channels",
            rule="The mask of what was annotated has one channel, above 0 where somebody looked",
            remedy="Save it with one channel",
        )
    return stored_alike(region, image) if options.accept_geometry else region


def open_stored_label(path: Path, options: ScanOptions) -> OpenVolume:
    """The label in a file as it is stored; where classes overlap, each has a channel."""
    choices = replace(options.label, fourth_is_channels=options.label_kind == "overlapping")
    try:
        return _at_time(path, choices)
    except VolumeError as error:
        # the option that helps has another name for labels
        remedy = error.remedy.replace("--axes", "--label-axes").replace("--dataset", "--label-dataset")
        raise VolumeError(error.where, found=error.found, rule=error.rule, remedy=remedy) from error


def _at_time(path: Path, choices: ReadChoices) -> OpenVolume:
    """Of several time points one is annotated as often as not: its label has no time."""
    try:
        return open_volume(path, replace(choices, time=None))
    except VolumeError:
        if choices.time is None:
            raise
        return open_volume(path, choices)


def class_numbers(case: Case, image: OpenVolume, table: LabelTable, options: ScanOptions) -> ClassNumbers:
    """The class numbers of a labelled case, not yet read."""
    if case.label is None:
        raise ValueError(f"{case.id} has no label")
    label = open_label(case.label, image, options)
    values = label_voxels(label, case.label, table.kind, table.ignore)
    if table.kind == "overlapping" and values.shape[0] != table.outputs:
        raise UserError(
            case.label,
            found=f"a label of {values.shape[0]} channels",
            rule=f"The plan has {table.outputs} classes that may overlap, a channel for each",
            remedy="Add the missing channels, or plan anew",
        )
    region = open_region(case, image, options)
    return ClassNumbers(labels=values, table=table, region=region and region.array)


def refuse_unknown(options: ScanOptions, cases: Iterable[Case]) -> None:
    """Raises DatasetError where the table of spacings names a case that there is not."""
    unknown = sorted(options.spacings.keys() - {case.id for case in cases})
    if unknown:
        raise DatasetError(
            "the table of spacings",
            found=f"{len(unknown)} cases that there are not: {', '.join(unknown[:5])}",
            rule="A case is named as its volume without suffix",
            remedy="Correct the names in the table",
        )


def nonfinite(voxels: np.ndarray) -> int:
    """How many voxels are NaN, infinite, or would be as float32."""
    if voxels.dtype.kind != "f":
        return 0
    with np.errstate(over="ignore"):
        return voxels.size - int(np.count_nonzero(np.isfinite(voxels.astype(np.float32, copy=False))))


def made_finite(voxels: np.ndarray, value: float) -> np.ndarray:
    """The same with `value` wherever a voxel is no finite float32."""
    with np.errstate(over="ignore"):
        finite = np.isfinite(voxels.astype(np.float32, copy=False))
    return np.where(finite, voxels, np.asarray(value, voxels.dtype))


def not_finite(path: object, bad: int, voxels: int) -> UserError:
    """The error that tells of voxels without a finite value."""
    return UserError(
        path,
        found=f"{bad} of {voxels} voxels are NaN, infinite or beyond float32",
        rule="Every voxel of an image is a finite number",
        remedy="Give --replace-nonfinite VALUE to have them replaced, or leave the case out",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Finite:
    """An array in which voxels that are no finite float32 have another value."""

    array: Voxels
    value: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent (C, Z, Y, X)."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels."""
        return self.array.dtype

    @property
    def chunk(self) -> tuple[int, int, int]:
        """Extent (z, y, x) of the pieces that the file is stored in."""
        return getattr(self.array, "chunk", (1, 1, 1))

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        """The part that the slices name."""
        return made_finite(self.array[key], self.value)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stacked:
    """Channels (1, Z, Y, X) of several files as one array."""

    channels: tuple[Voxels, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent (C, Z, Y, X)."""
        return (len(self.channels), *self.channels[0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """The type that holds the values of all channels."""
        return np.result_type(*(channel.dtype for channel in self.channels))

    @property
    def chunk(self) -> tuple[int, int, int]:
        """Extent (z, y, x) of the pieces that the first file is stored in."""
        return getattr(self.channels[0], "chunk", (1, 1, 1))

    def __getitem__(self, key: slice | tuple[slice, ...]) -> np.ndarray:
        """The part that the slices name."""
        which, *rest = key if isinstance(key, tuple) else (key,)
        parts = [channel[(slice(None), *rest)] for channel in self.channels[which]]
        return np.concatenate(parts).astype(self.dtype, copy=False)


def _stacked(paths: Sequence[Path], opened: Sequence[OpenVolume]) -> OpenVolume:
    first = opened[0]
    for path, volume in zip(paths, opened, strict=True):
        differing = _differing(volume, first)
        if differing:
            raise UserError(
                path,
                found=f"{differing}, unlike in {paths[0]}",
                rule="The files of a case's channels hold one channel each, of one shape and geometry",
                remedy="Export the channels again from one image",
            )
    stacked = Stacked(channels=tuple(volume.array for volume in opened))
    return replace(_opened(first), array=stacked, channels=tuple(f"channel{c}" for c in range(len(opened))))


def _named(volume: OpenVolume, case: Case) -> OpenVolume:
    if len(case.channels) != volume.array.shape[0]:
        raise UserError(
            case.image,
            found=f"{volume.array.shape[0]} channels ({', '.join(volume.channels)})",
            rule=f"The data set has {len(case.channels)} ({', '.join(case.channels)})",
            remedy="Add the missing channel, or correct dataset.json",
        )
    return replace(volume, channels=case.channels)


def _opened(volume: OpenVolume) -> OpenVolume:
    """The same, not bound to be in memory."""
    values = {name: getattr(volume, name) for name in OpenVolume.__dataclass_fields__}
    return OpenVolume(**values)


def _differing(volume: OpenVolume, first: OpenVolume) -> str:
    if volume.array.shape[0] != 1:
        return f"{volume.array.shape[0]} channels"
    for name in ("shape", "spacing", "unit", "origin", "direction"):
        mine, theirs = getattr(volume, name), getattr(first, name)
        same = mine == theirs if name in ("shape", "unit") or None in (mine, theirs) else _close(mine, theirs)
        if not same:
            return f"{name} {mine}"
    return ""


def _close(a: object, b: object) -> bool:
    return bool(np.allclose(np.asarray(a), np.asarray(b), rtol=1e-4, atol=1e-4))
