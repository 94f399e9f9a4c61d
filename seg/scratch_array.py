"""Arrays in memory, or in a file while they are filled where they are too large for that."""

import math
import os
import tempfile
from pathlib import Path

import numpy as np


def scratch_array(shape: tuple[int, ...], dtype: np.dtype, *, folder: Path, most: int) -> np.ndarray:
    """An array in memory, or if it has over `most` bytes in a file without name on the disk of a folder.

    Raises OSError where that disk is too full for all of it.
    """
    size = math.prod(shape) * dtype.itemsize
    if size <= most:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        # a disk that is full later would end the process
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype, "w+", shape=shape)
