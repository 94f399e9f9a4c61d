"""MetaImage: header and voxels in one file (.mha), or in two (.mhd).

Format: https://itk.org/Wiki/ITK/MetaIO/Documentation. Files are read here and not by SimpleITK, which
returns arbitrary voxels where compressed ones are damaged, takes a spacing of 1 where none is told, and
forgets units.
"""

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import VolumeError
from ..volume import OpenVolume
from .choices import AS_STORED, ReadChoices
from .described import Described, DescribedSource, Vector, stored_result, volume
from .payload import Payload, files_beside

_DTYPES = {
    "MET_CHAR": "int8",
    "MET_UCHAR": "uint8",
    "MET_SHORT": "int16",
    "MET_USHORT": "uint16",
    "MET_LONG": "int32",
    "MET_ULONG": "uint32",
    "MET_INT": "int32",
    "MET_UINT": "uint32",
    "MET_LONG_LONG": "int64",
    "MET_ULONG_LONG": "uint64",
    "MET_FLOAT": "float32",
    "MET_DOUBLE": "float64",
}
_TYPES = {dtype: name for name, dtype in _DTYPES.items()}
_MATRIX = ("TransformMatrix", "Rotation", "Orientation")
_ORIGIN = ("Offset", "Position", "Origin")
_SPACING = ("ElementSpacing", "ElementSize")

Fields = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class MetaImageSource(DescribedSource):
    """What a result needs to be written in the geometry of the MetaImage that it came from."""


def recognises(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a MetaImage header."""
    return re.match(rb"(Comment *=[^\n]*\n)?(ObjectType *= *Image|NDims *= *\d)\b", head) is not None


def read(path: Path, choices: ReadChoices = AS_STORED) -> OpenVolume:
    """The volume of a MetaImage, (C, Z, Y, X), turned to the closest RAS where it has a TransformMatrix.

    The components of a voxel are channels. A fourth axis is named by `choices.axes`, in the order of DimSize:
    "XYZC", or "XYZT" with a time point. A large uncompressed volume stays on disk. Raises VolumeError for
    what is not one whole volume.
    """
    with path.open("rb") as file:
        fields, following = _header(file)
        start = file.tell()
    count = int(fields["NDims"])
    _check_kind(path, fields, count)
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    axes = "C" * (channels > 1) + "XYZ??"[:count]
    matrix = _words(fields, _MATRIX)
    told = Described(
        payload=_payload(path, fields, following, start, channels),
        axes=axes,
        steps=_steps(fields, count),
        origin=tuple(float(word) for word in _words(fields, _ORIGIN)[:3]),
        # a plane does not tell how it lies in a patient
        frame="LPS" if matrix and count > 2 else None,
        units=tuple(_words(fields, ("DistanceUnits",)) or ["mm"]),
    )
    return volume(path, told, _lines(fields, count), MetaImageSource, choices)


def write(path: Path, array: np.ndarray, source: MetaImageSource) -> None:
    """Writes a result, (Z, Y, X) or (C, Z, Y, X), as a zlib-compressed MetaImage in its source's geometry.

    Header and voxels are one file, whether its name ends in .mha or .mhd. Geometry and unit are the source's,
    word for word. Several channels are the components of a voxel. bool becomes uint8 and float16 float32.
    """
    data = stored_result(array, source)
    spatial = 2 if source.planar else 3
    packed = zlib.compress(data.tobytes(order="F"), level=1)
    lines = {
        "ObjectType": "Image",
        "NDims": spatial,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": True,
        "CompressedDataSize": len(packed),
        **dict(source.lines),
        "DimSize": " ".join(map(str, data.shape[-spatial:])),
        "ElementNumberOfChannels": data.shape[0] if data.ndim > spatial else 1,
        "ElementType": _TYPES[data.dtype.name],
        # MetaIO takes all that follows this line for voxels
        "ElementDataFile": "LOCAL",
    }
    with path.open("wb") as file:
        file.write("".join(f"{key} = {value}\n" for key, value in lines.items()).encode())
        file.write(packed)


def _header(file: BinaryIO) -> tuple[Fields, list[str]]:
    """The fields, and the lines that follow them where the voxels are in other files."""
    fields: Fields = {}
    for line in iter(file.readline, b""):
        key, _, value = line.decode("utf-8", errors="replace").partition("=")
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    if fields["ElementDataFile"].startswith("LIST"):
        return fields, file.read().decode("utf-8", errors="replace").splitlines()
    return fields, []


def _check_kind(path: Path, fields: Fields, count: int) -> None:
    kind = _type(fields)
    if kind in _DTYPES and 2 <= count <= 5 and _true(fields, "BinaryData", default=True):
        return
    raise VolumeError(
        path,
        found=f"NDims {count}, ElementType {kind}, BinaryData {fields.get('BinaryData')}",
        rule="a volume has 2 to 5 axes and binary numbers as voxels",
        remedy="save it again with ITK, or convert it to NIfTI",
    )


def _type(fields: Fields) -> str:
    return fields["ElementType"].removesuffix("_ARRAY")


def _true(fields: Fields, key: str, default: bool = False) -> bool:
    return fields.get(key, str(default))[:1].lower() in ("t", "1", "y")


def _payload(path: Path, fields: Fields, following: list[str], start: int, channels: int) -> Payload:
    where = fields["ElementDataFile"]
    if where.upper() == "LOCAL":
        files = [path]
    else:
        files, start = files_beside(path, where, following), 0
    big = _true(fields, "BinaryDataByteOrderMSB") or _true(fields, "ElementByteOrderMSB")
    shape = tuple(map(int, fields["DimSize"].split()))
    return Payload(
        files=files,
        start=start,
        skip=int(fields.get("HeaderSize", "0")),
        packing="zlib" if _true(fields, "CompressedData") else "raw",
        dtype=np.dtype(_DTYPES[_type(fields)]).newbyteorder(">" if big else "<"),
        shape=(channels, *shape) if channels > 1 else shape,
    )


def _words(fields: Fields, keys: tuple[str, ...]) -> list[str]:
    """The words of the first of these fields that is there."""
    return next((fields[key].split() for key in keys if key in fields), [])


def _steps(fields: Fields, count: int) -> tuple[Vector, ...] | None:
    spacing = [float(word) for word in _words(fields, _SPACING)]
    if not spacing:
        return None
    # the file has the direction of the first axis first
    directions = _matrix(fields, count).astype(float).tolist()
    return tuple(
        tuple(size * part for part in direction)
        for size, direction in zip(spacing[:3], directions[:3], strict=False)
    )


def _matrix(fields: Fields, count: int) -> np.ndarray:
    words = _words(fields, _MATRIX)
    return np.array(words or np.eye(count, dtype=int).astype(str)).reshape(count, count)


def _lines(fields: Fields, count: int) -> tuple[tuple[str, str], ...]:
    """The fields that tell the geometry, without that of a fourth axis."""
    lines = []
    if any(key in fields for key in _MATRIX):
        lines.append(("TransformMatrix", " ".join(_matrix(fields, count)[:3, :3].ravel())))
    for keys in (_ORIGIN, _SPACING, ("AnatomicalOrientation",), ("DistanceUnits",)):
        lines += [(key, " ".join(fields[key].split()[:3])) for key in keys if key in fields]
    return tuple(lines)
