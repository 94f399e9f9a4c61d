"""The one image in a TIFF file, and its voxels: at once where they are few, by planes where they are many."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
from tifffile import TiffFile, TiffFrame, TiffPage, TiffPageSeries

from ..errors import VolumeError
from . import lazy
from .stored import Key, Reader
from .tiff_whole import heeding_tifffile

Kind = Literal["imagej", "ome", "plain"]

KINDS: dict[str, Kind] = {
    "imagej": "imagej",
    "ome": "ome",
    "shaped": "plain",
    "uniform": "plain",
    "generic": "plain",
    "stk": "plain",
}


def only_series(path: Path, tif: TiffFile) -> TiffPageSeries:
    """The image in the file; raises VolumeError where there are several, or it is of no known kind."""
    # a list of pages that loops or breaks off is logged here, before anything is read
    images = [series for series in tif.series if not series.keyframe.is_reduced]
    if len(images) != 1:
        raise VolumeError(
            path,
            found=f"{len(images)} images in one file, of shapes {[series.shape for series in images]}",
            rule="a file holds one volume (smaller copies of it may stand beside it)",
            remedy="save each image as a file of its own",
        )
    series = images[0]
    if series.kind not in KINDS or series.is_multifile:
        met = "spread over several files" if series.is_multifile else f"of the kind {series.kind!r}"
        raise VolumeError(
            path,
            found=f"a TIFF {met}",
            rule="a volume is one ImageJ, OME or plain TIFF",
            remedy="open it in Fiji (Bio-Formats) and save it as one OME-TIFF or ImageJ TIFF",
        )
    return series


def voxel_reader(path: Path, tif: TiffFile, series: TiffPageSeries, shape: tuple[int, ...]) -> Reader:
    """Reads parts of the series' array, seen as `shape`."""
    if series.nbytes <= lazy.WHOLE_BYTES:
        whole = series.asarray().reshape(shape)
        return lambda key: whole[key]
    start, dtype = series.dataoffset, series.dtype.newbyteorder(tif.byteorder)
    if start is not None:
        # a map that stayed open would hold in memory all that was ever read through it
        return lambda key: np.array(np.memmap(path, dtype, "r", start, shape)[key])
    return lambda key: _by_pages(path, shape, key)


def _whole(page: TiffPage | TiffFrame | None) -> np.ndarray:
    if page is None:
        raise LookupError("a plane is missing")
    return page.asarray()


def _by_pages(path: Path, shape: tuple[int, ...], key: Key) -> np.ndarray:
    """The part of the array that the key names, decoding only the pages it lies in."""
    with heeding_tifffile(path, []), TiffFile(path) as tif:
        pages = only_series(path, tif).pages
        between = next(n for n in range(len(shape)) if math.prod(shape[:n]) == len(pages))
        numbers = np.arange(len(pages)).reshape(shape[:between])[key[:between]]
        planes = [_whole(pages[n]).reshape(shape[between:])[key[between:]] for n in numbers.ravel().tolist()]
    return np.stack(planes).reshape(*numbers.shape, *planes[0].shape)
