"""Arrays too large for memory, piece by piece."""

from collections.abc import Iterator

from .volume import Shape, Voxels

# of one piece as it lies on disk; float32 copies are made of smaller parts of it
SLAB_BYTES = 2**28
Box = tuple[slice, slice, slice]


def slabs(array: Voxels) -> Iterator[slice]:
    """Ranges of the third axis from last that cover an array (..., Z, Y, X), of one channel each.

    They hold up to `SLAB_BYTES` and end where the chunks of a file do, as far as these are small enough.
    """
    *_, extent, y, x = array.shape
    chunk = getattr(array, "chunk", (1, 1, 1))[0]
    fitting = max(1, SLAB_BYTES // max(1, y * x * array.dtype.itemsize))
    depth = fitting // chunk * chunk or fitting
    for start in range(0, extent, depth):
        yield slice(start, min(start + depth, extent))


def boxes(shape: Shape, size: Shape) -> Iterator[Box]:
    """Boxes of up to `size` (z, y, x) that cover `shape`, z slowest."""
    steps = [range(0, extent, edge) for extent, edge in zip(shape, size, strict=True)]
    for z in steps[0]:
        for y in steps[1]:
            for x in steps[2]:
                starts = (z, y, x)
                a, b, c = (
                    slice(start, min(start + edge, extent))
                    for start, edge, extent in zip(starts, size, shape, strict=True)
                )
                yield a, b, c
