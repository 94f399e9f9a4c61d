"""The passes over weighted sums of windows on the CPU: each voxel is read and written once."""

# Shapes: total (K, D, Y, X), of which slice z stands at z % D; window (K, z, y, x); weight (z, y, x), that of
# every window. `some` are the slices, from and to, of the window or of `out` that are worked on: threads take
# some each.

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
    weight: np.ndarray,
    starts_z: np.ndarray,
    starts_y: np.ndarray,
    starts_x: np.ndarray,
    first: int,
    out: np.ndarray,
) -> None:
    """Fills `out` (K, z, Y, X) with the means of the slices from `first` on, and clears their sums.

    The starts are those of all windows.
    """
    classes, depth, height, width = total.shape
    nz, ny, nx = weight.shape
    # weights summed over the windows that touch a row: those at one start along x, and all
    at_one, at_all = np.empty(nx, np.float32), np.empty(width, np.float32)
    for k in range(some[0], some[1]):
        z = first + k
        for y in range(height):
            at_one[:] = 0
            for start_z in starts_z:
                if start_z <= z < start_z + nz:
                    for start_y in starts_y:
                        if start_y <= y < start_y + ny:
                            at_one += weight[z - start_z, y - start_y]
            at_all[:] = 0
            for start_x in starts_x:
                at_all[start_x : start_x + nx] += at_one
            for c in range(classes):
                row, values = total[c, z % depth, y], out[c, k, y]
                for i in range(width):
                    values[i] = row[i] / at_all[i]
                    row[i] = 0
