"""The passes over weighted sums of windows on the CPU: each voxel is read and written once."""

# Shapes: total (K, D, Y, X), of which slice z stands at z % D; window (K, z, y, x); weight (z, y, x);
# rows (z, y, X): the weights of all windows beside each other along x, summed. `some` are the slices, from
# and to, of the window or of `out` that are worked on: threads take some each.

import numpy as np

from ..data.compiled import compiled


@compiled
def add(
    some: tuple[int, int],
    total: np.ndarray,
    window: np.ndarray,
    weight: np.ndarray,
    z: int,
    y: int,
    x: int,
) -> None:
    """Adds a window times its weight at the place of its first voxel."""
    depth = total.shape[1]
    classes, _, ny, nx = window.shape
    for k in range(some[0], some[1]):
        ring = (z + k) % depth
        for j in range(ny):
            by = weight[k, j]
            # all classes while the weights are in the cache
            for c in range(classes):
                row, values = total[c, ring, y + j, x : x + nx], window[c, k, j]
                for i in range(nx):
                    row[i] += values[i] * by[i]


@compiled
def divide(
    some: tuple[int, int],
    total: np.ndarray,
    rows: np.ndarray,
    starts_z: np.ndarray,
    starts_y: np.ndarray,
    first: int,
    out: np.ndarray,
) -> None:
    """Fills `out` (K, z, Y, X) with the means of the slices from `first` on, and clears their sums.

    `starts_z` and `starts_y` are those of all windows.
    """
    classes, depth, height, width = total.shape
    nz, ny, _ = rows.shape
    weight = np.empty(width, np.float32)
    for k in range(some[0], some[1]):
        z = first + k
        for y in range(height):
            weight[:] = 0
            for start_z in starts_z:
                if start_z <= z < start_z + nz:
                    for start_y in starts_y:
                        if start_y <= y < start_y + ny:
                            weight += rows[z - start_z, y - start_y]
            for c in range(classes):
                row, values = total[c, z % depth, y], out[c, k, y]
                for i in range(width):
                    values[i] = row[i] / weight[i]
                    row[i] = 0
