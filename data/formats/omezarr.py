"""OME-Zarr images, versions 0.4 (Zarr 2) and 0.5 (Zarr 3), and plain Zarr arrays: folders on this machine.

Source: https://ngff.openmicroscopy.org/0.4 and https://ngff.openmicroscopy.org/0.5, "multiscales" metadata.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.storage import LocalStore

from ..errors import VolumeError
from ..volume import OpenVolume, Shape
from .choices import AS_STORED, ReadChoices
from .omezarr_axes import Axis, geometry, stored_axes
from .omezarr_whole import check_chunks, pieces
from .stored import Key, Stored, time_point, volume_of

Version = Literal["0.4", "0.5"]

_MARKS = (".zgroup", ".zarray", "zarr.json")
_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}
_CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class OmeZarrSource:
    """What a result needs to be written as the OME-Zarr that it came from; `shape` is (Z, Y, X)."""

    version: Version
    shape: Shape
    axes: tuple[Axis, ...]


def recognises(path: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return any((path / mark).is_file() for mark in _MARKS)


def read(path: Path, choices: ReadChoices = AS_STORED) -> OpenVolume:
    """The finest level of an OME-Zarr image, or a Zarr array, (C, Z, Y, X) as stored.

    A large one stays on disk. `choices.axes` stand above the axes in the file. Spacing and origin follow from
    the transformations of the level and of the image; the unit is that of x. Labels in an image are images of
    their own: `image.zarr/labels/NAME`. Absent chunks are the fill value, as Zarr means it; `notes` count
    them.

    Raises VolumeError for a folder that holds no one image, axes or time points that nobody tells, and empty
    chunks; what Zarr and its codecs raise on damage is passed on.
    """
    notes: list[str] = []
    node = _node(path)
    metadata = _metadata(node)
    image = {} if isinstance(node, zarr.Array) else _image(path, metadata, notes)
    level, array = _finest(path, node, image)
    _check_numbers(path, array)
    check_chunks(path / array.path, array, notes)
    axes = stored_axes(path, array, image, level, choices, notes)
    stored = _stored(path, array, "".join(axis.letter for axis in axes), choices)
    opened = stored.opened()
    spacing, origin, unit = geometry(axes, notes)
    _, z, y, x = opened.shape
    return volume_of(
        opened,
        spacing=spacing,
        unit=unit,
        origin=origin,
        channels=_channels(metadata, opened.shape[0]),
        source=OmeZarrSource(
            version="0.4" if array.metadata.zarr_format == 2 else "0.5", shape=(z, y, x), axes=axes
        ),
        notes=tuple(notes),
    )


def write(path: Path, array: np.ndarray, source: OmeZarrSource) -> None:
    """Writes a result, (Z, Y, X) or (C, Z, Y, X), as an OME-Zarr of one level into the folder `path`.

    Version, order, names and units of the axes, scale and translation are the source's, without time; a
    result of one channel has no channel axis, one of several that the source lacks becomes the first.
    """
    channels = array if array.ndim == 4 else array[None]
    if channels.shape[1:] != source.shape:
        raise ValueError(f"a result of shape {channels.shape[1:]} for a source of shape {source.shape}")
    axes = [axis for axis in source.axes if axis.letter in ("CZYX" if len(channels) > 1 else "ZYX")]
    if len(channels) > 1 and all(axis.letter != "C" for axis in axes):
        axes.insert(0, Axis(letter="C", name="c"))
    letters = "".join(axis.letter for axis in axes)
    kept = channels.reshape([n for n, axis in zip(channels.shape, "CZYX", strict=True) if axis in letters])
    order = ["".join(axis for axis in "CZYX" if axis in letters).index(axis) for axis in letters]
    _write(path, kept.transpose(order), axes, source.version)


def _write(path: Path, array: np.ndarray, axes: list[Axis], version: Version) -> None:
    image = {
        "axes": [_described(axis) for axis in axes],
        "datasets": [{"path": "0", "coordinateTransformations": _transformations(axes)}],
    }
    old = version == "0.4"
    attributes: dict[str, Any] = (
        {"multiscales": [{"version": version, **image}]}
        if old
        else {"ome": {"version": version, "multiscales": [image]}}
    )
    group = zarr.create_group(LocalStore(path), zarr_format=2 if old else 3, attributes=attributes)
    stored = group.create_array(
        "0",
        shape=array.shape,
        dtype=np.dtype(np.uint8) if array.dtype == bool else array.dtype,
        chunks=tuple(
            1 if axis.letter == "C" else min(_CHUNK, n) for axis, n in zip(axes, array.shape, strict=True)
        ),
        chunk_key_encoding={"name": "v2" if old else "default", "separator": "/"},
        dimension_names=None if old else [axis.name for axis in axes],
    )
    stored[...] = array


def _described(axis: Axis) -> dict[str, str]:
    told = {"name": axis.name, "type": _TYPES[axis.letter]}
    return told if axis.unit is None else {**told, "unit": axis.unit}


def _transformations(axes: list[Axis]) -> list[dict[str, Any]]:
    """Scale, which must be there even where nobody knows it, and translation where there is any."""
    told: list[dict[str, Any]] = [{"type": "scale", "scale": [axis.scale or 1.0 for axis in axes]}]
    shifts = [axis.translation for axis in axes]
    return [*told, {"type": "translation", "translation": shifts}] if any(shifts) else told


def _node(path: Path) -> zarr.Array | zarr.Group:
    store = LocalStore(path, read_only=True)
    # consolidated metadata may be older than the files that they summarise
    return zarr.open(store=store, mode="r", use_consolidated=False)


def _metadata(node: zarr.Array | zarr.Group) -> dict[str, Any]:
    """The OME metadata: among the attributes up to version 0.4, under "ome" since 0.5."""
    attributes: dict[str, Any] = node.attrs.asdict()
    return attributes.get("ome", attributes)


def _image(path: Path, metadata: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    images = metadata.get("multiscales")
    if not images or not images[0].get("datasets"):
        inside = ", ".join(sorted(entry.name for entry in path.iterdir() if recognises(entry))) or "nothing"
        raise VolumeError(
            path,
            found=f"a Zarr group without multiscales metadata; in it: {inside}",
            rule="an OME-Zarr image is a group with multiscales, a plain Zarr volume an array",
            remedy=f"give the folder of one image or array inside it, say {path / inside.split(', ')[0]}",
        )
    if len(images) > 1:
        notes.append(f"the first of {len(images)} multiscales taken, as OME-Zarr tells to")
    return images[0]


def _finest(
    path: Path, node: zarr.Array | zarr.Group, image: dict[str, Any]
) -> tuple[dict[str, Any], zarr.Array]:
    """The level with most voxels: what the metadata say of it, and its array."""
    if isinstance(node, zarr.Array):
        return {}, node
    levels = [(level, _array(path, node, level["path"])) for level in image["datasets"]]
    return max(levels, key=lambda found: math.prod(found[1].shape))


def _array(path: Path, group: zarr.Group, name: str) -> zarr.Array:
    # Zarr itself refuses names that lead out of the folder
    found = group.get(name)
    if isinstance(found, zarr.Array):
        return found
    raise VolumeError(
        path,
        found=f"no array called {name!r}, which its metadata name as a level",
        rule="all levels that a multiscale image announces are in its folder",
        remedy="copy or export the image again from its origin",
    )


def _check_numbers(path: Path, array: zarr.Array) -> None:
    if array.dtype.kind not in "iufb" or math.prod(array.shape) == 0:
        raise VolumeError(
            path,
            found=f"an array of data type {array.dtype} and shape {array.shape}",
            rule="a volume has voxels, and a voxel is one integer or floating-point number",
            remedy="save magnitude or phase, grey values or label numbers",
        )


def _stored(path: Path, array: zarr.Array, axes: str, choices: ReadChoices) -> Stored:
    def read(key: Key) -> np.ndarray:
        return np.asarray(array[key])

    count = array.shape[axes.index("T")] if "T" in axes else 1
    return Stored(
        shape=array.shape,
        dtype=array.dtype,
        axes=axes,
        chunk=pieces(array),
        read=read,
        time=time_point(path, choices, count, f"axes {axes} of shape {array.shape}"),
    )


def _channels(metadata: dict[str, Any], count: int) -> tuple[str, ...]:
    """The channels' labels if all have one, all different."""
    labels = tuple(channel.get("label") for channel in metadata.get("omero", {}).get("channels", ()))
    return labels if len(labels) == len(set(labels)) == count and all(labels) else ()
