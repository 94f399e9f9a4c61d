"""NIfTI-1 and NIfTI-2 in single files, plain or gzip-compressed."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from ..errors import VolumeError
from ..units import canonical
from ..volume import OpenVolume, Shape
from .choices import AS_STORED, ReadChoices
from .ras import Turn, geometry
from .stored import Key, Stored, declared_axes, time_point, volume_of

_VERSIONS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_HEAD_BYTES = 540
_COLOURS = ("red", "green", "blue", "alpha")
_IMAGES = {348: nib.Nifti1Image, 540: nib.Nifti2Image}

Header = nib.Nifti1Header  # nibabel's NIfTI-2 header is a subclass


@dataclass(frozen=True, kw_only=True)
class NiftiSource:
    """What a result needs to be written in the geometry of the NIfTI file that it came from.

    `header` is the binary header in the file's byte order, `turn` tells where each stored axis stands in RAS,
    `shape` is the stored (X, Y, Z).
    """

    header: bytes
    turn: Turn
    shape: Shape
    planar: bool = False


def read(path: Path, choices: ReadChoices = AS_STORED) -> OpenVolume:
    """The volume of a NIfTI file, (C, Z, Y, X) in the closest RAS orientation and native byte order.

    The first three stored axes are X, Y, Z: the affine says where they point. Further ones are dropped where
    their extent is 1, are channels where the header calls the voxels vectors, and are otherwise named by
    `choices.axes` in stored order: "XYZC", or "XYZT" with a time point. The colours of a voxel are channels.

    Every byte of a .nii.gz is read and checked against the checksum; a large .nii stays on disk. Voxels keep
    their data type unless the header scales them: then they are computed in float64 and kept in float32, or
    in float64 where that would lose digits (32-bit integers and wider). The spacing is the length of the
    affine's columns.

    Raises VolumeError for what is not one 3D volume with a usable affine; what nibabel and gzip raise on
    damaged files is passed on.
    """
    packed = path.name.lower().endswith(".gz")
    content = _decompressed(path) if packed else None
    header = _header(path, _head(path) if content is None else content[:_HEAD_BYTES])
    _check_kind(path, header)
    notes: list[str] = []
    shape = _spatial_shape(path, header)
    affine = _affine(path, header)
    turn = Turn.of(affine)
    spacing, origin, direction = geometry(turn.affine(affine, shape))

    stored = _stored(path, header, choices, notes, content, turn)
    array = stored.canonical()[:] if packed else stored.opened()
    return volume_of(
        array,
        spacing=spacing,
        unit=_unit(header, notes),
        origin=origin,
        direction=direction,
        orientation="RAS",
        channels=_COLOURS[: array.shape[0]] if header.get_data_dtype().names else (),
        source=NiftiSource(
            header=header.binaryblock,
            turn=turn,
            shape=shape,
            planar=len(header.get_data_shape()) == 2,
        ),
        notes=tuple(notes),
    )


def write(path: Path, array: np.ndarray, source: NiftiSource) -> None:
    """Writes a result, (Z, Y, X) or (C, Z, Y, X) in RAS, in the stored orientation and header of its source.

    Affine, form codes, voxel size and unit are copied bit for bit. The data type is the array's own, without
    scaling. Several channels become the fourth axis. `path` ends in .nii or .nii.gz.
    """
    channels = array.view(np.uint8) if array.dtype == bool else array
    channels = channels if array.ndim == 4 else channels[None]
    stored = [source.turn.back(channel) for channel in channels]
    if stored[0].shape != source.shape:
        raise ValueError(f"a result of stored shape {stored[0].shape} for a source of shape {source.shape}")
    data = stored[0] if len(stored) == 1 else np.stack(stored, axis=-1)
    if source.planar and len(stored) == 1:
        data = data[..., 0]

    size = len(source.header)
    header = _VERSIONS[size](source.header, check=False)
    affine = header.get_best_affine()
    _forget_intensities(header)
    _IMAGES[size](data, affine, header, dtype=data.dtype).to_filename(path)


def _decompressed(path: Path) -> bytes:
    """All bytes, to the very end: only there gzip compares its checksum."""
    with gzip.open(path) as file:
        return file.read()


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def recognises(head: bytes) -> bool:
    """Whether a file that begins with these bytes (348 or more) is a NIfTI file, header and voxels in one."""
    return _header_size(head) is not None


def _header_size(head: bytes) -> int | None:
    magics = {348: (344, b"n+1\0"), 540: (4, b"n+2\0")}
    for order in ("little", "big"):
        size = int.from_bytes(head[:4], order)
        if size in magics:
            offset, magic = magics[size]
            return size if head[offset : offset + 4] == magic else None
    return None


def _header(path: Path, head: bytes) -> Header:
    size = _header_size(head)
    if size is None:
        raise VolumeError(
            path,
            found="the content is no NIfTI file",
            rule="a .nii or .nii.gz file holds a NIfTI-1 or NIfTI-2 header followed by its voxels",
            remedy="convert it to NIfTI (an Analyze or .hdr/.img pair too), or remove it",
        )
    kind = _VERSIONS[size]
    # nibabel silently mends zero voxel sizes to 1, so they are looked at before it can
    _check_voxel_size(path, kind(head[:size], check=False))
    header = kind(head[:size])
    if header.get_data_offset() < size:
        raise VolumeError(
            path,
            found=f"voxels that begin at byte {header.get_data_offset()} (vox_offset), inside the header",
            rule="the voxels of a .nii or .nii.gz file follow its header",
            remedy="convert the file again from its origin",
        )
    return header


def _check_voxel_size(path: Path, header: Header) -> None:
    extents = header["dim"][1:4]
    sizes = [
        float(size)
        for axis, (size, extent) in enumerate(zip(header["pixdim"][1:4], extents, strict=True))
        if axis < header["dim"][0] and extent > 1
    ]
    if not all(np.isfinite(sizes)) or 0 in sizes:
        raise VolumeError(
            path,
            found=f"voxel size {sizes} in the header (pixdim)",
            rule="the voxel size along every axis is a finite number other than 0",
            remedy="write the true voxel size into the header, or convert the file again from its origin",
        )


def _check_kind(path: Path, header: Header) -> None:
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" and dtype.names is None:
        raise VolumeError(
            path,
            found=f"voxels are complex numbers, data type {dtype}",
            rule="a voxel is one integer or floating-point number, or a colour",
            remedy="save one number per voxel: magnitude or phase, grey value, or label number",
        )


def _spatial_shape(path: Path, header: Header) -> Shape:
    """Stored (X, Y, Z), missing axes added."""
    stored = header.get_data_shape()
    if len(stored) < 2 or 0 in stored:
        raise VolumeError(
            path,
            found=f"an array of shape {stored} (x, y, z)",
            rule="a volume has two or three axes and at least one voxel along each",
            remedy="save the volume again from its origin, or remove the file",
        )
    x, y, z = (*stored, 1)[:3]
    return x, y, z


def _stored(
    path: Path,
    header: Header,
    choices: ReadChoices,
    notes: list[str],
    content: bytes | None,
    turn: Turn,
) -> Stored:
    """The array in the file, or in its decompressed content; its letters say where each axis points."""
    axes, shape = _named_axes(path, header, choices, notes)
    dtype = header.get_data_dtype()
    if dtype.names:
        dtype, axes, shape = dtype[0], "C" + axes, (len(dtype), *shape)
        header = header.copy()
        header.set_slope_inter(1, 0)  # which colours are to ignore
        notes.append(f"the {shape[0]} colours of a voxel are read as channels")
    count = shape[axes.index("T")] if "T" in axes else 1
    offset = header.get_data_offset()

    def read(key: Key) -> np.ndarray:
        if content is not None:
            return _scaled(np.ndarray(shape, dtype, content, offset, order="F")[key], header)
        # a map that stayed open would hold in memory all that was ever read through it
        mapped = np.memmap(path, np.uint8, "r")
        return _scaled(np.array(np.ndarray(shape, dtype, mapped, offset, order="F")[key]), header)

    read((slice(0),) * len(shape))  # raises where the file ends before its voxels do
    return Stored(
        shape=shape,
        dtype=_scaled(np.zeros(1, dtype), header).dtype,
        axes=turn.letters(axes),
        # a slice of the slowest spatial axis is the longest run of bytes
        chunk=tuple(1 if axis == "Z" else n for axis, n in zip(axes, shape, strict=True)),
        read=read,
        time=time_point(path, choices, count, f"a stored shape {header.get_data_shape()}"),
        flipped=turn.flipped,
    )


def _named_axes(
    path: Path, header: Header, choices: ReadChoices, notes: list[str]
) -> tuple[str, tuple[int, ...]]:
    """A letter for each stored axis that is kept, and the extents of these."""
    stored = header.get_data_shape()
    spatial = _spatial_shape(path, header)
    further = tuple(n for n in stored[3:] if n > 1)
    if len(stored) == 2:
        notes.append("a single 2D plane, read as a volume of one slice")
    if len(stored) > 3 + len(further):
        notes.append(f"axes of extent 1 dropped from the stored shape {stored}")
    if choices.axes is not None:
        whole = len(choices.axes) == len(stored)
        return _declared(path, choices.axes, spatial + (stored[3:] if whole else further), stored, notes)
    if stored[4:] == further and len(further) == 1 and header.get_intent()[0] == "vector":
        notes.append(f"the header says vectors: their {further[0]} components are read as channels")
        return "XYZC", (*spatial, *further)
    if len(further) == 1 and choices.fourth_is_channels:
        return "XYZC", (*spatial, *further)
    if further:
        raise VolumeError(
            path,
            found=f"an array of shape {stored} (x, y, z, further axes)",
            rule="what the further axes of a NIfTI file are is for you to say",
            remedy="name the stored axes (those of extent 1 may be left out), --axes XYZC for channels or "
            "--axes XYZT --time N for one time point, or save each as a 3D file of its own",
        )
    return "XYZ", spatial


def _declared(
    path: Path, axes: str, shape: tuple[int, ...], stored: tuple[int, ...], notes: list[str]
) -> tuple[str, tuple[int, ...]]:
    words = f"a stored shape {stored} (x, y, z, further axes)"
    if not axes.startswith("XYZ"[: len(stored)]):
        raise VolumeError(
            path,
            found=f"{words}, for the declared axes {axes}",
            rule="the first three stored axes of a NIfTI file are X, Y and Z, in this order",
            remedy="declare XYZC, XYZT or XYZTC; where they point the affine says",
        )
    axes = "XYZ" if axes == "XY" else axes
    notes.append(f"axes declared as {axes}")
    return declared_axes(path, axes, shape, words), shape


def _affine(path: Path, header: Header) -> np.ndarray:
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise VolumeError(
            path,
            found=f"the affine {affine.tolist()}",
            rule="an affine has finite numbers only and three independent axes",
            remedy="repair the header (sform, qform), or convert the file again from its origin",
        )
    return affine


def _scaled(raw: np.ndarray, header: Header) -> np.ndarray:
    """Voxels in native byte order, with the header's slope and intercept applied if it has any."""
    slope, inter = header.get_slope_inter()
    if slope is None or (slope == 1 and not inter):
        return raw.astype(raw.dtype.newbyteorder("="), copy=False)
    # what overflows becomes Inf, which a scan reports with its number of voxels
    with np.errstate(over="ignore", invalid="ignore"):
        values = raw.astype(np.float64) * slope + (inter or 0.0)
        return values.astype(np.result_type(raw.dtype, np.float32), copy=False)


def _unit(header: Header, notes: list[str]) -> str:
    name, _ = header.get_xyzt_units()
    unit = canonical(str(name))
    if unit is None:
        notes.append("the header names no unit of length; mm taken, as NIfTI tools do")
    return unit or "mm"


def _forget_intensities(header: Header) -> None:
    """Drops what the header says about the image's values; its scaling nibabel drops itself."""
    header["cal_min"] = header["cal_max"] = 0
    header.set_intent("none")
