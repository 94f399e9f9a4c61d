"""Where the windows lie in which a volume is predicted."""

import math
from dataclasses import dataclass
from functools import cached_property

from ..data.volume import Shape

Starts = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Windows of one `patch` that cover an image of `shape` (z, y, x), overlapping by at least `overlap`.

    Their number and places are nnU-Net's. An image smaller than the patch is padded on both sides; all places
    are those in the `padded` image.
    """

    shape: Shape
    patch: Shape
    overlap: float = 0.5

    @cached_property
    def padded(self) -> Shape:
        """Extent with the padding."""
        z, y, x = (max(n, p) for n, p in zip(self.shape, self.patch, strict=True))
        return z, y, x

    @cached_property
    def before(self) -> Shape:
        """The padding before the first voxel."""
        z, y, x = ((p - n) // 2 for p, n in zip(self.padded, self.shape, strict=True))
        return z, y, x

    @cached_property
    def inner(self) -> tuple[slice, slice, slice]:
        """Where the image lies."""
        z, y, x = (slice(b, b + n) for b, n in zip(self.before, self.shape, strict=True))
        return z, y, x

    @cached_property
    def starts(self) -> tuple[Starts, Starts, Starts]:
        """First voxels of the windows along z, y and x."""
        z, y, x = (_starts(n, p, self.overlap) for n, p in zip(self.padded, self.patch, strict=True))
        return z, y, x

    @property
    def count(self) -> int:
        """The number of windows."""
        return math.prod(len(axis) for axis in self.starts)

    def touching(self, rows: slice) -> Starts:
        """The starts along y of the windows that share rows (of the padded image) with these."""
        return tuple(y for y in self.starts[1] if y < rows.stop and y + self.patch[1] > rows.start)


def _starts(extent: int, patch: int, overlap: float) -> Starts:
    """Starts along an axis (nnU-Net, `compute_steps_for_sliding_window`): evenly spread, the last at the end.

    They round as numpy does, halves to even.
    """
    count = math.ceil((extent - patch) / max(1, patch * (1 - overlap))) + 1
    return tuple(round(i * ((extent - patch) / max(1, count - 1))) for i in range(count))
