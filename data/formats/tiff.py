"""TIFF volumes: ImageJ hyperstacks, OME-TIFF and plain page stacks, classic and BigTIFF."""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile
from tifffile import TiffFile, TiffPageSeries

from ..errors import VolumeError
from ..volume import OpenVolume, Shape, Triple
from .choices import AS_STORED, ReadChoices
from .stored import Stored, declared_axes, time_point, volume_of
from .tiff_spacing import Resolution, calibration, ome_words, pixels_per_unit, resolution
from .tiff_voxels import KINDS, Kind, only_series, voxel_reader
from .tiff_whole import check_whole, heeding_tifffile

Words = tuple[tuple[str, str | float], ...]

_COLOURS = ("red", "green", "blue", "alpha")
_IMAGEJ_DTYPES = ("uint8", "uint16", "int16", "float32")
# 32-bit offsets end at 4 GiB; the rest is for the headers of the pages
_CLASSIC_BYTES = 2**32 - 2**26


@dataclass(frozen=True, kw_only=True)
class TiffSource:
    """What a result needs to be written as the TIFF that it came from was.

    `shape` is (Z, Y, X); `words` are spacing and units as the file has them, `resolution` its tags.
    """

    kind: Kind
    shape: Shape
    resolution: Resolution | None = None
    words: Words = ()
    spacing: Triple | None = None
    unit: str | None = None


def read(path: Path, choices: ReadChoices = AS_STORED) -> OpenVolume:
    """The volume of a TIFF, (C, Z, Y, X) as stored, with spacing and unit where its metadata tell them all.

    `choices.axes` stand above the axes in the file. Pages without a named axis are slices; the colours of a
    pixel are channels; `notes` say so. A large volume stays on disk.

    Raises VolumeError for a file that is not one whole volume: several images, time points without a choice,
    axes that cannot be told, pages missing or cut; what tifffile and the codecs raise on damage is passed on.
    """
    notes: list[str] = []
    with heeding_tifffile(path, notes), TiffFile(path) as tif:
        series = only_series(path, tif)
        check_whole(path, tif, series)
        stored, channels = _stored(path, tif, series, choices, notes)
        array = stored.opened()
        names = _ome_channels(tif, array.shape[0]) if series.kind == "ome" else ()
        kind = KINDS[series.kind]
        found = calibration(tif, kind, slices=array.shape[1])
        tags = resolution(tif.pages.first)
    if found.note:
        notes.append(found.note)
    if kind == "plain" and found.spacing:
        # a plain TIFF has no place for the depth of a slice
        kind, tags = "imagej", pixels_per_unit(found.spacing)
    _, z, y, x = array.shape
    return volume_of(
        array,
        spacing=found.spacing,
        unit=found.unit,
        channels=channels or names,
        source=TiffSource(
            kind=kind,
            shape=(z, y, x),
            resolution=tags,
            words=found.words,
            spacing=found.spacing,
            unit=found.unit,
        ),
        notes=tuple(notes),
    )


def write(path: Path, array: np.ndarray, source: TiffSource) -> None:
    """Writes a result, (Z, Y, X) or (C, Z, Y, X), as the kind of TIFF its source was, zlib-compressed.

    Resolution, spacing and unit are the source's. What ImageJ or a plain TIFF cannot hold (wide integers,
    more than 4 GB, channels in a plain TIFF) becomes OME-TIFF; beyond 4 GB it is a BigTIFF.
    """
    channels = array if array.ndim == 4 else array[None]
    if channels.shape[1:] != source.shape:
        raise ValueError(f"a result of shape {channels.shape[1:]} for a source of shape {source.shape}")
    kind = _fitting_kind(source.kind, channels)
    words = source.words
    if kind == "ome" != source.kind:
        words = ome_words(source.spacing, source.unit) if source.spacing and source.unit else ()
    _write(path, channels, kind, source.resolution, words)


def write_new(path: Path, array: np.ndarray, spacing: Triple | None = None, unit: str | None = None) -> None:
    """Writes (Z, Y, X) or (C, Z, Y, X) as a new ImageJ TIFF with spacing (z, y, x) in `unit`.

    Data types that ImageJ cannot hold become OME-TIFF.
    """
    if (spacing is None) != (unit is None):
        raise ValueError(f"a spacing and its unit come together, not {spacing} and {unit}")
    z, y, x = array.shape[-3:]
    write(
        path,
        array,
        TiffSource(
            kind="imagej",
            shape=(z, y, x),
            resolution=pixels_per_unit(spacing) if spacing else None,
            words=(("spacing", spacing[0]), ("unit", unit)) if spacing and unit else (),
            spacing=spacing,
            unit=unit,
        ),
    )


