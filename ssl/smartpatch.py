"""SmartPatch: where the views of a volume lie.

Source: the SmartPatch of the Biom3d thesis (Mougeot 2023, chapter on self-supervision): early in training
one box is nearly the whole volume and the other lies in it; late, both have the patch's size and lie apart.
We differ in that the overlap is what it says, a share of the smaller box's volume, and is met by
construction, without trying again; in that boxes keep the aspect of the patch; and in that sizes are
continuous, as each view is interpolated once.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from ..data.settings import Probability, settings
from ..data.volume import Shape

Factor = Annotated[float, Field(gt=0, le=4)]


@settings
class Ramp:
    """A number between 0 and 1 that goes in a straight line from `start` to `end` over the training."""

    start: Probability
    end: Probability

    def at(self, progress: float) -> float:
        """Its value after the share `progress` of the training."""
        return self.start + (self.end - self.start) * progress


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the smaller end of a range comes first")
    return bounds


@settings
class SmartPatchConfig:
    """Sizes of the two boxes, and how much they overlap at least.

    The second box has the extent of the patch; the first one is larger: `reach` 0 is the patch, 1 the
    largest box of its aspect that fits into the volume. Both are then multiplied by a factor drawn from
    `zoom`, evenly on a logarithmic scale. `overlap` is the least share of the smaller box's volume that
    lies in the other one, before each view is turned on its own; with 0 they still touch. A method with one
    view gets the first box.
    """

    reach: Ramp = Ramp(start=1.0, end=0.0)
    zoom: Annotated[tuple[Factor, Factor], AfterValidator(_ascending)] = (0.7, 1.0)
    overlap: Ramp = Ramp(start=1.0, end=0.25)


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box in a volume: `start` and `size` (z, y, x), in voxels; voxel i reaches from i to i + 1.

    It lies inside the volume; along an axis on which it is larger, the volume lies inside it.
    """

    start: np.ndarray
    size: np.ndarray

    def overlap(self, other: "Box") -> float:
        """Share of the smaller box's volume that lies in the other."""
        low = np.maximum(self.start, other.start)
        high = np.minimum(self.start + self.size, other.start + other.size)
        return float(np.maximum(high - low, 0).prod() / min(self.size.prod(), other.size.prod()))


def draw_boxes(
    extent: Shape,
    patch: Shape,
    count: int,
    progress: float,
    config: SmartPatchConfig,
    rng: np.random.Generator,
) -> tuple[Box, ...]:
    """One or two boxes of a volume of `extent`, at the share `progress` of the training."""
    fits = max(1.0, float(np.min(np.divide(extent, patch))))
    factors = [1 + config.reach.at(progress) * (fits - 1), 1.0][:count]
    low, high = np.log(config.zoom)
    sizes = [np.array(patch) * factor * np.exp(rng.uniform(low, high)) for factor in factors]
    if count == 1:
        return (Box(start=_place(extent, sizes[0], rng), size=sizes[0]),)
    # they have one aspect, so that one of them is the larger along every axis
    order = np.argsort([size.prod() for size in sizes])[::-1]
    large, small = sizes[order[0]], sizes[order[1]]
    first = Box(start=_place(extent, large, rng), size=large)
    second = _overlapping(first, extent, small, config.overlap.at(progress), rng)
    return (first, second) if order[0] == 0 else (second, first)


def padded_share(extent: Shape, patch: Shape, config: SmartPatchConfig) -> float:
    """Share of a view that lies outside a volume of `extent`, before it is turned; at the middle zoom."""
    size = np.array(patch) * np.sqrt(np.prod(config.zoom))
    return 1 - float(np.minimum(1, extent / size).prod())


def _place(extent: Shape, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    slack = extent - size
    return rng.uniform(np.minimum(slack, 0), np.maximum(slack, 0))


def _overlapping(
    first: Box, extent: Shape, size: np.ndarray, overlap: float, rng: np.random.Generator
) -> Box:
    """A box of `size`, nowhere larger than `first`, at least the share `overlap` of which lies in it.

    The share is a product over axes: what each has to give is drawn, then the place along it evenly from
    all that give as much. There always is one, as a box within the other shares all of itself.
    """
    needed = size * overlap ** rng.dirichlet(np.ones(3))
    slack = extent - size
    low = np.maximum(first.start + needed - size, np.minimum(slack, 0))
    high = np.minimum(first.start + first.size - needed, np.maximum(slack, 0))
    return Box(start=rng.uniform(low, np.maximum(low, high)), size=size)
