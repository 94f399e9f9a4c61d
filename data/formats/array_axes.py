"""Axes of arrays that come without geometry (.npy, HDF5)."""

from pathlib import Path

import numpy as np

from ..errors import VolumeError
from ..volume import Shape
from .choices import ReadChoices
from .stored import declared_axes


def named_axes(path: Path, shape: tuple[int, ...], told: str, choices: ReadChoices, notes: list[str]) -> str:
    """A letter for each axis: those of `choices`, else those `told` by the file, else ZYX or YX.

    Raises VolumeError where further axes of more than one voxel have no name.
    """
    if choices.axes is not None:
        notes.append(f"axes declared as {choices.axes}")
        return declared_axes(path, choices.axes, shape, f"an array of shape {shape}")
    if told:
        return declared_axes(path, told, shape, f"an array of shape {shape}")
    if len(shape) == 2:
        notes.append("a single 2D plane, read as a volume of one slice")
    elif len(shape) > 3:
        notes.append(f"axes of extent 1 dropped from the stored shape {shape}")
    return _guessed(path, shape)


def _guessed(path: Path, shape: tuple[int, ...]) -> str:
    before, after = 0, len(shape)
    while after - before > 3 and shape[before] == 1:
        before += 1
    while after - before > 3 and shape[after - 1] == 1:
        after -= 1
    if not 2 <= after - before <= 3 or len(shape) > 5:
        raise VolumeError(
            path,
            found=f"an array of shape {shape} whose axes have no names",
            rule="an array without names is (Z, Y, X); what its further axes are is for you to say",
            remedy=f"name all {len(shape)} stored axes, such as --axes CZYX or ZYXC for channels, --axes "
            "TZYX --time N for one time point; or save each volume as an array of its own",
        )
    front = "TC"[2 - before :]
    behind = [axis for axis in "CT" if axis not in front][: len(shape) - after]
    return front + "ZYX"[before - after :] + "".join(behind)


def check_numbers(path: Path, dtype: np.dtype) -> None:
    """Raises VolumeError unless a voxel is one real number."""
    if dtype.kind not in "iufb":
        raise VolumeError(
            path,
            found=f"voxels of data type {dtype}",
            rule="a voxel is one integer or floating-point number",
            remedy="save magnitude or phase, or grey values",
        )


def by_slices(axes: str, shape: tuple[int, ...], *, fortran: bool = False) -> tuple[int, ...]:
    """The extents of one slice along the spatial axis that varies slowest, in stored order."""
    spatial = [n for n, axis in enumerate(axes) if axis in "ZYX" and shape[n] > 1] or [0]
    slowest = spatial[-1 if fortran else 0]
    return tuple(1 if n == slowest else extent for n, extent in enumerate(shape))


def in_stored_order(array: np.ndarray, axes: str, shape: Shape) -> tuple[np.ndarray, str]:
    """A result, (Z, Y, X) or (C, Z, Y, X), in the order of its source, and the letters of its axes.

    Axes that the source does not have are left out at extent 1; channels that it does not have come first.
    """
    channels = array if array.ndim == 4 else array[None]
    if channels.shape[1:] != shape:
        raise ValueError(f"a result of shape {channels.shape[1:]} for a source of shape {shape}")
    kept = axes.replace("T", "")
    if len(channels) == 1:
        kept = kept.replace("C", "")
    elif "C" not in kept:
        kept = "C" + kept
    order = ["CZYX".index(axis) for axis in kept]
    left_out = tuple(n for n in range(4) if n not in order)
    return channels.transpose(*order, *left_out).reshape([channels.shape[n] for n in order]), kept
