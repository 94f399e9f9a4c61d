"""A DICOM series: a folder whose files are the slices of one volume."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from ..errors import VolumeError
from ..volume import Volume
from .choices import AS_STORED, ReadChoices
from .nifti import NiftiSource
from .ras import SIGNS, Turn, geometry

_MARK = (128, b"DICM")
_INDEX = "DICOMDIR"
# tags as SimpleITK names them
_MODALITY, _DESCRIPTION, _SERIES = "0008|0060", "0008|103e", "0020|000e"
_POSITION, _ORIENTATION, _SPACING = "0020|0032", "0020|0037", "0028|0030"
_ROWS, _COLUMNS, _FRAMES, _SAMPLES, _BITS = "0028|0010", "0028|0011", "0028|0008", "0028|0002", "0028|0100"
# of the distance between slices: positions are rounded in files, often to a hundredth of a millimetre
_TOLERANCE = 0.1
# closer slices are at one position, mm
_SAME = 1e-4
_CONVERT = "convert the series to NIfTI with dcm2niix"


@dataclass(frozen=True, kw_only=True)
class _Slice:
    path: Path
    tags: dict[str, str]

    def numbers(self, tag: str) -> np.ndarray:
        return np.array(self.tags[tag].split("\\"), dtype=float)


def recognises(folder: Path) -> bool:
    """Whether there is a DICOM file in the folder, whatever its name."""
    return any(_is_dicom(path) for path in _files(folder))


def read(path: Path, choices: ReadChoices = AS_STORED) -> Volume:  # noqa: ARG001
    """The volume of the series in a folder, (1, Z, Y, X) in the closest RAS orientation, in mm.

    Slices are ordered by their positions along the normal of their plane, whatever the names of the files;
    the distance between them is that of their positions. Rescale slope and intercept are applied. The channel
    is called after the modality. Results are NIfTI files.

    Raises VolumeError unless the files are one series of plain slices, evenly spaced, none missing or double.
    """
    notes: list[str] = []
    slices = [_header(file) for file in _dicom_files(path, notes)]
    _check_one_series(path, slices)
    _check_alike(path, slices)
    slices, step = _ordered(path, slices)
    stored = np.stack([_voxels(one) for one in slices])
    affine = _affine(slices, step)
    turn = Turn.of(affine)
    z, y, x = stored.shape
    turned = nib.orientations.apply_orientation(stored.transpose(2, 1, 0), turn.orientation)
    spacing, origin, direction = geometry(turn.affine(affine, (x, y, z)))
    return Volume(
        array=np.ascontiguousarray(turned.transpose(2, 1, 0))[None],
        spacing=spacing,
        unit="mm",
        origin=origin,
        direction=direction,
        orientation="RAS",
        channels=(slices[0].tags.get(_MODALITY, "").strip() or "channel0",),
        source=NiftiSource(header=_nifti_header(affine, (x, y, z)), turn=turn, shape=(x, y, z)),
        notes=tuple(notes),
    )


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != "." and p.name != _INDEX)


def _is_dicom(path: Path) -> bool:
    start, mark = _MARK
    with path.open("rb") as file:
        file.seek(start)
        return file.read(len(mark)) == mark


def _dicom_files(folder: Path, notes: list[str]) -> list[Path]:
    inner = [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    files = _files(folder)
    empty = [path.name for path in files if path.stat().st_size == 0]
    if inner or empty:
        raise VolumeError(
            folder,
            found=f"folders {inner} and empty files {empty} among DICOM files",
            rule="a folder with DICOM files is one volume: a file for each slice, and no folders",
            remedy="move folders of other series beside it, and export empty files again",
        )
    slices = [path for path in files if _is_dicom(path)]
    if len(slices) < len(files):
        notes.append(f"{len(files) - len(slices)} files that are not DICOM are not read")
    return slices


def _header(path: Path) -> _Slice:
    reader = _reader(path)
    reader.ReadImageInformation()
    wanted = (
        _MODALITY, _SERIES, _POSITION, _ORIENTATION, _SPACING, _ROWS, _COLUMNS, _FRAMES, _SAMPLES, _BITS,
    )  # fmt: skip
    return _Slice(
        path=path, tags={tag: reader.GetMetaData(tag) for tag in wanted if reader.HasMetaDataKey(tag)}
    )


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    # named, so that a damaged file is told as such and not as one of an unknown format
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _check_one_series(folder: Path, slices: list[_Slice]) -> None:
    series: dict[str, list[_Slice]] = {}
    for one in slices:
        series.setdefault(one.tags.get(_SERIES, "").strip(), []).append(one)
    if len(series) > 1:
        told = [
            f"{uid} ({_description(files[0].path)!r}, {len(files)} slices)" for uid, files in series.items()
        ]
        raise VolumeError(
            folder,
            found=f"{len(series)} series: {'; '.join(sorted(told))}",
            rule="a folder with DICOM files is one series",
            remedy="move each series into a folder of its own",
        )
    for one in slices:
        _check_plain(one)
    if len(slices) == 1:
        raise VolumeError(
            folder,
            found="a single DICOM slice",
            rule="a series has two slices or more: their positions tell the distance between them",
            remedy=f"add the missing slices, or {_CONVERT}",
        )


def _description(path: Path) -> str:
    reader = _reader(path)
    reader.ReadImageInformation()
    return (
        reader.GetMetaData(_DESCRIPTION).strip() if reader.HasMetaDataKey(_DESCRIPTION) else "no description"
    )


def _check_plain(one: _Slice) -> None:
    missing = [tag for tag in (_POSITION, _ORIENTATION, _SPACING) if not one.tags.get(tag, "").strip()]
    if missing or one.tags.get(_FRAMES, "1").strip() != "1" or one.tags.get(_SAMPLES, "1").strip() != "1":
        raise VolumeError(
            one.path,
            found=f"frames {one.tags.get(_FRAMES, '1').strip()}, samples per pixel "
            f"{one.tags.get(_SAMPLES, '1').strip()}, missing tags {missing or 'none'}",
            rule="a file is one grey slice that tells its position, orientation and pixel spacing",
            remedy=f"leave the file out if it is a report or a screenshot; otherwise {_CONVERT}",
        )


def _check_alike(folder: Path, slices: list[_Slice]) -> None:
    first = slices[0]
    for one in slices[1:]:
        for tag in (_ORIENTATION, _SPACING, _ROWS, _COLUMNS):
            if not np.allclose(one.numbers(tag), first.numbers(tag), rtol=1e-4, atol=1e-4):
                raise VolumeError(
                    folder,
                    found=f"{tag.replace('|', ',')} is {first.tags[tag].strip()} in {first.path.name} and "
                    f"{one.tags[tag].strip()} in {one.path.name}",
                    rule="the slices of a volume have one orientation, pixel spacing and extent",
                    remedy="move the slices that differ (a localiser?) into a folder of their own",
                )


def _ordered(folder: Path, slices: list[_Slice]) -> tuple[list[_Slice], np.ndarray]:
    """The slices along their normal, and the vector (x, y, z) in mm from one to the next."""
    row, column = slices[0].numbers(_ORIENTATION).reshape(2, 3)
    normal = np.cross(row, column)
    slices = sorted(slices, key=lambda one: float(one.numbers(_POSITION) @ normal))
    positions = np.array([one.numbers(_POSITION) for one in slices])
    heights = positions @ normal
    gaps = np.diff(heights)
    _refuse_double(folder, slices, heights)
    usual = float(np.median(gaps))
    missing = [n for n, gap in enumerate(gaps) if gap > (1 + 5 * _TOLERANCE) * usual]
    if missing:
        places = [
            f"between {heights[n]:.7g} mm ({slices[n].path.name}) and {heights[n + 1]:.7g} mm "
            f"({slices[n + 1].path.name})"
            for n in missing
        ]
        raise VolumeError(
            folder,
            found=f"slices are {usual:.7g} mm apart, but none is there {' nor '.join(places)}",
            rule="a series has all its slices",
            remedy="copy or export the missing slices, or leave the case out",
        )
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    _check_straight(folder, slices, positions, step, normal)
    return slices, step


def _refuse_double(folder: Path, slices: list[_Slice], heights: np.ndarray) -> None:
    for n in np.flatnonzero(np.diff(heights) < _SAME):
        raise VolumeError(
            folder,
            found=f"two slices at {heights[n]:.7g} mm: {slices[n].path.name} and {slices[n + 1].path.name}",
            rule="a volume has one slice at each position",
            remedy="remove copies; move each time point, echo or phase into a folder of its own",
        )


def _check_straight(
    folder: Path, slices: list[_Slice], positions: np.ndarray, step: np.ndarray, normal: np.ndarray
) -> None:
    """A volume's voxels are bricks, in rows: neither distances that vary nor a tilted gantry fit it."""
    expected = positions[0] + np.outer(np.arange(len(slices)), float(step @ normal) * normal)
    off = np.linalg.norm(positions - expected, axis=1)
    worst = int(np.argmax(off))
    if off[worst] > _TOLERANCE * float(step @ normal):
        raise VolumeError(
            folder,
            found=f"{slices[worst].path.name} is {off[worst]:.3g} mm off its place in an even stack",
            rule="slices are evenly spaced, one straight above the other (no gantry tilt)",
            remedy=f"{_CONVERT}, which corrects a tilt, and resample uneven slices",
        )


def _voxels(one: _Slice) -> np.ndarray:
    """The slice (Y, X), rescaled; float32 where a scale asks for fractions, float64 beyond 16 stored bits."""
    values = sitk.GetArrayFromImage(_reader(one.path).Execute())[0]
    narrow = values.dtype == np.float64 and int(one.tags.get(_BITS, "16")) <= 16
    return values.astype(np.float32) if narrow else values


def _affine(slices: list[_Slice], step: np.ndarray) -> np.ndarray:
    """From stored (x, y, z) to RAS, (4, 4)."""
    row, column = slices[0].numbers(_ORIENTATION).reshape(2, 3)
    between_rows, between_columns = slices[0].numbers(_SPACING)
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([row * between_columns, column * between_rows, step])
    affine[:3, 3] = slices[0].numbers(_POSITION)
    return np.diag((*SIGNS["LPS"], 1)) @ affine


def _nifti_header(affine: np.ndarray, shape: tuple[int, int, int]) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_xyzt_units("mm")
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    return header.binaryblock
