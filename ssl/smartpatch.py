"""SmartPatch: where the views of a volume lie, and how that changes over a training.

Source: the SmartPatch of the Biom3d thesis (Mougeot 2023, chapter on self-supervision): early in training
one box is nearly the whole volume and the other lies in it; late, both have the patch's size and lie apart.
We differ in that the overlap is what it says, a share of the smaller box's volume, and is met by
construction, without trying again; in that boxes keep the aspect of the patch; and in that sizes are
continuous, as each view is interpolated once. See docs/smartpatch.md.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

from ..data.augment.operations import PositiveRange
from ..data.errors import UserError
from ..data.settings import over, settings
from ..data.volume import Shape, Triple
from .box import Box, placed, placed_overlapping
from .schedule import Course, Schedule

Extent = Annotated[int, Field(ge=1)]


def _share(schedule: Schedule) -> Schedule:
    if not (0 <= schedule.start <= 1 and 0 <= schedule.end <= 1):
        raise ValueError("an overlap is a share: 0 to 1")
    return schedule


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What sizes are measured by: the extent of a volume, the plan's patch, and the voxel spacing of both."""

    extent: Shape
    patch: Shape
    spacing: Triple | None = None

    @property
    def fits(self) -> float:
        """How many times the patch the largest box of its aspect is that fits into the volume, at least 1.

        Axes along which the volume is not larger than the patch do not count: a single slice has a box of
        nearly all of it.
        """
        ratios = np.divide(self.extent, self.patch)
        return min(ratios[ratios > 1].tolist(), default=1.0)

    def size(self, factor: float) -> np.ndarray:
        """The size (3,) of a box of `factor` patches, no larger than the patch where the volume is not."""
        roomy = np.greater(self.extent, self.patch)
        return np.array(self.patch) * np.where(roomy, factor, min(1.0, factor))


@settings
class Sizes:
    """How large boxes are: drawn from `range`, evenly on a logarithmic scale, with the aspect of the patch.

    `of` is what the numbers count: shares of the largest box that fits into the "volume", multiples of the
    "patch", or the longest edge, in "voxels" or in the plan's unit of length ("physical").
    """

    of: Literal["volume", "patch", "voxels", "physical"] = "patch"
    range: PositiveRange = (0.7, 1.0)

    def factors(self, frame: Frame) -> np.ndarray:
        """The smallest and the largest box (2,), as multiples of the patch."""
        return np.array(self.range) * self._unit(frame)

    def _unit(self, frame: Frame) -> float:
        if self.of == "volume":
            return frame.fits
        if self.of == "voxels":
            return 1 / max(frame.patch)
        if self.of == "physical":
            if frame.spacing is None:
                raise UserError(
                    "views.boxes",
                    found="sizes of: physical, in a store without a voxel spacing",
                    rule="A length needs a spacing that the files tell or the user gives",
                    remedy="Give sizes of: voxels, or prepare the data again with its spacing",
                )
            return 1 / float(np.multiply(frame.patch, frame.spacing).max())
        return 1.0


@settings
class BoxConfig(Course):
    """Boxes whose sizes go from those at the `start` of the training to those at the `end`.

    What does not fit into a volume is cut to what does. `output` (z, y, x) is what their views are resampled
    to, in voxels; the plan's patch when None. An output of another aspect than the patch's stretches them.
    """

    start: Sizes
    end: Sizes = Sizes()
    output: tuple[Extent, Extent, Extent] | None = None

    def draw(self, frame: Frame, progress: float, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
        """The size (3,) of a box at the share `progress` of the training, and whether it was cut."""
        start, end = self.start.factors(frame), self.end.factors(frame)
        low, high = np.log(start + (end - start) * self.passed(progress))
        factor = math.exp(rng.uniform(low, high))
        return frame.size(min(factor, frame.fits)), factor > frame.fits * (1 + 1e-9)


_GLOBAL, _LOCAL = BoxConfig(start=Sizes(of="volume")), BoxConfig(start=Sizes())
_OVERLAP = Schedule(start=1.0, end=0.25)


@settings
class SmartPatchConfig:
    """Sizes of the boxes, and how much they overlap at least.

    By default the global boxes go from nearly the whole volume to the patch, and the local ones have the
    patch's size. `overlap` is the least share of the smaller box that lies in the other, between the first
    global box and each further one: of its volume, or of its edge along each axis; before each view is
    turned on its own. With 0 they lie anywhere. In a file, what of a group is not said has its default.
    """

    global_boxes: Annotated[BoxConfig, BeforeValidator(over(_GLOBAL))] = _GLOBAL
    local_boxes: Annotated[BoxConfig, BeforeValidator(over(_LOCAL))] = _LOCAL
    overlap: Annotated[Schedule, BeforeValidator(over(_OVERLAP)), AfterValidator(_share)] = _OVERLAP
    overlap_of: Literal["volume", "axis"] = "volume"


def draw_boxes(
    frame: Frame,
    global_views: int,
    local_views: int,
    progress: float,
    config: SmartPatchConfig,
    rng: np.random.Generator,
) -> tuple[Box, ...]:
    """The boxes of a sample, global ones first, at the share `progress` of the training.

    The first lies anywhere in the volume (see `placed`), and each other one as the overlap with it allows.
    """
    size, cut = config.global_boxes.draw(frame, progress, rng)
    first = Box(start=placed(frame.extent, size, rng), size=size, cut=cut)
    boxes, share = [first], config.overlap.at(progress)
    for kind in [config.global_boxes] * (global_views - 1) + [config.local_boxes] * local_views:
        size, cut = kind.draw(frame, progress, rng)
        per_axis = config.overlap_of == "axis"
        start = placed_overlapping(frame.extent, first, size, share, rng, per_axis=per_axis)
        boxes.append(Box(start=start, size=size, cut=cut))
    return tuple(boxes)


def too_far(first: Box, other: Box, progress: float, config: SmartPatchConfig) -> bool:
    """Whether two boxes overlap less than the configuration asks for."""
    shares = first.shares(other)
    found = shares.min() if config.overlap_of == "axis" else shares.prod()
    return bool(found < config.overlap.at(progress) - 1e-6)
