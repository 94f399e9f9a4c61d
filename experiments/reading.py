"""What a user may say of the files, as every command takes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from ..data.errors import UserError
from ..data.formats.choices import ReadChoices
from ..data.labels import LabelKind
from ..data.reading import ScanOptions
from ..data.settings import checked, parse
from ..data.sidecars import read_spacing_table
from ..data.units import canonical, known
from ..data.volume import Triple


class Reading(TypedDict, total=False):
    """How images are read. Each has its default in `ScanOptions`.

    spacing: voxel size (z, y, x) in `unit`, for files that tell none. spacings: CSV table with the columns
    case, z, y, x, unit, which stands above what files tell. axes: letters of the stored axes in their order,
    such as "TZYX". time: the time point to take, from 0. dataset: name of the array in an HDF5 file.
    replace_nonfinite: what stands for voxels that are NaN or infinite.
    """

    spacing: Triple | None
    unit: str | None
    spacings: str | Path | None
    axes: str | None
    time: int | None
    dataset: str | None
    replace_nonfinite: float | None


class LabelReading(Reading, total=False):
    """How images and labels are read.

    label_kind: "classes", "instances" where each object has a number, or "overlapping" where each class has
    a channel; classes when None, with an error where the values look like numbered objects. classes: how
    many are expected, background included. ignore_value: the value of voxels that nobody annotated. fix:
    mend what has one sensible correction. accept_geometry: take labels voxel by voxel whatever their headers
    say. label_axes, label_dataset: as `axes` and `dataset`, of labels; with `label_dataset` and no folder of
    labels each label is in the file of its image.
    """

    label_kind: LabelKind | None
    classes: int | None
    ignore_value: int | None
    fix: bool
    accept_geometry: bool
    label_axes: str | None
    label_dataset: str | None


def scan_options(told: Reading | LabelReading) -> ScanOptions:
    """What is assumed and done when files are read; raises UserError where that makes no sense."""
    given: dict[str, Any] = {key: value for key, value in told.items() if value is not None}
    spacing, unit = given.pop("spacing", None), given.pop("unit", None)
    _check_spacing(spacing, unit)
    _check_replacement(given.get("replace_nonfinite"))
    table = given.pop("spacings", None)
    image = _choices(given, axes="axes", time="time", dataset="dataset")
    label = _choices(given, axes="label_axes", time="time", dataset="label_dataset")
    for key in ("axes", "time", "dataset", "label_axes", "label_dataset"):
        given.pop(key, None)
    if "ignore_value" in given:
        given["ignore"] = given.pop("ignore_value")
    _check_ignored(given)
    values = {
        "spacing": spacing,
        "unit": canonical(unit),
        "spacings": {} if table is None else read_spacing_table(Path(table)),
        "image": image,
        "label": label,
        **given,
    }
    return parse(ScanOptions, values, "how files are read")


def _choices(given: Mapping[str, Any], **keys: str) -> ReadChoices:
    values = {name: given[key] for name, key in keys.items() if key in given}
    if "axes" in values:
        values["axes"] = values["axes"].upper()
    return checked(ReadChoices(**values), "how files are read")


def _check_ignored(given: Mapping[str, Any]) -> None:
    if given.get("label_kind") == "overlapping" and given.get("ignore") == 0:
        raise UserError(
            "ignore_value",
            found="0, of overlapping classes",
            rule="In a channel of a class 0 says that a voxel is not of the class",
            remedy="Write another value where nobody annotated, or give a folder of --regions",
        )


def _check_spacing(spacing: Triple | None, unit: str | None) -> None:
    if (spacing is None) != (unit is None) or (unit is not None and canonical(unit) is None):
        raise UserError(
            "spacing",
            found=f"spacing {spacing} with unit {unit}",
            rule=f"A spacing Z,Y,X goes with a unit: {', '.join(known())}",
            remedy="Give both, such as --spacing 0.5,0.1,0.1 --unit um",
        )
    if spacing is not None and not all(0 < s < float("inf") for s in spacing):
        raise UserError(
            "spacing",
            found=f"{spacing}",
            rule="A spacing is three lengths above 0",
            remedy="Give such as --spacing 0.5,0.1,0.1 --unit um",
        )


def _check_replacement(value: float | None) -> None:
    if value is not None and not abs(value) <= float(np.finfo(np.float32).max):
        raise UserError(
            f"--replace-nonfinite {value}",
            found="no finite number, or one beyond float32",
            rule="Every voxel of an image is a finite number",
            remedy="Give such a number, as --replace-nonfinite 0",
        )
