"""Arrays that stay on disk until a part of them is asked for."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# volumes of fewer bytes are read whole: several fit a worker's memory
WHOLE_BYTES = 2**28

Box = tuple[slice, slice, slice, slice]


@dataclass(frozen=True, kw_only=True, eq=False)
class LazyArray:
    """An array (C, Z, Y, X) on disk.

    `read` takes four slices with start and stop inside the array and step 1, and returns that part. `chunk`
    is the extent (z, y, x) of the pieces that the file is stored in: boxes that follow them read least.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype
    chunk: tuple[int, int, int]
    read: Callable[[Box], np.ndarray]

    def __getitem__(self, key: slice | tuple[slice, ...]) -> np.ndarray:
        """The part that the slices (steps of 1) name; absent ones stand for whole axes."""
        given = key if isinstance(key, tuple) else (key,)
        whole = (*given, *[slice(None)] * (4 - len(given)))
        c, z, y, x = (slice(*s.indices(n)[:2]) for s, n in zip(whole, self.shape, strict=True))
        return self.read((c, z, y, x))
