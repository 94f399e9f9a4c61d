"""Where patches lie in a volume."""

import numpy as np

from .volume import Shape, Voxels


def random_start(shape: Shape, patch: Shape, rng: np.random.Generator) -> np.ndarray:
    """First voxel (3,) of a patch around a voxel drawn evenly, moved inside where it reached over the border.

    So voxels at the border are seen at least half as often along each axis as those in the middle; were the
    start drawn evenly, the outermost would be seen once where those are seen as often as the patch is long.
    Where the volume is smaller than the patch it lies whole inside, anywhere.
    """
    slack = np.subtract(shape, patch)
    around = rng.integers(0, shape) - np.array(patch) // 2
    anywhere = rng.integers(np.minimum(slack, 0), 0, endpoint=True)
    return np.where(slack >= 0, np.clip(around, 0, np.maximum(slack, 0)), anywhere)


def read_box(array: Voxels, start: np.ndarray, size: Shape, outside: int = 0) -> np.ndarray:
    """The box of the last three axes of a store's array, `outside` where it reaches over the border.

    0 is the mean of a z-scored image and the background of a label map. Of an array in memory it is a view
    where it lies inside.
    """
    lead, extent = array.shape[:-3], np.array(array.shape[-3:])
    low, high = np.maximum(start, 0), np.minimum(start + size, extent)
    if (high <= low).any():
        return np.full((*lead, *size), outside, dtype=array.dtype)
    source = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    inside = array[(slice(None),) * len(lead) + source]
    if inside.shape[-3:] == tuple(size):
        return inside
    out = np.full((*lead, *size), outside, dtype=array.dtype)
    target = tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))
    out[(..., *target)] = inside
    return out
