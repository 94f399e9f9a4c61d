"""Volumes read and written by what a file contains, whatever its format."""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError

from ..atomic import new_file, replaced_folder
from ..errors import VolumeError
from ..volume import OpenVolume, Volume
from . import dicom, hdf5, metaimage, nifti, npy, nrrd, omezarr, tiff
from .choices import AS_STORED, ReadChoices
from .lazy import Box, LazyArray

# what gzip, nibabel, tifffile and the codecs are known to raise on damaged files; tifffile's and zarr's own
# errors and UnicodeError are ValueErrors, imagecodecs' and SimpleITK's are RuntimeErrors, h5py's are of many
# of these kinds, and tifffile also trips over its own asserts
_READ_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    HeaderDataError,
    HeaderTypeError,
    ImageFileError,
    LookupError,
    MemoryError,
    OSError,
    ParseError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_HEAD_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way a volume is stored: the names it goes by, how it is recognised, who reads and writes it.

    `recognises` is asked of the first bytes of a file, or of a folder's path. `result_suffix` tells from a
    source how the name of its results ends. A format without `source` has the source of another, that of its
    results.
    """

    name: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Any], bool]
    read: Callable[[Path, ReadChoices], OpenVolume]
    write: Callable[[Path, np.ndarray, Any], None]
    source: type | None = None
    result_suffix: Callable[[Any], str] = lambda _: ""

    @property
    def described(self) -> str:
        """The name, with its suffixes if it has any."""
        return f"{self.name} ({', '.join(self.suffixes)})" if self.suffixes else self.name


def _gzipped(head: bytes) -> bool:
    return head.startswith(b"\x1f\x8b")


def _tiff(head: bytes) -> bool:
    return head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))


def _tiff_result(source: tiff.TiffSource) -> str:
    return ".ome.tif" if source.kind == "ome" else ".tif"


# a longer suffix stands before the shorter one that it ends in
FILES = (
    Format(
        name="gzip-compressed NIfTI",
        suffixes=(".nii.gz",),
        recognises=_gzipped,
        read=nifti.read,
        write=nifti.write,
        source=nifti.NiftiSource,
        result_suffix=lambda _: ".nii.gz",
    ),
    Format(
        name="NIfTI",
        suffixes=(".nii",),
        recognises=nifti.recognises,
        read=nifti.read,
        write=nifti.write,
        source=nifti.NiftiSource,
        result_suffix=lambda _: ".nii.gz",
    ),
    Format(
        name="TIFF",
        suffixes=(".ome.tiff", ".ome.tif", ".tiff", ".tif"),
        recognises=_tiff,
        read=tiff.read,
        write=tiff.write,
        source=tiff.TiffSource,
        result_suffix=_tiff_result,
    ),
    Format(
        name="NRRD",
        suffixes=(".seg.nrrd", ".nhdr", ".nrrd"),
        recognises=nrrd.recognises,
        read=nrrd.read,
        write=nrrd.write,
        source=nrrd.NrrdSource,
        result_suffix=lambda _: ".nrrd",
    ),
    Format(
        name="MetaImage",
        suffixes=(".mhd", ".mha"),
        recognises=metaimage.recognises,
        read=metaimage.read,
        write=metaimage.write,
        source=metaimage.MetaImageSource,
        result_suffix=lambda _: ".mha",
    ),
    Format(
        name="numpy array",
        suffixes=(".npy",),
        recognises=npy.recognises,
        read=npy.read,
        write=npy.write,
        source=npy.NpySource,
        result_suffix=lambda _: ".npy",
    ),
    Format(
        name="HDF5",
        suffixes=(".hdf5", ".h5"),
        recognises=hdf5.recognises,
        read=hdf5.read,
        write=hdf5.write,
        source=hdf5.Hdf5Source,
        result_suffix=lambda _: ".h5",
    ),
)
FOLDERS = (
    Format(
        name="OME-Zarr",
        suffixes=(".ome.zarr", ".zarr"),
        recognises=omezarr.recognises,
        read=omezarr.read,
        write=omezarr.write,
        source=omezarr.OmeZarrSource,
        result_suffix=lambda _: ".ome.zarr",
    ),
    Format(
        name="DICOM series (a folder)",
        suffixes=(),
        recognises=dicom.recognises,
        read=dicom.read,
        write=nifti.write,
    ),
)
FORMATS = FILES + FOLDERS
SUFFIXES = tuple(suffix for known in FORMATS for suffix in known.suffixes)


def is_volume(path: Path) -> bool:
    """Whether a file, or a folder that is one volume, goes by the name of a volume or is a DICOM series.

    Hidden ones (.DS_Store, ._copy.tif) are not.
    """
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return _suffix(path.name, FOLDERS) != "" or dicom.recognises(path)
    return _suffix(path.name) != ""


def strip_suffix(name: str) -> str:
    """The name (or path) without the suffix of its format: "a/b.nii.gz" -> "a/b"; others as they are."""
    return name[: len(name) - len(_suffix(name))]


def open_volume(path: Path, choices: ReadChoices = AS_STORED) -> OpenVolume:
    """The volume in a file, in the format that its content shows; a large one may stay on disk.

    Voxels are not judged: NaN and Inf pass. Raises VolumeError, naming the file, for whatever keeps it from
    being read whole: absent, empty, cut, damaged, of an unknown format, or named like another format; for
    what is left on disk, when it is read.
    """
    path = Path(path)
    with _telling(path):
        opened = _format_of(path).read(path, choices)
    if isinstance(opened.array, LazyArray):
        return replace(opened, array=_watched(path, opened.array))
    return opened


def read_volume(path: Path, choices: ReadChoices = AS_STORED) -> Volume:
    """The same as `open_volume`, with every voxel read into memory."""
    opened = open_volume(path, choices)
    return opened if isinstance(opened, Volume) else opened.load()


def _watched(path: Path, array: LazyArray) -> LazyArray:
    """The same array, whose every reading tells of damage as `open_volume` does."""

    def read(box: Box) -> np.ndarray:
        with _telling(path):
            return array.read(box)

    return replace(array, read=read)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Turns what libraries raise on damaged files into a VolumeError that names the file."""
    try:
        yield
    except _READ_FAILURES as error:
        raise VolumeError(
            path,
            found=f"it cannot be read: {str(error) or 'no reason given'} ({type(error).__name__})",
            rule="a volume is readable to its last byte",
            remedy="check that the file is there and whole, copy or export it again, or remove it",
        ) from error


