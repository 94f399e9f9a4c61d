"""Volumes whose axes and geometry a text header describes: what NRRD and MetaImage have in common."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import VolumeError
from ..units import canonical
from ..volume import IDENTITY, OpenVolume, Shape
from .choices import ReadChoices
from .payload import Payload
from .ras import SIGNS, Turn, geometry
from .stored import Stored, declared_axes, time_point

Vector = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a header says. All axes are in stored order, the fastest first.

    `axes` has a letter for each axis of the payload: X, Y, Z for the spatial ones in this order, C, T, or "?"
    for one whose meaning the header does not tell. `steps` are the vectors from a voxel to the next along
    X, Y, Z, in the `frame` of the header ("RAS", "LAS", "LPS"; None: one that does not tell how a patient
    lies); None where no voxel size is told. `units` are the header's words for the unit of these lengths.
    """

    payload: Payload
    axes: str
    steps: tuple[Vector, ...] | None
    origin: Vector
    frame: str | None
    units: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DescribedSource:
    """What a result needs to be written in the geometry of its source.

    `lines` are the header's own words for its geometry, `shape` is the stored (x, y, z).
    """

    lines: tuple[tuple[str, str], ...]
    turn: Turn
    shape: Shape
    planar: bool


def volume(
    path: Path,
    told: Described,
    lines: tuple[tuple[str, str], ...],
    kind: type[DescribedSource],
    choices: ReadChoices,
) -> OpenVolume:
    """The volume that a header describes, turned to the closest RAS where its frame is known."""
    notes: list[str] = []
    axes, extents = _axes(path, told, choices, notes)
    x, y, z = (extents[axes.index(axis)] for axis in "XYZ")
    affine = _affine(path, told, notes)
    turn = Turn.of(affine) if told.frame and affine is not None else Turn()
    array = _stored(path, told, turn.letters(axes), extents, turn, choices).opened()
    unit = _unit(told, notes)
    spacing, origin, direction = None, (0.0, 0.0, 0.0), IDENTITY
    if affine is not None:
        spacing, origin, direction = geometry(turn.affine(affine, (x, y, z)))
    opened = OpenVolume(
        array=array,
        spacing=spacing if unit else None,
        unit=unit if spacing else None,
        origin=origin,
        direction=direction,
        orientation="RAS" if told.frame and spacing else "stored",
        source=kind(lines=lines, turn=turn, shape=(x, y, z), planar="Z" not in told.axes),
        notes=tuple(notes),
    )
    return opened.load() if isinstance(array, np.ndarray) else opened


def stored_result(array: np.ndarray, source: DescribedSource) -> np.ndarray:
    """A result, (Z, Y, X) or (C, Z, Y, X), as its source orders voxels: (x, y, z), several channels before.

    Little-endian; bool becomes uint8 and float16, which neither format knows, float32.
    """
    channels = array if array.ndim == 4 else array[None]
    stored = np.stack([source.turn.back(channel) for channel in channels])
    if stored.shape[1:] != source.shape:
        raise ValueError(f"a result of stored shape {stored.shape[1:]} for a source of shape {source.shape}")
    stored = stored[..., 0] if source.planar else stored
    stored = stored[0] if len(stored) == 1 else stored
    kept = {"bool": "uint8", "float16": "float32"}.get(stored.dtype.name, stored.dtype)
    return stored.astype(np.dtype(kept).newbyteorder("<"), copy=False)


def _axes(path: Path, told: Described, choices: ReadChoices, notes: list[str]) -> tuple[str, tuple[int, ...]]:
    """A letter for each stored axis, X, Y and Z among them, and the extents."""
    shape = told.payload.shape
    axes = told.axes if choices.axes is None else _declared(path, told, choices.axes, notes)
    for n, axis in enumerate(axes):
        if axis == "?" and shape[n] > 1 and choices.fourth_is_channels and "C" not in axes:
            axes = axes[:n] + "C" + axes[n + 1 :]
            continue
        if axis == "?" and shape[n] > 1:
            raise _ambiguous(path, told)
        if axis == "?":
            notes.append(f"axes of extent 1 dropped from the stored shape {shape}")
            axes = axes.replace("?", _spare(path, axes, shape), 1)
    if "Z" in axes:
        return axes, shape
    notes.append("a single 2D plane, read as a volume of one slice")
    return axes + "Z", (*shape, 1)


