"""Boxes at random places in an image, for what is masked, filled or moved."""

from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from ..volume import Shape
from .draws import Draws
from .operations import ascending

Share = Annotated[float, Field(ge=0, le=1)]
ShareRange = Annotated[tuple[Share, Share], AfterValidator(ascending)]
Count = Annotated[int, Field(ge=1, le=100_000)]
CountRange = Annotated[tuple[Count, Count], AfterValidator(ascending)]
Block = tuple[slice, slice, slice]


def draw_blocks(
    shape: Shape, count: int, edge: tuple[float, float], draws: Draws, *, largest: int = 1
) -> np.ndarray:
    """First voxels and edges (count, 2, 3) of boxes anywhere in an image, each edge drawn by itself.

    Args:
        shape: of the image (z, y, x).
        count: how many.
        edge: range of the edges, as shares of the image's; rounded down, and no less than one voxel.
        draws: where the numbers come from.
        largest: voxels that edges may have at least, in however small an image, up to the image's own.
    """
    extent = np.array(shape)
    low, high = (edge_voxels(shape, share) for share in edge)
    high = np.maximum(high, np.minimum(largest, extent))
    edges = draws.numbers.integers(low, high, (count, 3), endpoint=True)
    starts = draws.numbers.integers(0, extent - edges, endpoint=True)
    return np.stack([starts, edges], axis=1)


def edge_voxels(shape: Shape, share: float) -> np.ndarray:
    """The share of each edge of an image in whole voxels (3,), rounded down, no less than one."""
    # a tenth of 30 is 3, whatever floating point makes of it
    return np.maximum(1, np.floor(np.array(shape) * share + 1e-6)).astype(np.int64)


def as_slices(blocks: np.ndarray) -> list[Block]:
    """The blocks (n, 2, 3) as slices of a volume's axes."""
    return [
        (slice(z, z + dz), slice(y, y + dy), slice(x, x + dx)) for (z, y, x), (dz, dy, dx) in blocks.tolist()
    ]
