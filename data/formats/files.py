"""Volumes read and written by what a file contains, whatever its format."""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError

from ..atomic import new_file, replaced_folder
from ..errors import VolumeError
from ..volume import OpenVolume, Volume
from . import nifti, omezarr, tiff
from .choices import AS_STORED, ReadChoices

# what gzip, nibabel, tifffile and the codecs are known to raise on damaged files; tifffile's own errors and
# UnicodeError are ValueErrors, imagecodecs' are RuntimeErrors, and tifffile also trips over its own asserts
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
    """One way a volume is stored: the names it goes by, the bytes it begins with, who reads and writes it.

    `folder` tells that a volume is a folder of files, which no bytes are looked at of.
    """

    name: str
    suffixes: tuple[str, ...]
    recognises: Callable[[bytes], bool]
    read: Callable[[Path, ReadChoices], OpenVolume]
    write: Callable[[Path, np.ndarray, Any], None]
    source: type
    folder: bool = False


def _gzipped(head: bytes) -> bool:
    return head.startswith(b"\x1f\x8b")


def _tiff(head: bytes) -> bool:
    return head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))


def _nothing(_: bytes) -> bool:
    return False


# a longer suffix stands before the shorter one that it ends in
FORMATS = (
    Format(
        name="gzip-compressed NIfTI",
        suffixes=(".nii.gz",),
        recognises=_gzipped,
        read=nifti.read,
        write=nifti.write,
        source=nifti.NiftiSource,
    ),
    Format(
        name="NIfTI",
        suffixes=(".nii",),
        recognises=nifti.recognises,
        read=nifti.read,
        write=nifti.write,
        source=nifti.NiftiSource,
    ),
    Format(
        name="TIFF",
        suffixes=(".ome.tiff", ".ome.tif", ".tiff", ".tif"),
        recognises=_tiff,
        read=tiff.read,
        write=tiff.write,
        source=tiff.TiffSource,
    ),
    Format(
        name="OME-Zarr",
        suffixes=(".ome.zarr", ".zarr"),
        recognises=_nothing,
        read=omezarr.read,
        write=omezarr.write,
        source=omezarr.OmeZarrSource,
        folder=True,
    ),
)
SUFFIXES = tuple(suffix for known in FORMATS for suffix in known.suffixes)


def is_volume(path: Path) -> bool:
    """Whether the name is that of a volume; hidden files (.DS_Store, ._copy.tif) are not."""
    return not path.name.startswith(".") and _suffix(path.name) != ""


def strip_suffix(name: str) -> str:
    """The name (or path) without the suffix of its format: "a/b.nii.gz" -> "a/b"; others as they are."""
    return name[: len(name) - len(_suffix(name))]


def open_volume(path: Path, choices: ReadChoices = AS_STORED) -> OpenVolume:
    """The volume in a file, in the format that its content shows; a large one may stay on disk.

    Voxels are not judged: NaN and Inf pass. Raises VolumeError, naming the file, for whatever keeps it from
    being read whole: absent, empty, cut, damaged, of an unknown format, or named like another format. What is
    left on disk is checked when it is read (`reading`).
    """
    path = Path(path)
    with reading(path):
        return _format_of(path).read(path, choices)


def read_volume(path: Path, choices: ReadChoices = AS_STORED) -> Volume:
    """The same as `open_volume`, with every voxel read into memory."""
    opened = open_volume(path, choices)
    if isinstance(opened, Volume):
        return opened
    with reading(Path(path)):
        return opened.load()


@contextmanager
def reading(path: Path) -> Iterator[None]:
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
    fitting = [known for known in FORMATS if isinstance(source, known.source)]
    if not fitting:
        raise TypeError(f"no format writes like a {type(source).__name__}")
    writers = [known for known in fitting if suffix in known.suffixes]
    if not writers:
        raise VolumeError(
            path,
            found=f"a name ending in {suffix or path.suffix or 'nothing'!r} for a {fitting[0].name} result",
            rule=f"its name ends in {' or '.join(s for known in fitting for s in known.suffixes)}",
            remedy=f"end the name in {mask_suffix(source)}",
        )
    with (replaced_folder if writers[0].folder else new_file)(path) as partial:
        writers[0].write(partial, array, source)


def mask_suffix(source: object) -> str:
    """How the name of a result written like `source` ends: ".nii.gz", ".ome.zarr", ".tif"."""
    if isinstance(source, nifti.NiftiSource):
        return ".nii.gz"
    if isinstance(source, tiff.TiffSource):
        return ".ome.tif" if source.kind == "ome" else ".tif"
    if isinstance(source, omezarr.OmeZarrSource):
        return ".ome.zarr"
    raise TypeError(f"no format writes like a {type(source).__name__}")


def _suffix(name: str) -> str:
    """The part of the name that tells its format, in lower case; "" if none does."""
    lower = name.lower()
    return next((suffix for suffix in SUFFIXES if lower.endswith(suffix)), "")


def _format_of(path: Path) -> Format:
    """The format that name and content agree on; a Zarr folder may have any name, as in `a.zarr/labels/b`."""
    if path.is_dir():
        return _folder_format(path)
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise VolumeError(
            path,
            found="the file is empty",
            rule="a volume has voxels",
            remedy="copy or export it again, or remove it",
        )
    named = [known for known in FORMATS if _suffix(path.name) in known.suffixes]
    shown = [known for known in FORMATS if known.recognises(head)]
    if shown and named == shown:
        return shown[0]
    raise VolumeError(
        path,
        found=f"the name says {_names(named)}, the content is {_names(shown)}",
        rule=f"name and content agree on a format: {_names(list(FORMATS))}",
        remedy=f"{_renaming(shown)}export it again in one of these formats, or remove it",
    )


def _folder_format(path: Path) -> Format:
    if omezarr.recognises(path):
        return next(known for known in FORMATS if known.source is omezarr.OmeZarrSource)
    raise VolumeError(
        path,
        found="a folder without Zarr metadata (.zgroup, .zarray or zarr.json)",
        rule=f"a volume is one of {_names(list(FORMATS))}",
        remedy="give a file or an OME-Zarr folder, or copy the folder again, its hidden files too",
    )


def _names(formats: list[Format]) -> str:
    return ", ".join(f"{known.name} ({', '.join(known.suffixes)})" for known in formats) or "no known format"


def _renaming(shown: list[Format]) -> str:
    return f"rename it to end in {shown[0].suffixes[-1]}, " if shown else ""
