"""Cells of a view: a grid of smaller images cut from it, each of an extent that the network takes.

A cell lies in its place, an equal share of the view, and leaves a gap around itself: where neighbours touch,
continued edges and textures tell how they lie, and nothing else has to be learned (Doersch et al. 2015,
https://arxiv.org/abs/1505.05192, section 3.1; Noroozi and Favaro 2016, https://arxiv.org/abs/1603.09246).
Cells may also overlap, for tasks that want it.

A share of a view is seldom a multiple of the network's strides, so a cell is interpolated to the nearest
extent that is, and at which no level of the network is left with two voxels: after instance normalisation
these are +1 and -1 whatever they were, and pass no gradient on. Along a thin axis there are fewer cells:
never so many that the strides alone would enlarge one more than twice.
"""

# Shapes: B = batch, C = channels, N = cells of a view, in the order of z, y, x.

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise, product

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.volume import Shape
from .method import Scope

# of a product that is a whole number but for its rounding
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the cells of a view lie: `counts` of them per axis, each of `size` voxels of the view.

    `starts[axis][i]` are the lowest and the highest index at which cell i may begin. All are resampled to
    `extent`.
    """

    counts: Shape
    size: Shape
    extent: Shape
    starts: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def number(self) -> int:
        """How many cells a view has."""
        return math.prod(self.counts)

    def apart(self, axis: int) -> int:
        """How many cells further along an axis one shares no voxel with this one, wherever both lie."""
        starts, size = self.starts[axis], self.size[axis]
        for steps in range(1, len(starts)):
            if all(after[0] - this[1] >= size for this, after in zip(starts, starts[steps:], strict=False)):
                return steps
        return len(starts)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """The first voxel (z, y, x) of every cell, (B, N, 3), each drawn for itself."""
        low, high = (
            torch.cartesian_prod(*(torch.tensor([s[end] for s in of_axis]) for of_axis in self.starts))
            for end in (0, 1)
        )
        # float32 could round up to the next whole number
        share = torch.rand(batch, self.number, 3, generator=generator, dtype=torch.float64)
        return low + (share * (high - low + 1)).long()


def lay_grid(
    scope: Scope,
    counts: Sequence[Sequence[int]],
    *,
    gap: float = 0.0,
    jitter: float = 0.0,
    overlap: float = 0.0,
) -> Grid:
    """The cells of a method's first view.

    Args:
        scope: the network and its views.
        counts: per axis the numbers of cells that are allowed, best first; the last is always possible.
        gap: the share of its place, per axis, that a cell leaves free.
        jitter: the share of this gap within which a cell lies anywhere; 0 keeps it in the middle.
        overlap: the share of a cell's place by which it reaches into the next one; without gap.
    """
    strides = scope.architecture.topology.strides
    size, starts = [], []
    for axis, voxels in enumerate(scope.shapes[0]):
        multiple = math.prod(stride[axis] for stride in strides)
        number = next((n for n in counts[axis] if _fits(voxels, n, multiple, gap, overlap)), counts[axis][-1])
        size.append(_size(voxels, number, gap, overlap))
        starts.append(_starts(voxels, number, size[-1], jitter, overlap))
    z, y, x = (len(of_axis) for of_axis in starts)
    return Grid(
        counts=(z, y, x), size=tuple(size), extent=_extent(tuple(size), strides), starts=tuple(starts)
    )


def _extent(size: Shape, strides: Sequence[Shape]) -> Shape:
    """The allowed extent that is nearest, by the factors by which a cell is stretched."""
    none: Shape = (1, 1, 1)
    # of every level, from the finest
    scales = list(accumulate(strides, _times, initial=none))
    options = (
        [m * k for k in range(max(1, s // m), -(-s // m) + 2)] for s, m in zip(size, scales[-1], strict=True)
    )
    allowed = [
        (z, y, x)
        for z, y, x in product(*options)
        if all(z * y * x != 2 * math.prod(scale) for scale in scales)
    ]
    # as fractions: which of two is nearer must not hang on rounding
    return min(
        allowed, key=lambda e: math.prod(Fraction(max(n, s), min(n, s)) for n, s in zip(e, size, strict=True))
    )


def _times(a: Shape, b: Shape) -> Shape:
    z, y, x = (m * n for m, n in zip(a, b, strict=True))
    return z, y, x


def _fits(voxels: int, number: int, multiple: int, gap: float, overlap: float) -> bool:
    """Whether cells are no smaller than a voxel, and need not be enlarged more than twice."""
    return number == 1 or (voxels >= number and 2 * _size(voxels, number, gap, overlap) >= multiple)


def _size(voxels: int, number: int, gap: float, overlap: float) -> int:
    """A single cell has no neighbour to keep away from: it is the whole of the axis."""
    place = voxels / (number + overlap)
    return voxels if number == 1 else max(1, math.floor(place * (1 - gap + overlap) + _ROUNDING))


def _starts(
    voxels: int, number: int, size: int, jitter: float, overlap: float
) -> tuple[tuple[int, int], ...]:
    if number == 1:
        return ((0, 0),)
    place = voxels / (number + overlap)
    borders = [math.floor(i * place + _ROUNDING) for i in range(number + 1)]
    starts = []
    for this, following in pairwise(borders):
        free = max(0, following - this - size)
        # rounded up: of the least gap a voxel is left where there is any
        low = math.ceil((1 - jitter) * free / 2 - _ROUNDING)
        starts.append((this + low, this + max(low, free - low)))
    return tuple(starts)


def cut_cells(view: Tensor, grid: Grid, generator: torch.Generator) -> Tensor:
    """The cells (B, N, C, z, y, x) of views (B, C, Z, Y, X), in places drawn anew for each of them."""
    return cells_at(view, grid.draw(len(view), generator), grid)


def cells_at(view: Tensor, starts_BN3: Tensor, grid: Grid) -> Tensor:
    """Parts (B, N, C, z, y, x) of views, as large as cells of the grid, that begin at these voxels."""
    dz, dy, dx = grid.size
    cells = torch.stack(
        [
            image[:, z : z + dz, y : y + dy, x : x + dx]
            for image, of_image in zip(view, starts_BN3.tolist(), strict=True)
            for z, y, x in of_image
        ]
    )
    if grid.size != grid.extent:
        cells = F.interpolate(cells, grid.extent, mode="trilinear", align_corners=False)
    return cells.unflatten(0, starts_BN3.shape[:2])


def standardised(cells: Tensor) -> Tensor:
    """Every channel of every cell (..., z, y, x) with mean 0 and deviation 1; a flat one is 0.

    Brightness and contrast are alike in neighbours, and tell how they lie without anything that is in them
    (the "low level statistics" of Noroozi and Favaro 2016).
    """
    space = (-3, -2, -1)
    centred = cells - cells.mean(dim=space, keepdim=True)
    # below this it is rounding that varies
    return centred / centred.square().mean(dim=space, keepdim=True).sqrt().clamp_min(1e-4)