def _stored(
    path: Path, tif: TiffFile, series: TiffPageSeries, choices: ReadChoices, notes: list[str]
) -> tuple[Stored, tuple[str, ...]]:
    """The array with a letter for each axis longer than 1, and names of its channels if they are colours."""
    if series.dtype.kind not in "iufb":
        raise VolumeError(
            path,
            found=f"voxels of data type {series.dtype}",
            rule="a voxel is one integer or floating-point number",
            remedy="save magnitude or phase, or grey values",
        )
    words = f"axes {series.axes} of shape {series.shape}"
    shape, axes = series.shape, series.axes
    if choices.axes is not None:
        # tifffile leaves out axes of extent 1, which may be declared too
        full = zip(series.get_axes(squeeze=False), series.get_shape(squeeze=False), strict=True)
        whole = tuple(n for axis, n in full if axis != "S" or n > 1)
        shape = whole if len(choices.axes) == len(whole) else shape
        axes = declared_axes(path, choices.axes, shape, words)
        notes.append(f"axes declared as {axes}, where the file has {words}")
    kept = [n for n, axis in enumerate(axes) if axis in "YX" or shape[n] > 1]
    extents = tuple(shape[n] for n in kept)
    axes, channels = _named_axes(path, "".join(axes[n] for n in kept), extents, words, notes)
    count = extents[axes.index("T")] if "T" in axes else 1
    return Stored(
        shape=extents,
        dtype=series.dtype,
        axes=axes,
        chunk=tuple(n if axis in "YX" else 1 for axis, n in zip(axes, extents, strict=True)),
        read=voxel_reader(path, tif, series, extents),
        time=time_point(path, choices, count, words),
    ), channels


def _named_axes(
    path: Path, axes: str, shape: tuple[int, ...], stored: str, notes: list[str]
) -> tuple[str, tuple[str, ...]]:
    """Axes in the letters T, C, Z, Y, X, told from what the file calls them, and the names of colours."""
    channels: tuple[str, ...] = ()
    unnamed = [axis for axis in axes if axis in "QI"]
    if len(unnamed) == 1 and "Z" not in axes:
        axes = axes.replace(unnamed[0], "Z")
        notes.append(f"the page axis has no name and is read as Z ({stored})")
    if "S" in axes and "C" not in axes:
        count = shape[axes.index("S")]
        axes = axes.replace("S", "C")
        channels = _COLOURS[:count] if count in (3, 4) else ()
        notes.append(f"the {count} samples of a pixel are read as channels ({stored})")
    if not set(axes) <= set("TCZYX") or len(set(axes)) != len(axes):
        raise VolumeError(
            path,
            found=stored,
            rule="the axes of a volume are Z, Y, X and possibly C or T, each named once",
            remedy="name them with --axes (ZCYX, say), or save it with named axes (ImageJ hyperstack or "
            "OME-TIFF), or one file per further index",
        )
    return axes, channels


def _ome_channels(tif: TiffFile, count: int) -> tuple[str, ...]:
    """The channels' names if all have one, all different."""
    channels = ElementTree.fromstring(tif.ome_metadata or "").iterfind(".//{*}Channel")
    names = tuple(name for name in (channel.get("Name") for channel in channels) if name)
    return names if len(names) == len(set(names)) == count else ()


def _fitting_kind(kind: Kind, array: np.ndarray) -> Kind:
    fits_imagej = array.dtype.name in (*_IMAGEJ_DTYPES, "bool") and array.nbytes <= _CLASSIC_BYTES
    if (kind == "imagej" and not fits_imagej) or (kind == "plain" and array.shape[0] > 1):
        return "ome"
    return kind


def _write(path: Path, array: np.ndarray, kind: Kind, tags: Resolution | None, words: Words) -> None:
    if array.dtype == bool:
        array = array.view(np.uint8)
    # ImageJ stores the channels of a slice together
    array, axes = (array.swapaxes(0, 1), "ZCYX") if kind == "imagej" else (array, "CZYX")
    kept = [n for n, axis in enumerate(axes) if axis in "YX" or array.shape[n] > 1]
    tifffile.imwrite(
        path,
        array.reshape([array.shape[n] for n in kept]),
        imagej=kind == "imagej",
        ome=kind == "ome",
        bigtiff=array.nbytes > _CLASSIC_BYTES,
        photometric="minisblack",
        compression="zlib",
        resolution=(tags.x, tags.y) if tags else None,
        resolutionunit=tags.unit if tags else None,
        metadata=None if kind == "plain" else {"axes": "".join(axes[n] for n in kept), **dict(words)},
    )
