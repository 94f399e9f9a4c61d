"""Whether the chunks of a Zarr array are whole, where Zarr itself would not notice."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import zarr

from ..errors import VolumeError

_BLOSC_HEADER = 16


def check_chunks(folder: Path, array: zarr.Array, notes: list[str]) -> None:
    """Counts absent chunks in `notes`; raises VolumeError for empty ones, and for Blosc ones that are cut.

    Zarr takes a shard without bytes for an absent one, and Blosc reads on behind the end of a cut chunk.
    """
    blosc = array.shards is None and [type(codec).__name__ for codec in array.compressors[-1:]] in (
        ["Blosc"],
        ["BloscCodec"],
    )
    present = 0
    for file in _files(folder):
        present += 1
        size = file.stat().st_size
        if size == 0:
            raise _damaged(file, "no byte")
        if blosc and size != (announced := _blosc_size(file)):
            raise _damaged(file, f"{size} bytes where its header announces {announced}")
    extents = zip(array.shape, pieces(array), strict=True)
    expected = math.prod(math.ceil(shape / extent) for shape, extent in extents)
    if present < expected:
        fill = array.metadata.fill_value or 0
        notes.append(f"{expected - present} of {expected} chunks are not stored and read as {fill}")


def pieces(array: zarr.Array) -> tuple[int, ...]:
    """The extent of what one file holds, axis by axis."""
    return array.shards or array.chunks


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names if not name.startswith(".") and name != "zarr.json")


def _blosc_size(file: Path) -> int:
    with file.open("rb") as opened:
        return int.from_bytes(opened.read(_BLOSC_HEADER)[12:], "little")


def _damaged(file: Path, found: str) -> VolumeError:
    return VolumeError(
        file,
        found=f"a chunk of {found}",
        rule="a chunk is whole, or absent where all of it is the fill value",
        remedy="copy or export the image again from its origin",
    )
