"""Voxel spacing as ImageJ and OME write it into a TIFF, and as it is written back."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from xml.etree import ElementTree

from tifffile import TiffFile, TiffPage

from ..units import canonical, factor
from ..volume import Triple
from . import tiff_metamorph
from .spacing import tidy

Rational = tuple[int, int]

_LARGEST = 2**32 - 1  # of a TIFF rational's two parts
_IMAGEJ_KEYS = ("spacing", "unit", "yunit", "zunit", "xorigin", "yorigin", "zorigin")
_OME_SYMBOLS = {"um": "µm", "angstrom": "Å", "inch": "in"}
_ADVICE = "spacing unknown until it is given"


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """The resolution tags of the first page: pixels per unit as (numerator, denominator), and its code."""

    x: Rational
    y: Rational
    unit: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The spacing (z, y, x) with its unit, or None for both, and the file's own words for it.

    `words` are what the writer of the same kind of TIFF takes as metadata to tell the same again.
    """

    spacing: Triple | None = None
    unit: str | None = None
    words: tuple[tuple[str, str | float], ...] = ()
    note: str | None = None


def resolution(page: TiffPage) -> Resolution | None:
    """The resolution tags as stored; None where the page has none."""
    x, y = (page.tags.valueof(name) for name in ("XResolution", "YResolution"))
    if not (isinstance(x, tuple) and isinstance(y, tuple)):
        return None
    return Resolution(
        x=(x[0], x[1]), y=(y[0], y[1]), unit=int(page.tags.valueof("ResolutionUnit", default=1))
    )


def calibration(tif: TiffFile, kind: str, slices: int) -> Calibration:
    """What the metadata of this kind of TIFF ("imagej", "ome" or "plain") say of the voxels' size."""
    readers: dict[str, Callable[[TiffFile, int], Calibration]] = {"imagej": _imagej, "ome": _ome}
    return readers.get(kind, _plain)(tif, slices)


def _plain(tif: TiffFile, slices: int) -> Calibration:
    """What MetaMorph says where it made the file, in the words of ImageJ; others say too little."""
    told = tiff_metamorph.lengths(tif, slices)
    if told is None:
        return Calibration(note=f"a plain TIFF says nothing of the depth of a slice: {_ADVICE}")
    lengths, name = told
    if lengths["x"] is None or lengths["y"] is None:
        return Calibration(note=f"MetaMorph's spatial calibration is off or lacking: {_ADVICE}")
    if lengths["z"] is None and slices > 1:
        lacking = "MetaMorph tells no one distance between the slices (z-position, ZDistance)"
        return Calibration(note=f"{lacking}: {_ADVICE}")
    found = _in_one_unit(lengths, dict.fromkeys("zyx", name), ())
    if found.spacing is None or found.unit is None:
        return found
    return replace(found, words=(("spacing", found.spacing[0]), ("unit", found.unit)))


def _imagej(tif: TiffFile, slices: int) -> Calibration:
    meta = tif.imagej_metadata or {}
    words = tuple((key, _ascii(meta[key])) for key in _IMAGEJ_KEYS if key in meta)
    unit = str(meta.get("unit", ""))
    # ImageJ writes a unit of y and z only where it is not that of x
    names = {"z": str(meta.get("zunit", unit)), "y": str(meta.get("yunit", unit)), "x": unit}
    tags = resolution(tif.pages.first)
    if canonical(unit) is None:
        return Calibration(words=words, note=f"ImageJ unit {unit!r} is no unit of length: {_ADVICE}")
    if tags is None or 0 in (*tags.x, *tags.y):
        return Calibration(words=words, note=f"no usable X and Y resolution: {_ADVICE}")
    if "spacing" not in meta and slices > 1:
        lacking = "ImageJ metadata lack the distance between slices (ImageJ leaves out 'spacing=1.0')"
        return Calibration(words=words, note=f"{lacking}: {_ADVICE}")
    depth = float(meta["spacing"]) if "spacing" in meta else None
    lengths = {"z": depth, "y": tags.y[1] / tags.y[0], "x": tags.x[1] / tags.x[0]}
    return _in_one_unit(lengths, names, words)


def _ascii(word: str | float) -> str | float:
    """Text with other letters escaped as ImageJ does; tifffile would refuse them."""
    if not isinstance(word, str):
        return word
    return "".join(letter if letter.isascii() else f"\\u{ord(letter):04X}" for letter in word)


def _ome(tif: TiffFile, slices: int) -> Calibration:
    pixels = ElementTree.fromstring(tif.ome_metadata or "").find(".//{*}Pixels")
    if pixels is None:
        return Calibration(note=f"no Pixels element in the OME metadata: {_ADVICE}")
    lengths = {axis: _number(pixels.get(f"PhysicalSize{axis.upper()}")) for axis in "zyx"}
    # micrometre is the schema's default
    names = {axis: pixels.get(f"PhysicalSize{axis.upper()}Unit", "µm") for axis in "zyx"}
    words: list[tuple[str, str | float]] = []
    for key in (f"PhysicalSize{axis}{suffix}" for axis in "XYZ" for suffix in ("", "Unit")):
        text = pixels.get(key)
        if text is not None:
            words.append((key, text if key.endswith("Unit") else float(text)))
    missing = [axis for axis, length in lengths.items() if length is None and (axis != "z" or slices > 1)]
    if missing:
        return Calibration(words=tuple(words), note=f"no PhysicalSize for {', '.join(missing)}: {_ADVICE}")
    return _in_one_unit(lengths, names, tuple(words))


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _in_one_unit(
    lengths: dict[str, float | None], names: dict[str, str], words: tuple[tuple[str, str | float], ...]
) -> Calibration:
    """All three lengths in the unit of x; a single slice without depth is as deep as its pixels are wide."""
    note = None
    if lengths["z"] is None:
        lengths, names = {**lengths, "z": lengths["x"]}, {**names, "z": names["x"]}
        note = "a single slice of unstated depth; the width of its pixels taken"
    units = {axis: canonical(name) for axis, name in names.items()}
    unit = units["x"]
    values = []
    for axis, length in lengths.items():
        own = units[axis]
        # ImageJ tells the direction of a stack by the sign of its spacing
        if unit is None or own is None or length is None or not 0 < abs(length) < math.inf:
            return Calibration(
                words=words, note=f"voxel size {length} {names[axis]!r} along {axis}: {_ADVICE}"
            )
        values.append(abs(length) * factor(own, unit))
    return Calibration(spacing=tidy(values), unit=unit, words=words, note=note)


def pixels_per_unit(spacing: Triple) -> Resolution:
    """The resolution tags that tell this spacing's y and x, to the last digit where rationals can."""
    _, y, x = (_rational(1 / Fraction(repr(float(length)))) for length in spacing)
    return Resolution(x=x, y=y, unit=1)


def _rational(value: Fraction) -> Rational:
    # a large value needs a small denominator to keep its numerator within 32 bits
    near = value.limit_denominator(max(1, min(_LARGEST, int(_LARGEST / max(value, Fraction(1))))))
    return near.numerator, near.denominator


def ome_words(spacing: Triple, unit: str) -> tuple[tuple[str, str | float], ...]:
    """PhysicalSize and unit per axis, as OME spells them."""
    symbol = _OME_SYMBOLS.get(unit, unit)
    sizes = [(f"PhysicalSize{axis}", length) for axis, length in zip("ZYX", spacing, strict=True)]
    return (*sizes, *((f"{key}Unit", symbol) for key, _ in sizes))
