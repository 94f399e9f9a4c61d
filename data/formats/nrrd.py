"""NRRD: attached (.nrrd) or detached (.nhdr) headers, segmentations of 3D Slicer among them.

Format: https://teem.sourceforge.net/nrrd/format.html. Headers are read here and not by SimpleITK, which takes
a spacing of 1 where none is told, forgets units, and refuses an axis of time points.
"""

import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import VolumeError
from ..volume import OpenVolume
from .choices import AS_STORED, ReadChoices
from .described import Described, DescribedSource, Vector, stored_result, volume
from .payload import Packing, Payload, files_beside

_TYPES = {
    "int8": ("signed char", "int8", "int8_t"),
    "uint8": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "int16": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "uint16": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "int32": ("int", "signed int", "int32", "int32_t"),
    "uint32": ("uint", "unsigned int", "uint32", "uint32_t"),
    "int64": (
        "longlong",
        "long long",
        "long long int",
        "signed long long",
        "signed long long int",
        "int64",
        "int64_t",
    ),
    "uint64": (
        "ulonglong",
        "unsigned long long",
        "unsigned long long int",
        "uint64",
        "uint64_t",
    ),
    "float32": ("float",),
    "float64": ("double",),
}
_DTYPES = {name: dtype for dtype, names in _TYPES.items() for name in names}
_PACKINGS: dict[str, Packing] = {
    "raw": "raw",
    "gzip": "gzip",
    "gz": "gzip",
    "bzip2": "bzip2",
    "bz2": "bzip2",
}
_FRAMES = {
    "right-anterior-superior": "RAS",
    "left-anterior-superior": "LAS",
    "left-posterior-superior": "LPS",
}
_SPATIAL = ("domain", "space", "???", "none", "")
_CHANNELS = re.compile(r"(.*-)?(vector|color|normal|gradient|matrix|point|scalar|stub)")
# fields with a word per axis, and the word for an axis of channels
_PER_AXIS = {"space directions": "none", "spacings": "nan", "units": '""'}
_REMEDY = "save it again from 3D Slicer or ITK, or convert it to NIfTI"

Fields = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class NrrdSource(DescribedSource):
    """What a result needs to be written in the geometry of the NRRD that it came from."""


def recognises(head: bytes) -> bool:
    """Whether a file that begins with these bytes is an NRRD header."""
    return re.match(rb"NRRD000\d\r?\n", head) is not None


def read(path: Path, choices: ReadChoices = AS_STORED) -> OpenVolume:
    """The volume of an NRRD, (C, Z, Y, X), turned to the closest RAS where `space` tells of a patient.

    An axis of vector or colour components is the channels; so is the list axis of a segmentation (.seg.nrrd).
    Any other further axis is named by `choices.axes`, in the order of `sizes`: "XYZC", or "XYZT" with a time
    point. A large raw volume stays on disk. Raises VolumeError for what is not one whole volume.
    """
    with path.open("rb") as file:
        fields, keys, following = _header(file)
        start = file.tell()
    axes = _axes(path, fields, any(key.startswith("Segment0_") for key in keys))
    told = Described(
        payload=_payload(path, fields, following, start),
        axes=axes,
        steps=_steps(fields, axes),
        origin=_vector(fields.get("space origin", "(0,0,0)")),
        frame=_frame(fields),
        units=_units(fields, axes),
    )
    return volume(path, told, _lines(fields, axes), NrrdSource, choices)


def write(path: Path, array: np.ndarray, source: NrrdSource) -> None:
    """Writes a result, (Z, Y, X) or (C, Z, Y, X), as a gzip-compressed NRRD in the geometry of its source.

    Geometry and units are the source's, word for word. Several channels are an axis of kind "vector", the
    fastest one. bool becomes uint8 and float16 float32, as NRRD knows neither.
    """
    data = stored_result(array, source)
    spatial = 2 if source.planar else 3
    vectors = data.ndim > spatial
    lines = [
        "NRRD0005",
        f"type: {_TYPES[data.dtype.name][-1]}",
        f"dimension: {data.ndim}",
        f"sizes: {' '.join(map(str, data.shape))}",
        f"kinds: {'vector ' * vectors}{' '.join(['domain'] * spatial)}",
        "endian: little",
        "encoding: gzip",
    ]
    for key, words in source.lines:
        lines.append(f"{key}: {_PER_AXIS[key] + ' ' if vectors and key in _PER_AXIS else ''}{words}")
    with path.open("wb") as file:
        file.write(("\n".join(lines) + "\n\n").encode())
        file.write(gzip.compress(data.tobytes(order="F"), compresslevel=1, mtime=0))


def _header(file: BinaryIO) -> tuple[Fields, list[str], list[str]]:
    """The fields, the names of the key/value pairs, and the lines after "data file: LIST"."""
    fields: Fields = {}
    keys = []
    file.readline()
    for line in iter(file.readline, b""):
        text = line.decode("utf-8", errors="replace").rstrip("\r\n")
        if not text:
            break
        key, separator, value = text.partition(":")
        if value.startswith("="):
            keys.append(key)
        elif separator and not text.startswith("#"):
            fields[_key(key)] = value.strip()
        if fields.get("data file", "").startswith("LIST"):
            return fields, keys, file.read().decode("utf-8", errors="replace").splitlines()
    return fields, keys, []


def _key(key: str) -> str:
    key = key.strip().lower()
    return {"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip"}.get(key, key)


