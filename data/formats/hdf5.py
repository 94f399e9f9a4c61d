"""One array of an HDF5 file, as ilastik, PlantSeg and others keep volumes."""

import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ..errors import VolumeError
from ..volume import OpenVolume, Shape, Triple
from .array_axes import by_slices, check_numbers, in_stored_order, named_axes
from .choices import AS_STORED, ReadChoices
from .spacing import tidy
from .stored import Key, Stored, time_point

_SPACING = "element_size_um"  # z, y, x: PlantSeg, and LSM stacks converted with Fiji's HDF5 plugin
_AXES = "axistags"  # vigra's JSON, which ilastik writes


@dataclass(frozen=True, kw_only=True)
class Hdf5Source:
    """What a result needs to be written as its source was.

    `dataset` is the name of the array, `axes` its order, `shape` its (Z, Y, X); `spacing` and `axistags` are
    the attributes as they stand in the file.
    """

    dataset: str
    axes: str
    shape: Shape
    spacing: tuple[float, ...] | None = None
    axistags: str | None = None


def recognises(head: bytes) -> bool:
    """Whether a file that begins with these bytes is an HDF5 file."""
    return head.startswith(b"\x89HDF\r\n\x1a\n")


def read(path: Path, choices: ReadChoices = AS_STORED) -> OpenVolume:
    """One array of an HDF5 file, (C, Z, Y, X); a large one stays on disk.

    `choices.dataset` names the array; without it there is only one of three to five axes. Axes are those of
    `choices.axes`, else of the attribute "axistags", else Z, Y, X. The spacing is "element_size_um".

    Raises VolumeError where the array cannot be told, or is kept in another file.
    """
    notes: list[str] = []
    with h5py.File(path, "r") as file:
        stored = _dataset(path, file, choices)
        name, tags = str(stored.name), _text(stored.attrs.get(_AXES))
        shape = stored.shape
        axes = named_axes(path, shape, _letters(tags), choices, notes)
        chunk = stored.chunks or by_slices(axes, shape)
        sizes, dtype = _sizes(stored), stored.dtype
    check_numbers(path, dtype)
    count = shape[axes.index("T")] if "T" in axes else 1

    def load(key: Key) -> np.ndarray:
        with h5py.File(path, "r") as file:
            return file[name][key]  # type: ignore[index]

    array = Stored(
        shape=shape,
        dtype=dtype,
        axes=axes,
        chunk=chunk,
        read=load,
        time=time_point(path, choices, count, f"{name} of shape {shape}"),
    ).opened()
    spacing = _spacing(path, sizes, notes)
    _, z, y, x = array.shape
    source = Hdf5Source(dataset=name, axes=axes, shape=(z, y, x), spacing=sizes, axistags=tags or None)
    opened = OpenVolume(
        array=array, spacing=spacing, unit="um" if spacing else None, source=source, notes=tuple(notes)
    )
    return opened.load() if isinstance(array, np.ndarray) else opened


def write(path: Path, array: np.ndarray, source: Hdf5Source) -> None:
    """Writes a result, (Z, Y, X) or (C, Z, Y, X), under the name, axis order and attributes of its source."""
    stored, axes = in_stored_order(array, source.axes, source.shape)
    stored = stored.view(np.uint8) if stored.dtype == bool else stored
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(source.dataset, data=stored, compression="gzip", compression_opts=1)
        if source.spacing is not None:
            dataset.attrs[_SPACING] = source.spacing
        if source.axistags is not None:
            dataset.attrs[_AXES] = _tags(source.axistags, axes)


def _dataset(path: Path, file: h5py.File, choices: ReadChoices) -> h5py.Dataset:
    """The array to read; its name and its voxels stay inside this file."""
    name = _only(path, file) if choices.dataset is None else choices.dataset
    _refuse_other_files(path, file, name)
    stored = file.get(name)
    if not isinstance(stored, h5py.Dataset) or stored.shape is None:
        raise VolumeError(
            path,
            found=f"no array called {name!r}; arrays: {_listed(file)}",
            rule="the array named is in the file",
            remedy="name one of them with --dataset",
        )
    if stored.is_virtual or stored.external:
        raise _elsewhere(path, name)
    return stored


def _only(path: Path, file: h5py.File) -> str:
    found = [name for name, stored in _arrays(file) if 3 <= stored.ndim <= 5 and stored.dtype.kind in "iufb"]
    if len(found) == 1:
        return found[0]
    raise VolumeError(
        path,
        found=f"{len(found)} arrays that may be the volume; arrays: {_listed(file)}",
        rule="one array of the file is the volume",
        remedy="name it with --dataset",
    )


def _arrays(file: h5py.File) -> list[tuple[str, h5py.Dataset]]:
    """All arrays by name; links, to other files or within, are not followed."""
    found: list[tuple[str, h5py.Dataset]] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            found.append((f"/{name}", item))

    file.visititems(visit)
    return found


def _listed(file: h5py.File) -> str:
    return ", ".join(f"{name} {stored.shape} {stored.dtype}" for name, stored in _arrays(file)) or "none"


def _refuse_other_files(path: Path, file: h5py.File, name: str) -> None:
    """A name may lead through links; those to other files are told before anything is read there."""
    place = ""
    for part in name.strip("/").split("/"):
        place = f"{place}/{part}"
        link = file.get(place, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise _elsewhere(path, name)
        if isinstance(link, h5py.SoftLink):
            raise VolumeError(
                path,
                found=f"{place!r} is a link to {link.path!r}",
                rule="the array is named by its own place in the file",
                remedy=f"name it with --dataset {link.path}",
            )


def _elsewhere(path: Path, name: str) -> VolumeError:
    return VolumeError(
        path,
        found=f"the voxels of {name!r} are in another file",
        rule="a file is read on its own: what it links to elsewhere is not opened",
        remedy="give the other file, or copy the array into one file (h5repack, h5copy)",
    )


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value) if value is not None else ""


def _letters(tags: str) -> str:
    """The axes that vigra's JSON names, in stored order."""
    return "".join(axis["key"].upper() for axis in json.loads(tags)["axes"]) if tags else ""


def _tags(tags: str, axes: str) -> str:
    """The same JSON for a result with these axes."""
    told = {axis["key"].upper(): axis for axis in json.loads(tags)["axes"]}
    channel = {"key": "c", "typeFlags": 1, "resolution": 0, "description": ""}
    return json.dumps({"axes": [told.get(axis, channel) for axis in axes]})


def _sizes(stored: h5py.Dataset) -> tuple[float, ...] | None:
    value = stored.attrs.get(_SPACING)
    return None if value is None else tuple(np.ravel(value).astype(float).tolist())


def _spacing(path: Path, sizes: tuple[float, ...] | None, notes: list[str]) -> Triple | None:
    if sizes is None:
        notes.append(f"no attribute {_SPACING}: spacing unknown until it is given")
        return None
    if len(sizes) == 3 and all(np.isfinite(sizes)) and min(sizes) > 0:
        return tidy(sizes)
    raise VolumeError(
        path,
        found=f"{_SPACING} {sizes}",
        rule="it is the voxel size along z, y, x in micrometres, three finite numbers above 0",
        remedy="correct the attribute, or delete it and give the spacing",
    )