def write_like(path: Path, array: np.ndarray, source: object) -> None:
    """Writes (Z, Y, X) or (C, Z, Y, X) to `path` in the format and geometry of `source` (Volume.source).

    The file appears whole or not at all, replacing one of that name. Raises VolumeError if the name does
    not end as the format's do (`mask_suffix` gives one), TypeError for a source that no format knows.
    """
    path = Path(path)
    suffix = _suffix(path.name)
    fitting = _writers(source)
    writers = [known for known in fitting if suffix in known.suffixes]
    if not writers:
        raise VolumeError(
            path,
            found=f"a name ending in {suffix or path.suffix or 'nothing'!r} for a {fitting[0].name} result",
            rule=f"its name ends in {' or '.join(s for known in fitting for s in known.suffixes)}",
            remedy=f"end the name in {mask_suffix(source)}",
        )
    with (replaced_folder if writers[0] in FOLDERS else new_file)(path) as partial:
        writers[0].write(partial, array, source)


def mask_suffix(source: object) -> str:
    """How the name of a result written like `source` ends: ".nii.gz", ".ome.tif", ".ome.zarr"."""
    return _writers(source)[0].result_suffix(source)


def _writers(source: object) -> list[Format]:
    fitting = [known for known in FORMATS if known.source is not None and isinstance(source, known.source)]
    if not fitting:
        raise TypeError(f"no format writes like a {type(source).__name__}")
    return fitting


def _suffix(name: str, formats: tuple[Format, ...] = FORMATS) -> str:
    """The part of the name that tells its format, in lower case; "" if none does."""
    lower = name.lower()
    return next((suffix for known in formats for suffix in known.suffixes if lower.endswith(suffix)), "")


def _format_of(path: Path) -> Format:
    """The format that the name and the content of a file agree on; for a folder the content decides."""
    if path.is_dir():
        return _folder_format(path)
    head = _head(path)
    named = [known for known in FILES if _suffix(path.name, FILES) in known.suffixes]
    shown = [known for known in FILES if known.recognises(head)]
    if shown and named == shown:
        return shown[0]
    raise VolumeError(
        path,
        found=f"the name says {_names(named)}, the content is {_names(shown)}",
        rule=f"name and content agree on a format: {_names(FORMATS)}",
        remedy=f"{_renaming(shown)}export it again in one of these formats, or remove it",
    )


def _folder_format(path: Path) -> Format:
    """An image inside an OME-Zarr has any name (`a.zarr/labels/b`), and so has a DICOM series."""
    for known in FOLDERS:
        if known.recognises(path):
            return known
    raise VolumeError(
        path,
        found="a folder without Zarr metadata (.zgroup, .zarray or zarr.json) and without DICOM files",
        rule=f"a folder that is one volume is {_names(FOLDERS)}",
        remedy="give a file or such a folder, or copy the folder again, its hidden files too",
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise VolumeError(
            path,
            found="the file is empty",
            rule="a volume has voxels",
            remedy="copy or export it again, or remove it",
        )
    return head


def _names(formats: Iterable[Format]) -> str:
    return ", ".join(known.described for known in formats) or "no known format"


def _renaming(shown: list[Format]) -> str:
    return f"rename it to end in {shown[0].suffixes[-1]}, " if shown else ""
