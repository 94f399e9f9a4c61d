"""The passes of `warp` on the CPU: one thread, every voxel of the result once, no memory but the result's.

Along a row of the result the place in the box moves by one constant step. So it is known beforehand which
voxels of a row have all their neighbours in the box, and only the others are tested.
"""

# Shapes: box (C, z, y, x), result (C, Z, Y, X), affine (3, 4), displacement (3, Z, Y, X) or empty for none.

import math

import numpy as np

from .compiled import compiled

Place = tuple[float, float, float]
_ONE = np.uint64(1)
_BUNDLE = 16


@compiled
def _row_start(affine: np.ndarray, k: int, j: int) -> Place:
    """Where in the box a row of the result begins."""
    return (
        affine[0, 0] * k + affine[0, 1] * j + affine[0, 3],
        affine[1, 0] * k + affine[1, 1] * j + affine[1, 3],
        affine[2, 0] * k + affine[2, 1] * j + affine[2, 3],
    )


@compiled
def _along(start: Place, step: Place, i: int) -> Place:
    return start[0] + i * step[0], start[1] + i * step[1], start[2] + i * step[2]


@compiled
def _moved(place: Place, displacement: np.ndarray, k: int, j: int, i: int) -> Place:
    if displacement.size == 0:
        return place
    return (
        place[0] + displacement[0, k, j, i],
        place[1] + displacement[1, k, j, i],
        place[2] + displacement[2, k, j, i],
    )


@compiled
def _inside(start: float, step: float, below: float, first: int, last: int) -> tuple[int, int]:
    """The whole numbers i in [first, last) with 0 <= start + i * step < below, as a range."""
    if step == 0.0:
        return (first, last) if 0.0 <= start < below else (first, first)
    # off the border by more than rounding, however small the steps are
    near, far = -start / step, (below - 1e-9 - start) / step
    if step < 0:
        near, far = far, near
    # one to the safe side: a voxel that is left out is only slower
    begin = math.ceil(min(max(near, -1e9), 1e9)) + 1
    end = math.floor(min(max(far, -1e9), 1e9))
    begin = min(max(first, begin), last)
    return begin, max(begin, min(end, last))


@compiled
def _mixed(box: np.ndarray, place: Place, outside: np.float32) -> np.float32:
    """The interpolated value of a channel (z, y, x) at any place, `outside` where there is no voxel."""
    nz, ny, nx = box.shape
    z, y, x = place
    if not (-1 < z < nz and -1 < y < ny and -1 < x < nx):
        return outside
    z0, y0, x0 = math.floor(z), math.floor(y), math.floor(x)
    total = 0.0
    for corner in range(8):
        i, j, k = corner >> 2, (corner >> 1) & 1, corner & 1
        weight = abs(1 - i - (z - z0)) * abs(1 - j - (y - y0)) * abs(1 - k - (x - x0))
        zi, yj, xk = z0 + i, y0 + j, x0 + k
        inside = 0 <= zi < nz and 0 <= yj < ny and 0 <= xk < nx
        total += weight * (box[zi, yj, xk] if inside else outside)
    return np.float32(total)


@compiled
def _mixed_inside(flat: np.ndarray, plane: int, line: int, place: Place) -> np.float32:
    """The same where all eight neighbours are in the box; `plane` and `line` are its strides."""
    zi, yi, xi = np.int64(place[0]), np.int64(place[1]), np.int64(place[2])
    wz, wy, wx = np.float32(place[0] - zi), np.float32(place[1] - yi), np.float32(place[2] - xi)
    # unsigned, or every index would be tested for counting from the end
    a = np.uint64(zi * plane + yi * line + xi)
    b, c = a + np.uint64(line), a + np.uint64(plane)
    d = c + np.uint64(line)
    near = flat[a] + wx * (flat[a + _ONE] - flat[a])
    near += wy * (flat[b] + wx * (flat[b + _ONE] - flat[b]) - near)
    far = flat[c] + wx * (flat[c + _ONE] - flat[c])
    far += wy * (flat[d] + wx * (flat[d + _ONE] - flat[d]) - far)
    return near + wz * (far - near)


