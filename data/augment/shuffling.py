"""Voxels moved within an image: local shuffling, and patches that change places.

All channels move alike.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..settings import Probability, settings
from ..volume import Shape
from .blocks import Block, CountRange, ShareRange, as_slices, draw_blocks, edge_voxels
from .draws import Draws


@settings
class LocalShuffling:
    """Voxels change places within small windows: texture is lost, shape is not.

    No voxel comes from farther away than a window's edge, which should stay well below what a network sees
    at once. Where windows overlap, the last one counts; each takes its voxels from the image as it was.
    In the smallest images windows have up to two voxels along an axis: with one, nothing would change.

    Source: Zhou et al. 2021, Models Genesis, https://doi.org/10.1016/j.media.2020.101840, section 3.1; number
    and size from its code (https://github.com/MrGiovanni/ModelsGenesis): edges of up to a tenth of the image,
    so that 10,000 windows cover a volume of any size about 1.7 times.
    """

    op: Literal["local_shuffling"] = "local_shuffling"
    probability: Probability = 0.5
    # drawn evenly; edges are shares of the image's, each drawn evenly
    windows: CountRange = (10_000, 10_000)
    edge: ShareRange = (0.0, 0.1)

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """A new image, shuffled."""
        z, y, x = image.shape[1:]
        windows = draw_blocks((z, y, x), draws.integer(*self.windows), self.edge, draws, largest=2)
        return taken(image, shuffled_voxels((z, y, x), windows, draws.integer(0, 2**62)))


@settings
class Swap:
    """Pairs of patches change places, one pair after the other.

    Source: Chen et al. 2019, context restoration, https://doi.org/10.1016/j.media.2019.101539, algorithm 1;
    TorchIO's RandomSwap. Differs from them: the two of a pair lie apart along an axis that is drawn first,
    instead of being drawn until they do not overlap; and patches are shares of the image.
    """

    op: Literal["swap"] = "swap"
    probability: Probability = 0.2
    # about a tenth of the volume moves (TorchIO: 15 voxels, 100 times, in a whole brain)
    times: CountRange = (50, 50)
    # of a patch, as a share of the image's: two must fit
    edge: Annotated[float, Field(gt=0, le=0.5)] = 0.1

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image with its patches swapped; a single voxel has nothing to swap with."""
        z, y, x = image.shape[1:]
        if (z, y, x) == (1, 1, 1):
            return image
        first, second = draw_pairs((z, y, x), draws.integer(*self.times), self.edge, draws)
        return swap_blocks(image, list(zip(as_slices(first), as_slices(second), strict=True)))


def taken(image: Tensor, voxels: np.ndarray) -> Tensor:
    """An image (C, Z, Y, X) made of the voxels of another one, by their flat indices (Z, Y, X)."""
    index = torch.from_numpy(voxels.reshape(-1)).to(image.device)
    return image.flatten(1).index_select(1, index).view(image.shape)


def shuffled_voxels(shape: Shape, windows: np.ndarray, seed: int) -> np.ndarray:
    """Flat indices (Z, Y, X), int32, of where each voxel comes from; windows are (n, 2, 3): start, edges.

    In every window in turn its own voxels lie in an order drawn evenly (Fisher and Yates).
    """
    # numba takes half a second to import
    from .shuffling_compiled import shuffle

    voxels = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    order = np.empty(windows[:, 1].prod(axis=1).max(), np.int32)
    shuffle(voxels, windows, order, np.uint64(seed))
    return voxels


def draw_pairs(shape: Shape, times: int, edge: float, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Two lots of blocks (times, 2, 3) of one size; those of a pair never overlap.

    Args:
        shape: of the image, at least two voxels along some axis.
        times: how many pairs.
        edge: of the blocks, as a share of the image's (at most a half), no less than one voxel.
        draws: where the numbers come from.
    """
    extent, size = np.array(shape), edge_voxels(shape, edge)
    starts = draws.numbers.integers(0, extent - size, (2, times, 3), endpoint=True)
    apart = draws.numbers.choice(np.flatnonzero(extent >= 2 * size), times)
    low, high = _apart((extent - 2 * size)[apart], draws)
    rows, flipped = np.arange(times), draws.numbers.random(times) < 0.5
    starts[0, rows, apart] = np.where(flipped, high + size[apart], low)
    starts[1, rows, apart] = np.where(flipped, low, high + size[apart])
    blocks = np.stack([starts, np.broadcast_to(size, starts.shape)], axis=2)
    return blocks[0], blocks[1]


def _apart(room: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (n,) from 0 to `room`, both included, the first no larger; every such pair as often."""
    # two different ones of room + 2 numbers, in their order, the larger less one
    first = draws.numbers.integers(0, room + 1, endpoint=True)
    second = draws.numbers.integers(0, room, endpoint=True)
    second = second + (second >= first)
    return np.minimum(first, second), np.maximum(first, second) - 1


def swap_blocks(image: Tensor, pairs: Sequence[tuple[Block, Block]]) -> Tensor:
    """The image (C, Z, Y, X) itself after each pair in turn has changed places; blocks are of one size."""
    for one, other in pairs:
        kept = image[:, *one].clone()
        image[:, *one] = image[:, *other]
        image[:, *other] = kept
    return image
