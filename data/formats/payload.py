"""Voxels that a text header announces: raw or compressed, behind the header or in files beside it."""

import bz2
import gzip
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import VolumeError
from .stored import Key

Packing = Literal["raw", "gzip", "bzip2", "zlib"]

# all of them raise on a broken stream; the first two compare a checksum of every byte, zlib its Adler-32
_UNPACK: dict[Packing, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "gzip": gzip.decompress,
    "bzip2": bz2.decompress,
    "zlib": zlib.decompress,
}


@dataclass(frozen=True, kw_only=True)
class Payload:
    """Where the voxels are: `files`, each packed alike, one after another.

    `start` is the first byte of the voxels in a file, `skip` the number of unpacked bytes to leave out before
    them (-1: all but the last that are needed). `shape` has the fastest axis first.
    """

    files: list[Path]
    start: int
    skip: int
    packing: Packing
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """How many bytes all voxels need."""
        return math.prod(self.shape) * self.dtype.itemsize

    def reader(self, path: Path) -> Callable[[Key], np.ndarray]:
        """Reads parts of the array (`shape`): from disk if it is one raw file, else from memory.

        Raises VolumeError naming `path`, the header's file, unless there are exactly as many bytes as needed.
        """
        if self.packing != "raw" or len(self.files) > 1:
            content = b"".join(_UNPACK[self.packing](file.read_bytes()[self.start :]) for file in self.files)
            first = self._first(path, len(content))
            return lambda key: self._array(content, first)[key]
        first = self.start + self._first(path, self.files[0].stat().st_size - self.start)
        # a map that stayed open would hold in memory all that was ever read through it
        return lambda key: self._array(np.memmap(self.files[0], np.uint8, "r"), first)[key]

    def _array(self, content: bytes | np.ndarray, first: int) -> np.ndarray:
        return np.ndarray(self.shape, self.dtype, content, first, order="F")

    def _first(self, path: Path, size: int) -> int:
        first = size - self.nbytes if self.skip < 0 else self.skip
        if first < 0 or size - first != self.nbytes:
            raise VolumeError(
                path,
                found=f"{size - max(first, 0)} bytes of voxels where the header announces {self.nbytes}",
                rule="the voxels are there to the last one, and nothing else is",
                remedy="copy or export the volume again from its origin, or remove it",
            )
        return first


def files_beside(path: Path, words: str, following: list[str]) -> list[Path]:
    """The files that a header names: one, LIST (those in the `following` lines), or "v%03d.raw 1 20 1".

    Raises VolumeError for a file that is absent, or not below the header's folder.
    """
    first, *numbers = words.split()
    if first == "LIST":
        names = [line.strip() for line in following if line.strip()]
    elif "%" in first and len(numbers) >= 3:
        start, stop, step = map(int, numbers[:3])
        names = [first % n for n in range(start, stop + (1 if step > 0 else -1), step)]
    else:
        names = [words]
    return [_beside(path, name) for name in names]


def _beside(path: Path, name: str) -> Path:
    beside = Path(name)
    if beside.is_absolute() or ".." in beside.parts:
        raise VolumeError(
            path,
            found=f"a header that takes its voxels from {name!r}",
            rule="the voxels of a volume are beside its header, or in a folder below",
            remedy="put the file beside the header and name it there without a path",
        )
    if not (path.parent / beside).is_file():
        raise VolumeError(
            path,
            found=f"a header whose file of voxels, {name!r}, is absent",
            rule="the voxels of a volume are beside its header",
            remedy="copy that file too, or save header and voxels in one file (.nrrd, .mha)",
        )
    return path.parent / beside