@compiled
def _straight_row(
    box: np.ndarray, start: Place, step: float, first: int, last: int, line: np.ndarray, row: np.ndarray
) -> None:
    """A row inside that runs along the box's last axis: four lines are mixed into one first."""
    z, y = np.int32(start[0]), np.int32(start[1])
    wz, wy = np.float32(start[0] - z), np.float32(start[1] - y)
    one_end, other_end = start[2] + first * step, start[2] + (last - 1) * step
    low, high = int(min(one_end, other_end)), int(max(one_end, other_end)) + 2
    a, b, c, d = box[z, y], box[z, y + 1], box[z + 1, y], box[z + 1, y + 1]
    for x in range(low, high):
        near, far = a[x] + wy * (b[x] - a[x]), c[x] + wy * (d[x] - c[x])
        line[x] = near + wz * (far - near)
    for i in range(first, last):
        place = start[2] + i * step
        xi = np.int64(place)
        row[i] = line[xi] + np.float32(place - xi) * (line[xi + 1] - line[xi])


@compiled
def linear(box: np.ndarray, affine: np.ndarray, outside: np.float32, out: np.ndarray) -> None:
    """Fills `out` with the linearly interpolated patch, float32."""
    channels, nz, ny, nx = box.shape
    _, depth, height, width = out.shape
    step = affine[0, 2], affine[1, 2], affine[2, 2]
    straight = step[0] == 0 and step[1] == 0
    plane, stride = ny * nx, nx
    bundles = -(-depth // _BUNDLE), -(-height // _BUNDLE)
    line = np.empty(nx, np.float32)
    for c in range(channels):
        flat = box[c].reshape(-1)
        # rows in bundles: neighbours read the same voxels while these are in the processor's cache
        for n in range(bundles[0] * bundles[1]):
            first_k, first_j = n // bundles[1] * _BUNDLE, n % bundles[1] * _BUNDLE
            for k in range(first_k, min(first_k + _BUNDLE, depth)):
                for j in range(first_j, min(first_j + _BUNDLE, height)):
                    start, row = _row_start(affine, k, j), out[c, k, j]
                    first, last = _inside(start[0], step[0], nz - 1.0, 0, width)
                    first, last = _inside(start[1], step[1], ny - 1.0, first, last)
                    first, last = _inside(start[2], step[2], nx - 1.0, first, last)
                    if straight and last > first:
                        _straight_row(box[c], start, step[2], first, last, line, row)
                    else:
                        for i in range(first, last):
                            row[i] = _mixed_inside(flat, plane, stride, _along(start, step, i))
                    for i in range(first):
                        row[i] = _mixed(box[c], _along(start, step, i), outside)
                    for i in range(last, width):
                        row[i] = _mixed(box[c], _along(start, step, i), outside)


@compiled
def linear_displaced(
    box: np.ndarray, affine: np.ndarray, displacement: np.ndarray, outside: np.float32, out: np.ndarray
) -> None:
    """As `linear`, with every voxel displaced."""
    channels, nz, ny, nx = box.shape
    _, depth, height, width = out.shape
    step = affine[0, 2], affine[1, 2], affine[2, 2]
    plane, stride = ny * nx, nx
    for c in range(channels):
        flat = box[c].reshape(-1)
        for k in range(depth):
            for j in range(height):
                start = _row_start(affine, k, j)
                for i in range(width):
                    place = _moved(_along(start, step, i), displacement, k, j, i)
                    z, y, x = place
                    if 0 <= z < nz - 1 and 0 <= y < ny - 1 and 0 <= x < nx - 1:
                        out[c, k, j, i] = _mixed_inside(flat, plane, stride, place)
                    else:
                        out[c, k, j, i] = _mixed(box[c], place, outside)


@compiled
def nearest(
    box: np.ndarray, affine: np.ndarray, displacement: np.ndarray, outside: int, out: np.ndarray
) -> None:
    """Fills `out` with the nearest voxels, whole numbers."""
    channels, nz, ny, nx = box.shape
    _, depth, height, width = out.shape
    step = affine[0, 2], affine[1, 2], affine[2, 2]
    for c in range(channels):
        flat = box[c].reshape(-1)
        for k in range(depth):
            for j in range(height):
                start, row = _row_start(affine, k, j), out[c, k, j]
                for i in range(width):
                    z, y, x = _moved(_along(start, step, i), displacement, k, j, i)
                    # voxel n reaches from n - 0.5 to n + 0.5
                    z, y, x = z + 0.5, y + 0.5, x + 0.5
                    if 0 <= z < nz and 0 <= y < ny and 0 <= x < nx:
                        row[i] = flat[np.uint64((np.int64(z) * ny + np.int64(y)) * nx + np.int64(x))]
                    else:
                        row[i] = outside


@compiled
def _largest(box: np.ndarray, place: Place, outside: int, values: np.ndarray, weights: np.ndarray) -> int:
    """The whole number with the largest interpolated share of a channel, the lowest of those alike.

    `values` and `weights` (8,) are written over.
    """
    nz, ny, nx = box.shape
    z, y, x = place
    z0, y0, x0 = math.floor(z), math.floor(y), math.floor(x)
    for corner in range(8):
        i, j, k = corner >> 2, (corner >> 1) & 1, corner & 1
        inside = 0 <= z0 + i < nz and 0 <= y0 + j < ny and 0 <= x0 + k < nx
        values[corner] = box[z0 + i, y0 + j, x0 + k] if inside else outside
        weights[corner] = abs(1 - i - (z - z0)) * abs(1 - j - (y - y0)) * abs(1 - k - (x - x0))
    best, most = values[0], -1.0
    for corner in range(8):
        share = 0.0
        for other in range(8):
            if values[other] == values[corner]:
                share += weights[other]
        # sums that are alike differ by rounding
        if share > most + 1e-9 or (share > most - 1e-9 and values[corner] < best):
            best, most = values[corner], share
    return best


@compiled
def largest_share(
    box: np.ndarray, affine: np.ndarray, displacement: np.ndarray, outside: int, out: np.ndarray
) -> None:
    """Fills `out` with the whole number of the largest interpolated share, the lowest of those alike."""
    channels, nz, ny, nx = box.shape
    _, depth, height, width = out.shape
    step = affine[0, 2], affine[1, 2], affine[2, 2]
    plane = ny * nx
    values, weights = np.empty(8, np.int64), np.empty(8, np.float64)
    for c in range(channels):
        flat = box[c].reshape(-1)
        for k in range(depth):
            for j in range(height):
                start, row = _row_start(affine, k, j), out[c, k, j]
                for i in range(width):
                    place = _moved(_along(start, step, i), displacement, k, j, i)
                    z, y, x = place
                    if 0 <= z < nz - 1 and 0 <= y < ny - 1 and 0 <= x < nx - 1:
                        near = np.uint64(np.int64(z) * plane + np.int64(y) * nx + np.int64(x))
                        far, value = near + np.uint64(plane), flat[near]
                        # most voxels have neighbours of their own kind only
                        if (
                            flat[near + _ONE] == value
                            and flat[near + np.uint64(nx)] == value
                            and flat[near + np.uint64(nx + 1)] == value
                            and flat[far] == value
                            and flat[far + _ONE] == value
                            and flat[far + np.uint64(nx)] == value
                            and flat[far + np.uint64(nx + 1)] == value
                        ):
                            row[i] = value
                            continue
                    row[i] = _largest(box[c], place, outside, values, weights)