def _spare(path: Path, axes: str, shape: tuple[int, ...]) -> str:
    for letter in "CT":
        if letter not in axes:
            return letter
    raise VolumeError(
        path,
        found=f"an array of shape {shape}",
        rule="a volume has the axes X, Y, Z and at most channels and time points",
        remedy="save each volume as a 3D file of its own",
    )


def _ambiguous(path: Path, told: Described) -> VolumeError:
    channels, times = (told.axes.replace("?", letter, 1) for letter in "CT")
    return VolumeError(
        path,
        found=f"a stored shape {told.payload.shape}, axes {told.axes} (fastest first)",
        rule="what a further axis is, where the header does not tell, is for you to say",
        remedy=f"name all {len(told.axes)} stored axes: --axes {channels} for channels, --axes {times} "
        "--time N for one time point; or save each as a 3D file of its own",
    )


def _declared(path: Path, told: Described, axes: str, notes: list[str]) -> str:
    declared_axes(path, axes, told.payload.shape, f"a stored shape {told.payload.shape} (fastest axis first)")
    spatial = [axis if axis in "XYZ" else "" for axis in told.axes]
    if [axis if axis in "XYZ" else "" for axis in axes] != spatial:
        raise VolumeError(
            path,
            found=f"the declared axes {axes} for a header that has {told.axes}",
            rule="the spatial axes are X, Y, Z where the header has them; where they point it says itself",
            remedy=f"declare {told.axes.replace('?', 'C', 1)} or {told.axes.replace('?', 'T', 1)}",
        )
    notes.append(f"axes declared as {axes}")
    return axes


def _affine(path: Path, told: Described, notes: list[str]) -> np.ndarray | None:
    """From stored x, y, z to RAS (or to the header's own frame), (4, 4)."""
    if told.steps is None:
        notes.append("the header tells no voxel size: spacing unknown until it is given")
        return None
    if told.frame is None:
        notes.append("the header does not tell how the volume lies in a patient; its axes stand as stored")
    affine = np.eye(4)
    for n, step in enumerate(told.steps):
        affine[: len(step[:3]), n] = step[:3]
    if len(told.steps) == 2:
        notes.append("a single slice of unstated depth; the width of its pixels taken")
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / (np.linalg.norm(normal) or 1.0) * np.linalg.norm(affine[:3, 0])
    affine[: len(told.origin[:3]), 3] = told.origin[:3]
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise VolumeError(
            path,
            found=f"voxel steps {told.steps} from {told.origin}",
            rule="voxel sizes are finite and not 0, and the axes point in different directions",
            remedy="repair the header, or convert the file again from its origin",
        )
    return np.diag((*SIGNS.get(told.frame or "", (1, 1, 1)), 1)) @ affine


def _unit(told: Described, notes: list[str]) -> str | None:
    names = {name.strip() for name in told.units} - {"", "?"}
    if not names:
        notes.append("the header names no unit of length; mm taken, as ITK does")
        return "mm"
    units = {canonical(name) for name in names}
    if len(units) > 1 or None in units:
        notes.append(f"the unit {', '.join(sorted(names))} is not one of length: spacing unknown until given")
        return None
    return units.pop()


def _stored(
    path: Path, told: Described, axes: str, extents: tuple[int, ...], turn: Turn, choices: ReadChoices
) -> Stored:
    read = told.payload.reader(path)
    count = extents[axes.index("T")] if "T" in axes else 1
    slowest = max(n for n, axis in enumerate(axes) if axis in "XYZ")
    return Stored(
        shape=extents,
        dtype=told.payload.dtype,
        axes=axes,
        chunk=tuple(1 if n == slowest else extent for n, extent in enumerate(extents)),
        read=(lambda key: read(key[:-1])[..., None][..., key[-1]]) if "Z" not in told.axes else read,
        time=time_point(path, choices, count, f"a stored shape {told.payload.shape}"),
        flipped=turn.flipped,
    )
