"""Whether a TIFF is there to its end, which tifffile alone does not insist on."""

import logging
import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tifffile
from tifffile import TiffFile, TiffPageSeries

from ..errors import VolumeError

_REMEDY = "copy or export the file again from its origin, or remove it"


class _Messages(logging.Handler):
    """Collects what one thread logs; others may be reading other files meanwhile."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []
        self.reader = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.reader:
            self.records.append(record)


@contextmanager
def heeding_tifffile(path: Path, notes: list[str]) -> Iterator[None]:
    """Raises VolumeError at the end for errors that tifffile only logged; its warnings go to `notes`."""
    messages = _Messages()
    log = tifffile.logger()
    log.addHandler(messages)
    try:
        yield
    finally:
        log.removeHandler(messages)
    for record in messages.records:
        if record.levelno >= logging.ERROR:
            raise VolumeError(
                path,
                found=f"tifffile reports: {record.getMessage()}",
                rule="a TIFF is read without errors, to its last page",
                remedy=_REMEDY,
            )
    notes.extend(f"tifffile warns: {record.getMessage()}" for record in messages.records)


def check_whole(path: Path, tif: TiffFile, series: TiffPageSeries) -> None:
    """Raises VolumeError unless all bytes of all planes that the metadata promise are in the file."""
    size = tif.filehandle.size
    for number, page in enumerate(tif.pages, start=1):
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        end = max(_directory_end(tif, page.offset), *(offset + length for offset, length in segments))
        if end > size:
            raise _incomplete(path, f"page {number} needs {end} bytes, the file has {size}")
        if not segments or any(length == 0 for _, length in segments):
            raise _incomplete(path, f"page {number} has parts without data")
    _check_planes(path, tif, series)


def _directory_end(tif: TiffFile, start: int) -> int:
    """Where a page's list of tags and the values that they point to end; it may stand behind all voxels."""
    layout, file = tif.tiff, tif.filehandle
    file.seek(start)
    (count,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    entries = file.read(count * layout.tagsize)
    ends = [start + layout.tagnosize + len(entries) + layout.offsetsize]
    for _, kind, values, place in struct.iter_unpack(layout.tagheaderformat, entries):
        length = values * struct.calcsize(tifffile.TIFF.DATA_FORMATS.get(kind, ""))
        if length > layout.offsetsize:
            ends.append(struct.unpack(layout.offsetformat, place)[0] + length)
    return max(ends)


def _check_planes(path: Path, tif: TiffFile, series: TiffPageSeries) -> None:
    first = tif.pages.first
    planes = math.prod(series.shape) // math.prod(first.shape)
    if 1 < len(tif.pages) < planes:
        raise _incomplete(path, f"{len(tif.pages)} pages for {planes} planes")
    # one page may stand for all planes, stored one after another (ImageJ beyond 4 GB)
    contiguous = first.is_final and first.dataoffsets[0] + series.nbytes <= tif.filehandle.size
    if len(tif.pages) < planes and not contiguous:
        raise _incomplete(path, f"{len(tif.pages)} page for {planes} planes")
    absent = sum(page is None for page in series.pages)
    if absent:
        raise _incomplete(path, f"{absent} of {planes} planes are missing")
    promised = (tif.imagej_metadata or {}).get("images", 0) if series.kind == "imagej" else 0
    # Bio-Formats may count the samples of a colour as images
    if promised > planes * first.samplesperpixel:
        raise _incomplete(path, f"{planes} planes where the ImageJ metadata promise {promised}")


def _incomplete(path: Path, found: str) -> VolumeError:
    return VolumeError(
        path, found=found, rule="every plane that a TIFF announces is in the file, whole", remedy=_REMEDY
    )
