"""Writing the arrays of a case, slab by slab: volumes may be larger than memory."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from .intensities import Intensity
from .label_voxels import ClassNumbers
from .plan import Preprocessing
from .preprocess import Normalised, value_range
from .resample import coarsen_image, needed, resample_box, resample_labels_box
from .slabs import Box, Held, boxes
from .store import CHUNK, as_float32, create_array, open_array, stored_dtype, write_box
from .volume import Shape, Voxels

H = TypeVar("H", bound=Voxels)
# what nnU-Net keeps per class and case too
MAX_POSITIONS = 10_000
# bytes of a source that are read at once, and the box (z, y, x) that is worked on
READ_BYTES = 2**29
BOX: Shape = (CHUNK[0], 4 * CHUNK[1], 4 * CHUNK[2])


def write_image(
    folder: Path, source: Voxels, shape: Shape, how: Preprocessing, measured: Sequence[Intensity]
) -> None:
    """Writes level 0 of an image (C, Z, Y, X) at `shape`, normalised by the grey values measured in it."""
    # float16 is for values of a known scale
    dtype = np.dtype(np.float32) if "none" in how.normalisation else stored_dtype(*value_range(how, measured))
    out = create_array(folder / "image_0.b2nd", (source.shape[0], *shape), dtype)
    for slices, box in _slabwise(source, partial(Held.of, source), shape):
        seen = Normalised(array=slices, how=how, measured=measured)
        write_box(out, _start(box), resample_box(seen, shape, box, how.orders))


def write_labels(folder: Path, numbers: ClassNumbers, shape: Shape) -> None:
    """Writes level 0 of class numbers at `shape`; without their channel where classes do not overlap."""
    overlapping = numbers.table.kind == "overlapping"
    lead = (numbers.shape[0],) if overlapping else ()
    out = create_array(folder / "label_0.b2nd", (*lead, *shape), numbers.dtype)
    for slices, box in _slabwise(numbers, numbers.held, shape):
        found = resample_labels_box(slices, shape, box, overlapping=overlapping)
        write_box(out, _start(box), found if overlapping else found[0])


def write_coarser(folder: Path, factors: Sequence[tuple[int, int, int]]) -> None:
    """Writes each coarser level of an image from the level before; `factors` are to level 0."""
    for level, factor in enumerate(factors[1:], start=1):
        finer = open_array(folder / f"image_{level - 1}.b2nd")
        read, (channels, *extent) = as_float32(finer), finer.shape
        by_z, by_y, by_x = (now // before for now, before in zip(factor, factors[level - 1], strict=True))
        z, y, x = (-(-n // f) for n, f in zip(extent, (by_z, by_y, by_x), strict=True))
        coarser = create_array(folder / f"image_{level}.b2nd", (channels, z, y, x), finer.dtype)
        for box in boxes((z, y, x), BOX):
            part = read[(slice(None), *_times(box, (by_z, by_y, by_x), extent))]
            write_box(coarser, _start(box), coarsen_image(part, (by_z, by_y, by_x)))


def write_foreground(folder: Path, seed: str) -> dict[int, int]:
    """Writes positions of each class, drawn by the case's own hash; returns voxels per class.

    Where voxels are unannotated, annotated background has positions too, as class 0.
    """
    labels = open_array(folder / "label_0.b2nd")
    rng = np.random.default_rng(int(seed[:16], 16))
    drawn: dict[int, _Draw] = {}
    ignored, lead = False, (slice(None),) * (len(labels.shape) - 3)
    z, y, x = labels.shape[-3:]
    for box in boxes((z, y, x), BOX):
        part = labels[(*lead, *box)]
        ignored = ignored or bool((part < 0).any())
        for c, found in _positions(part):
            drawn.setdefault(c, _Draw()).add(found + [s.start for s in box], rng)
    if ignored:
        drawn.setdefault(0, _Draw())  # its being there says that the case is annotated in part
    else:
        drawn.pop(0, None)
    positions = {str(c): draw.positions for c, draw in sorted(drawn.items()) if draw.count or c == 0}
    np.savez_compressed(folder / "foreground.npz", **positions)  # pyright: ignore[reportArgumentType]
    return {c: draw.count for c, draw in sorted(drawn.items())}


def _positions(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Class numbers and the places (n, 3) of their voxels; background first."""
    if labels.ndim == 4:
        yield 0, np.argwhere((labels == 0).all(axis=0))
        for c, channel in enumerate(labels, start=1):
            yield c, np.argwhere(channel > 0)
        return
    for c in np.unique(labels[labels >= 0]):
        yield int(c), np.argwhere(labels == c)


class _Draw:
    """Up to `MAX_POSITIONS` of all positions that are added, each as likely as the others."""

    def __init__(self) -> None:
        self.count = 0
        self.positions = np.empty((0, 3), np.int32)
        self._keys = np.empty(0)

    def add(self, found: np.ndarray, rng: np.random.Generator) -> None:
        self.count += len(found)
        keys = np.concatenate([self._keys, rng.random(len(found))])
        positions = np.concatenate([self.positions, found.astype(np.int32)])
        if len(keys) > MAX_POSITIONS:  # those of the smallest keys, in the order of the volume
            kept = np.sort(np.argpartition(keys, MAX_POSITIONS)[:MAX_POSITIONS])
            keys, positions = keys[kept], positions[kept]
        self._keys, self.positions = keys, positions


def _slabwise(source: Voxels, hold: Callable[[slice], H], shape: Shape) -> Iterator[tuple[H, Box]]:
    """Boxes that cover the result of `shape`, each with the slices of the source that it needs, read once."""
    depth = _depth(source, shape)
    for start in range(0, shape[0], depth):
        z = slice(start, min(start + depth, shape[0]))
        held = hold(needed(source.shape[1], shape[0], z))
        for _, y, x in boxes((1, *shape[1:]), (1, *BOX[1:])):
            yield held, (z, y, x)


def _depth(source: Voxels, shape: Shape) -> int:
    """Slices of the result made of at most `READ_BYTES` of the source; a row of chunks if possible."""
    plane = math.prod(source.shape) // source.shape[1] * source.dtype.itemsize
    return min(BOX[0], max(1, int(READ_BYTES / plane * shape[0] / source.shape[1])))


def _start(box: Box) -> Shape:
    z, y, x = (part.start for part in box)
    return z, y, x


def _times(box: Box, factors: tuple[int, int, int], extent: Sequence[int]) -> Box:
    z, y, x = (slice(b.start * f, min(b.stop * f, n)) for b, f, n in zip(box, factors, extent, strict=True))
    return z, y, x
