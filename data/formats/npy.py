"""Arrays of numpy (.npy), which tell neither axes nor spacing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import VolumeError
from ..volume import OpenVolume, Shape
from .array_axes import by_slices, check_numbers, in_stored_order, named_axes
from .choices import AS_STORED, ReadChoices
from .stored import Key, Stored, time_point

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True, kw_only=True)
class NpySource:
    """What a result needs to be written as its source was: the order of its axes, and its (Z, Y, X)."""

    axes: str
    shape: Shape


def recognises(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a .npy file."""
    return head.startswith(b"\x93NUMPY")


def read(path: Path, choices: ReadChoices = AS_STORED) -> OpenVolume:
    """The volume in a .npy file, (C, Z, Y, X); spacing unknown; a large one stays on disk.

    Three axes are Z, Y, X and two one slice; more are named by `choices.axes`. Raises VolumeError for what is
    no array of numbers: Python objects are never unpickled.
    """
    shape, fortran, dtype = _header(path)
    notes = ["a .npy file tells no voxel size: spacing unknown until it is given"]
    axes = named_axes(path, shape, "", choices, notes)
    count = shape[axes.index("T")] if "T" in axes else 1

    def load(key: Key) -> np.ndarray:
        # a map that stayed open would hold in memory all that was ever read through it
        return np.load(path, mmap_mode="r", allow_pickle=False)[key]

    array = Stored(
        shape=shape,
        dtype=dtype,
        axes=axes,
        chunk=by_slices(axes, shape, fortran=fortran),
        read=load,
        time=time_point(path, choices, count, f"an array of shape {shape}"),
    ).opened()
    _, z, y, x = array.shape
    opened = OpenVolume(array=array, source=NpySource(axes=axes, shape=(z, y, x)), notes=tuple(notes))
    return opened.load() if isinstance(array, np.ndarray) else opened


def write(path: Path, array: np.ndarray, source: NpySource) -> None:
    """Writes a result, (Z, Y, X) or (C, Z, Y, X), with the axes in the order of its source."""
    stored, _ = in_stored_order(array, source.axes, source.shape)
    with path.open("wb") as file:  # np.save would add a suffix to a name without one
        np.save(file, stored.view(np.uint8) if stored.dtype == bool else stored, allow_pickle=False)


def _header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first axis is the fastest, and data type."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise VolumeError(
                path,
                found=f"a .npy file of version {version}",
                rule="arrays of numbers are of version 1.0 or 2.0",
                remedy="save one array of numbers with numpy.save",
            )
        shape, fortran, dtype = _HEADERS[version](file)
        needed = file.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if dtype.hasobject:
        raise VolumeError(
            path,
            found="an array of Python objects (pickle)",
            rule="a volume is an array of numbers; objects are never unpickled, as that can run any program",
            remedy="save the numbers alone: numpy.save(path, numpy.asarray(volume, dtype))",
        )
    check_numbers(path, dtype)
    if path.stat().st_size != needed or 0 in shape:
        raise VolumeError(
            path,
            found=f"{path.stat().st_size} bytes where the header announces {needed}, for a shape {shape}",
            rule="an array has voxels, and the file holds them to the last one",
            remedy="copy or save it again, or remove it",
        )
    return shape, fortran, dtype
