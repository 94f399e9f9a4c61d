"""Connected components of a mask: voxels that share a face, an edge or a corner are of one (26 neighbours).

Holes are the counterpart: background is of one hole where it touches by faces (6 neighbours), so that no hole
leaks through a corner at which the mask holds together.
"""

from typing import Literal

import numpy as np
from scipy import ndimage

Keep = Literal["all", "largest", "otsu"]

_TOUCHING = np.ones((3, 3, 3), bool)
# Biom3d removes what is below so much of the threshold (keep_big_volumes): of objects of one kind, however
# they vary, none goes
_OTSU_SHARE = 0.3


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Components of a mask (Z, Y, X): their numbers from 1, int32, 0 outside; voxels of each, (n,)."""
    numbers = np.empty(mask.shape, np.int32)
    count = int(ndimage.label(mask, _TOUCHING, output=numbers))  # type: ignore[arg-type]
    return numbers, np.bincount(numbers.ravel(), minlength=count + 1)[1:]


def kept(mask: np.ndarray, keep: Keep) -> np.ndarray:
    """The mask with "all" components, the "largest" (the first of equals), or those that are no noise.

    "otsu" removes components below 0.3 of the Otsu threshold of the logarithms of all their volumes (Biom3d
    has that of the volumes, on which a single large component decides).
    """
    if keep == "all":
        return mask
    numbers, voxels = components(mask)
    if len(voxels) < 2:
        return mask
    if keep == "largest":
        return numbers == 1 + int(voxels.argmax())
    return _of(numbers, voxels >= _OTSU_SHARE * np.exp(otsu(np.log(voxels))))


def at_least(mask: np.ndarray, voxels: float) -> np.ndarray:
    """The mask without components of fewer voxels."""
    if voxels <= 1:
        return mask
    numbers, found = components(mask)
    return _of(numbers, found >= voxels)


def filled(mask: np.ndarray) -> np.ndarray:
    """The mask with its holes: background from which no way by faces leads to the border of the volume.

    Axes of one voxel have no border: the holes of a single slice are those in its plane.
    """
    extended = tuple(slice(None) if extent > 1 else 0 for extent in mask.shape)
    # an array of no axes is no image
    whole = ndimage.binary_fill_holes(mask[extended]) if mask.size > 1 else mask
    return np.reshape(whole, mask.shape)  # type: ignore[arg-type]


def otsu(values: np.ndarray) -> float:
    """The threshold, midway between two values, that parts them into the two groups furthest apart.

    Source: Otsu 1979, the largest variance between classes, over every split (n,) rather than a histogram. Of
    values that are all the same it is that value.
    """
    rising = np.sort(np.asarray(values, np.float64))
    below = np.arange(1, len(rising))
    sums = np.cumsum(rising)[:-1]
    apart = (sums / below - (rising.sum() - sums) / (len(rising) - below)) ** 2
    between = below * (len(rising) - below) * apart
    if not between.size or between.max() <= 0:
        return float(rising[0])
    best = int(between.argmax())
    return float(rising[best : best + 2].mean())


def _of(numbers: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The voxels whose component is wanted, (n,) bool from the first component on."""
    return np.concatenate([[False], wanted])[numbers]
