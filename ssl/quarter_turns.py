"""Quarter turns of views: which ones an extent allows, and views turned by them.

A turn by 90 or 270 degrees maps a plane onto itself where it is square and its voxels are as long along one
axis as along the other; in any other plane the grid would tell the turn, and only the half turn is left. Two
axes are taken for alike where the network pools them alike and, as far as the spacing is known, it is the
same within a tenth. A plane that is not square is cropped to one where that brings more turns and leaves
half of the voxels.
"""

# Shapes: B = batch, C = channels.

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.errors import UserError
from ..data.volume import Shape, Triple
from .method import Scope

AXES = (0, 1, 2)
# of the voxels of a view: what a cropping leaves at least
LEAST_KEPT = 0.5
# how many times as long as along one axis a voxel may be along another one that is taken for alike
MOST_STRETCHED = 1.1


class Turn(NamedTuple):
    """`quarters` (0 to 3) of a turn about an axis (0: z), from the first of the other two to the second."""

    axis: int
    quarters: int


@dataclass(frozen=True, kw_only=True)
class QuarterTurns:
    """Different `turns`, of which the first is none, for views that are cropped to an `extent`."""

    extent: Shape
    turns: tuple[Turn, ...]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """The numbers (count,) of so many turns, each of them as likely."""
        return torch.randint(len(self.turns), (count,), generator=generator)

    def turned(self, views: Tensor, numbers: Tensor) -> Tensor:
        """Views (B, C, Z, Y, X), each cropped and turned by the turn of its number (B,)."""
        chosen = [self.turns[number] for number in numbers.tolist()]
        cropped = centre(views, self.extent)
        return torch.stack([turned(view, turn) for view, turn in zip(cropped, chosen, strict=True)])


def turns_of(scope: Scope, axes: Sequence[int] = AXES) -> QuarterTurns:
    """The turns about these axes of an item's first view; see `possible_turns`."""
    strides = scope.architecture.topology.strides
    z, y, x = (math.prod(stride[axis] for stride in strides) for axis in AXES)
    return possible_turns(scope.shapes[0], (z, y, x), axes, scope.spacing)


def possible_turns(
    extent: Shape, multiple: Shape, axes: Sequence[int] = AXES, spacing: Triple | None = None
) -> QuarterTurns:
    """The turns of views of an extent about some axes (0: z, 1: y, 2: x).

    Where several croppings bring as many turns, that which leaves most voxels is taken.

    Args:
        extent: of the views, in multiples of `multiple`; what they are cropped to is one too.
        multiple: the product of the network's strides.
        axes: about which views may be turned.
        spacing: of a volume's voxels, which those of views are as long as or a multiple of.

    Raises:
        UserError: where every view would stay as it is.
    """
    grid, least = _Grid(multiple, spacing), LEAST_KEPT * math.prod(extent)
    kept = [shape for shape in _croppings(extent, grid) if math.prod(shape) >= least]
    best = max(kept, key=lambda shape: (len(_turns(shape, grid, axes)), math.prod(shape)))
    turns = _turns(best, grid, axes)
    if len(turns) == 1:
        raise UserError(
            f"views of {extent} voxels",
            found=f"nothing to turn about {' or '.join('zyx'[axis] for axis in axes)}",
            rule="A view is turned in a plane of more than one row and column",
            remedy="Choose a larger patch, or a method that turns no views",
        )
    return QuarterTurns(extent=best, turns=turns)


def turned(image: Tensor, turn: Turn) -> Tensor:
    """The image (..., Z, Y, X), turned."""
    first, second = _plane(turn.axis)
    return image.rot90(turn.quarters, (first - 3, second - 3))


def centre(images: Tensor, extent: Shape) -> Tensor:
    """The middle (..., Z, Y, X) of images, of the given extent."""
    starts = [(n - kept) // 2 for n, kept in zip(images.shape[-3:], extent, strict=True)]
    z, y, x = (slice(start, start + kept) for start, kept in zip(starts, extent, strict=True))
    return images[..., z, y, x]


class _Grid(NamedTuple):
    """What voxels lie on: the product of the strides of each axis, and its spacing where it is known."""

    multiple: Shape
    spacing: Triple | None

    def alike(self, axes: Sequence[int]) -> bool:
        """Whether all of these axes may change places."""
        sizes = [self.spacing[axis] for axis in axes] if self.spacing else [1.0]
        return len({self.multiple[axis] for axis in axes}) == 1 and max(sizes) <= MOST_STRETCHED * min(sizes)


def _plane(axis: int) -> tuple[int, int]:
    """The axes of the plane in which a turn about an axis goes."""
    first, second = (a for a in AXES if a != axis)
    return first, second


def _turns(extent: Shape, grid: _Grid, axes: Sequence[int]) -> tuple[Turn, ...]:
    """All turns that leave the extent, none first."""
    turns = [Turn(axis=0, quarters=0)]
    for axis in axes:
        first, second = _plane(axis)
        # in a single row a half turn would be a mirror image
        if min(extent[first], extent[second]) == 1:
            continue
        square = extent[first] == extent[second] and grid.alike((first, second))
        turns += [Turn(axis=axis, quarters=quarters) for quarters in ((1, 2, 3) if square else (2,))]
    return tuple(turns)


def _croppings(extent: Shape, grid: _Grid) -> Iterator[Shape]:
    """The extent, and what is left when axes that are alike are cropped to the shortest of them."""
    yield extent
    for cropped in (*combinations(AXES, 2), AXES):
        if grid.alike(cropped):
            side = min(extent[axis] for axis in cropped)
            z, y, x = (side if axis in cropped else extent[axis] for axis in AXES)
            yield z, y, x
