"""What OME-Zarr metadata say of the axes of an array: what they are, and where in the world voxels are.

Source: https://ngff.openmicroscopy.org/0.5, "axes" and "multiscales" metadata.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..errors import VolumeError
from ..units import canonical, factor
from ..volume import Triple
from .choices import ReadChoices
from .spacing import tidy
from .stored import declared_axes

_LETTERS = {"time": "T", "channel": "C"}
_ADVICE = "spacing unknown until it is given"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One stored axis: its letter here, its name and unit in the file, and the place of its voxels.

    The place of voxel i is `scale * i + translation`; `scale` is None where the file does not tell it.
    """

    letter: str
    name: str
    unit: str | None = None
    scale: float | None = None
    translation: float = 0.0


def stored_axes(
    path: Path,
    array: zarr.Array,
    image: dict[str, Any],
    level: dict[str, Any],
    choices: ReadChoices,
    notes: list[str],
) -> tuple[Axis, ...]:
    """All stored axes in their order, with what the metadata of the image and of its level say of them."""
    told = _told_axes(array, image)
    words = f"axes {', '.join(str(axis['name']) for axis in told) or 'without names'} of shape {array.shape}"
    if choices.axes is not None:
        letters = declared_axes(path, choices.axes, array.shape, words)
        notes.append(f"axes declared as {letters}, where the file has {words}")
        known = told if len(told) == len(letters) else [{} for _ in letters]
        told = [{**axis, "name": letter.lower()} for axis, letter in zip(known, letters, strict=True)]
    else:
        letters = _letters(path, told, array, words, notes)
        told = told or [{"name": letter.lower()} for letter in letters]
    steps = [step for part in (level, image) for step in part.get("coordinateTransformations", ())]
    scale, shift = _placed(steps, len(told), notes)
    return tuple(
        Axis(letter=letter, name=str(axis["name"]), unit=axis.get("unit"), scale=s, translation=t)
        for letter, axis, s, t in zip(letters, told, scale, shift, strict=True)
    )


def _told_axes(array: zarr.Array, image: dict[str, Any]) -> list[dict[str, Any]]:
    """The axes as the metadata describe them, or, for a plain array, as it names its dimensions."""
    if image:
        # before version 0.4 axes were names, or not told at all
        return [axis if isinstance(axis, dict) else {"name": axis} for axis in image.get("axes", ())]
    names: Any = (
        getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    )
    return [{"name": name} for name in names]


def _letters(path: Path, told: list[dict[str, Any]], array: zarr.Array, words: str, notes: list[str]) -> str:
    """A letter for each axis, by its name or else by its type; nameless axes of a 3D array are Z, Y, X."""
    if not told and array.ndim in (2, 3):
        notes.append(f"the axes have no names and are read as {'ZYX'[-array.ndim :]} ({words})")
        return "ZYX"[-array.ndim :]
    letters = [_letter(axis) for axis in told]
    fitting = len(letters) == array.ndim == len(set(letters)) and {"Y", "X"} <= set(letters)
    if not fitting or "?" in letters:
        raise VolumeError(
            path,
            found=words,
            rule="the axes of an OME-Zarr are called z, y, x and possibly c and t, each once",
            remedy="name the stored axes in their order with --axes (TCZYX, say), or write their names "
            "into the metadata",
        )
    return "".join(letters)


def _letter(axis: dict[str, Any]) -> str:
    name = str(axis["name"]).upper()
    return name if name in ("T", "C", "Z", "Y", "X") else _LETTERS.get(str(axis.get("type")), "?")


def _placed(
    steps: list[dict[str, Any]], count: int, notes: list[str]
) -> tuple[list[float | None], list[float]]:
    """Scale and translation of each axis after all transformations; scales of None where they do not tell."""
    scale, shift = np.ones(count), np.zeros(count)
    unknown: tuple[list[float | None], list[float]] = [None] * count, [0.0] * count
    for step in steps:
        if step["type"] == "scale" and "scale" in step:
            scale, shift = scale * step["scale"], shift * step["scale"]
        elif step["type"] == "translation" and "translation" in step:
            shift = shift + step["translation"]
        elif step["type"] != "identity":
            notes.append(f"a transformation of type {step['type']!r} that is not understood: {_ADVICE}")
            return unknown
    if not any(step["type"] == "scale" for step in steps):
        return unknown
    return list(scale.tolist()), shift.tolist()


def geometry(stored: tuple[Axis, ...], notes: list[str]) -> tuple[Triple | None, Triple, str | None]:
    """Spacing, origin and unit, (z, y, x); no spacing where an axis lacks what the others have."""
    axes = {axis.letter: axis for axis in stored if axis.letter in "ZYX"}
    unknown = None, (0.0, 0.0, 0.0), None
    scales = {letter: axis.scale for letter, axis in axes.items()}
    if any(s is None or not 0 < s < math.inf for s in scales.values()):
        notes.append(f"no usable scale of the axes: {_ADVICE}")
        return unknown
    units = {canonical(axis.unit) for axis in axes.values()}
    named = any(axis.unit for axis in axes.values())
    if named and None in units:
        names = ", ".join(str(axis.unit) for axis in axes.values())
        notes.append(f"the units of the axes, {names}, are not all units of length: {_ADVICE}")
        return unknown
    if not named and set(scales.values()) == {1.0}:
        notes.append(f"a scale of 1 without unit, which is written where none is known: {_ADVICE}")
        return unknown
    if "Z" not in axes:
        notes.append("a single slice of unstated depth; the width of its pixels taken")
    unit = canonical(axes["X"].unit)
    z, y, x = (_in_unit(axes.get(letter, axes["X"]), unit) for letter in "ZYX")
    depth = z[1] if "Z" in axes else 0.0
    return tidy((z[0], y[0], x[0])), (depth, y[1], x[1]), unit


def _in_unit(axis: Axis, unit: str | None) -> tuple[float, float]:
    own = canonical(axis.unit)
    times = 1.0 if own is None or unit is None else factor(own, unit)
    return (axis.scale or 1.0) * times, axis.translation * times
