"""Predicting a volume larger than the patch, window by window.

Windows go from the first slice to the last. Slices that none of the further windows touches are done, so that
no more than a patch's depth of them need be held, however deep the volume is.
"""

# Shapes: B = windows at once, C = channels, K = classes.

from collections.abc import Callable, Iterator
from itertools import pairwise, product

import torch
from torch import Tensor

from ..data.slabs import thin
from ..data.volume import Shape
from .sums import HostSums, Sums
from .tiles import Starts, Tiles

Predict = Callable[[Tensor], Tensor]
# slices (C, z, Y, X) of the padded image, those that windows at one start along z see
SlicesAt = Callable[[int], Tensor]


def stitch(predict: Predict, image: Tensor, patch: Shape, *, overlap: float = 0.5, batch: int = 1) -> Tensor:
    """`predict` applied to windows of `image` and averaged, (K, Z, Y, X) float32 on the CPU.

    Args:
        predict: from (B, C, *patch) to (B, K, *patch).
        image: (C, Z, Y, X); padded with 0 (the mean after z-scoring) where it is smaller than the patch.
        patch: extent of a window (z, y, x).
        overlap: least share of a window's extent that lies in the next one, in [0, 1).
        batch: windows at once.
    """
    z, y, x = image.shape[1:]
    tiles, out = Tiles(shape=(z, y, x), patch=patch, overlap=overlap), torch.empty(0)
    for part, means in swept(predict, held(image, tiles), tiles, HostSums, slice(0, y), batch):
        if not out.numel():
            out = torch.empty((len(means), z, y, x))
        out[:, part] = means
    return out


def swept(
    predict: Predict,
    image: SlicesAt,
    tiles: Tiles,
    sums: Callable[[Tiles, Starts], Sums],
    rows: slice,
    batch: int,
) -> Iterator[tuple[slice, Tensor]]:
    """Ranges of the image's slices, in order, and the means (K, z, y, X) of windows over these rows.

    `image` gives rows from that on where the first window begins.
    """
    top, bottom = rows.start + tiles.before[1], rows.stop + tiles.before[1]
    starts = tiles.touching(slice(top, bottom))
    places, held_sums, buffer = list(product(starts, tiles.starts[2])), sums(tiles, starts), torch.empty(0)
    inner_z, _, inner_x = tiles.inner
    for start, following in pairwise((*tiles.starts[0], tiles.padded[0])):
        slices = image(start)
        for first in range(0, len(places), batch):
            group = places[first : first + batch]
            if not buffer.numel():
                buffer = torch.empty((len(group), len(slices), *tiles.patch))
            windows = buffer[: len(group)]
            for window, (y, x) in zip(windows, group, strict=True):
                window.copy_(_plane(slices, y - starts[0], x, tiles.patch))
            for found, (y, x) in zip(predict(windows), group, strict=True):
                held_sums.add(found, start, y - starts[0], x)
        for z in thin(slice(start, following), (1, *tiles.padded)):
            means = held_sums.means(z)
            inside = slice(max(z.start, inner_z.start), min(z.stop, inner_z.stop))
            if inside.stop > inside.start:
                kept = slice(inside.start - z.start, inside.stop - z.start)
                place = slice(inside.start - inner_z.start, inside.stop - inner_z.start)
                yield place, means[:, kept, top - starts[0] : bottom - starts[0], inner_x]


def _plane(slices: Tensor, y: int, x: int, patch: Shape) -> Tensor:
    return slices[:, :, y : y + patch[1], x : x + patch[2]]


def held(image: Tensor, tiles: Tiles) -> SlicesAt:
    """The slices of an image (C, Z, Y, X) in memory."""
    pads = [(b, p - b - n) for b, p, n in zip(tiles.before, tiles.padded, tiles.shape, strict=True)]
    if any(n for pad in pads for n in pad):
        image = torch.nn.functional.pad(image, [n for pad in reversed(pads) for n in pad])
    return lambda start: image[:, start : start + tiles.patch[0]]