def _payload(path: Path, fields: Fields, following: list[str], start: int) -> Payload:
    encoding = fields.get("encoding", "").lower()
    kind = fields.get("type", "").lower()
    if kind not in _DTYPES or encoding not in _PACKINGS or fields.get("line skip", "0") != "0":
        raise VolumeError(
            path,
            found=f"type {kind!r}, encoding {encoding!r}, line skip {fields.get('line skip', '0')}",
            rule="voxels are numbers, stored raw, gzip or bzip2, without lines of text before them",
            remedy=_REMEDY,
        )
    if "data file" in fields:
        files, start = files_beside(path, fields["data file"], following), 0
    else:
        files = [path]
    order = "<" if fields.get("endian", "little").lower() == "little" else ">"
    return Payload(
        files=files,
        start=start,
        skip=int(fields.get("byte skip", "0")),
        packing=_PACKINGS[encoding],
        dtype=np.dtype(_DTYPES[kind]).newbyteorder(order),
        shape=tuple(map(int, fields["sizes"].split())),
    )


def _axes(path: Path, fields: Fields, segmentation: bool) -> str:
    """A letter for each axis; "?" where the header does not tell what a further axis is."""
    count = len(fields["sizes"].split())
    kinds = (fields.get("kinds", "").lower().split() + [""] * count)[:count]
    steps = (_words(fields.get("space directions", "")) + [""] * count)[:count]
    times = [n for n in range(count) if kinds[n] == "time" or _is_time(fields, steps[n])]
    further = [n for n in range(count) if kinds[n] not in _SPATIAL or steps[n] == "none" or n in times]
    spatial = [n for n in range(count) if n not in further][:3]
    if len(spatial) < 2 or "complex" in kinds:
        raise VolumeError(
            path,
            found=f"sizes {fields['sizes']}, kinds {' '.join(kinds).strip() or 'not told'}",
            rule="a volume has two or three spatial axes and one number per voxel and channel",
            remedy=_REMEDY,
        )
    letters = ["?"] * count
    for letter, n in zip("XYZ", spatial, strict=False):
        letters[n] = letter
    for n in further:
        if _CHANNELS.fullmatch(kinds[n]) or (kinds[n] == "list" and segmentation):
            letters[n] = "C"
        elif n in times:
            letters[n] = "T"
    return "".join(letters)


def _words(text: str) -> list[str]:
    """The vectors of a field, each "(...)" or "none"."""
    return re.findall(r"none|\([^)]*\)", text)


def _vector(word: str) -> Vector:
    return tuple(float(number) for number in word.strip("() ").split(","))


def _frame(fields: Fields) -> str | None:
    space = _space(fields).lower()
    space = _FRAMES.get(space, space.upper())
    return space if space in _FRAMES.values() and "space directions" in fields else None


def _space(fields: Fields) -> str:
    """The name of the space, without time."""
    word = fields.get("space", "")
    return word[:-1] if word.upper() in ("RAST", "LAST", "LPST") else re.sub("-time$", "", word, flags=re.I)


def _is_time(fields: Fields, step: str) -> bool:
    """Whether an axis leads nowhere but in time, the fourth component of a vector."""
    return _space(fields) != fields.get("space", "") and "(" in step and not any(_vector(step)[:3])


def _steps(fields: Fields, axes: str) -> tuple[Vector, ...] | None:
    if "space directions" in fields:
        return tuple(_vector(word) for word in _spatial(_words(fields["space directions"]), axes))
    sizes = [float(word) for word in _spatial(fields.get("spacings", "").split(), axes)]
    if not sizes or not np.isfinite(sizes).all():
        return None
    return tuple(tuple(size * (n == axis) for n in range(3)) for axis, size in enumerate(sizes))


def _units(fields: Fields, axes: str) -> tuple[str, ...]:
    if "space units" in fields:
        return tuple(_quoted(fields["space units"]))[:3]
    return tuple(_spatial(_quoted(fields.get("units", "")), axes))


def _quoted(text: str) -> list[str]:
    return re.findall(r'"([^"]*)"', text)


def _spatial(words: list[str], axes: str) -> list[str]:
    """Those of the words, one for each axis, that stand at X, Y and Z."""
    return [words[axes.index(axis)] for axis in "XYZ" if axis in axes] if len(words) == len(axes) else []


def _lines(fields: Fields, axes: str) -> tuple[tuple[str, str], ...]:
    """The fields that tell the geometry of X, Y and Z, without those of further axes."""
    lines = []
    for key in ("space", "space dimension"):
        if key in fields:
            lines.append((key, _space(fields) if key == "space" else str(min(int(fields[key]), 3))))
    vectors = [_in_space(word) for word in _spatial(_words(fields.get("space directions", "")), axes)]
    units = _quoted(fields.get("space units", ""))[:3]
    lines += [
        ("space directions", " ".join(vectors)),
        ("space units", " ".join(f'"{unit}"' for unit in units)),
        ("space origin", _in_space(fields.get("space origin", ""))),
        ("spacings", " ".join(_spatial(fields.get("spacings", "").split(), axes))),
        ("units", " ".join(f'"{unit}"' for unit in _spatial(_quoted(fields.get("units", "")), axes))),
    ]
    return tuple((key, words) for key, words in lines if words)


def _in_space(word: str) -> str:
    """A vector without its fourth component (time)."""
    parts = word.strip("() ").split(",")
    return word if len(parts) <= 3 else f"({','.join(parts[:3])})"
