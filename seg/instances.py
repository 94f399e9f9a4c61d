"""Objects told apart in a mask that says only what is object: each gets a number of its own."""

from typing import Annotated, Literal

import numpy as np
import SimpleITK as sitk
from pydantic import Field
from scipy import ndimage

from ..data.errors import UserError
from ..data.labels import LabelTable
from ..data.settings import settings
from ..data.volume import Triple
from .components import components


@settings
class InstancesConfig:
    """How the objects of a class are numbered; "none" leaves classes.

    - "watershed": touching objects are cut where they are narrow, by the watershed of the distance to the
      background. A cut is made where the way from the middle of one to that of the other comes closer to
      the background by more than `depth`: smaller makes more objects. None is half the edge of a cube as
      large as a voxel, which served best on the embryo nuclei (docs/postprocessing.md).
    - "border": the network was trained with a class for the border between touching objects, of label value
      `border`; what is left when it is taken off are the objects, and the border goes to the nearest.

    `value` is the label value of the class; None where there is a single one. `depth` is in the unit of the
    plan's spacing.
    """

    method: Literal["none", "watershed", "border"] = "none"
    value: int | None = None
    border: int | None = None
    depth: Annotated[float, Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        if (self.border is not None) != (self.method == "border"):
            raise ValueError("the method border, and no other, has the value of a border")
        if self.depth is not None and self.method != "watershed":
            raise ValueError("only the method watershed has a depth")


def check_instances(config: InstancesConfig, table: LabelTable, where: object) -> None:
    """Raises UserError where a model's classes do not allow what is asked for."""
    classes = set(table.values[1:])
    named = {value for value in (config.value, config.border) if value is not None}
    left = classes - {config.border} if config.value is None else {config.value}
    if table.kind == "overlapping" or named - classes or len(left) != 1 or config.border in left:
        raise UserError(
            where,
            found=f"instances by {config.method} of the class {config.value}, border {config.border}, "
            f"of a model of {table.kind} {sorted(classes)}",
            rule="Objects are of one class that overlaps no other; value and border are label values",
            remedy="Set instances.value (and instances.border) to values of the model's labels",
        )


def numbered(numbers: np.ndarray, config: InstancesConfig, table: LabelTable, spacing: Triple) -> np.ndarray:
    """Objects numbered 1, 2, ... without a gap, int32 (Z, Y, X), of class numbers of the same shape."""
    objects = numbers == numbered_class(config, table)
    if config.border is None:
        return by_watershed(objects, spacing, config.depth)
    return by_border(objects, numbers == table.values.index(config.border), spacing)


def numbered_class(config: InstancesConfig, table: LabelTable) -> int:
    """The class number whose objects are numbered."""
    named = enumerate(table.values[1:], start=1)
    return next(n for n, value in named if value != config.border and config.value in (None, value))


def by_watershed(mask: np.ndarray, spacing: Triple, depth: float | None = None) -> np.ndarray:
    """The objects of a mask (Z, Y, X), cut where they are narrow; int32, numbered from 1.

    Source: the watershed of the distance transform (Vincent and Soille 1991; Soille 2003, section 9), with
    the maxima of less than `depth` above the way to a higher one taken together. `spacing` (z, y, x) and
    `depth` are in one unit.
    """
    if mask.all():
        return np.ones(mask.shape, np.int32)  # there is no background to be far from
    depth = float(np.cbrt(np.prod(spacing))) / 2 if depth is None else depth
    whole, voxels = components(mask)
    distance = _distance(mask, spacing)
    index = np.arange(1, len(voxels) + 1)
    heights = ndimage.maximum(distance, whole, index) - ndimage.minimum(distance, whole, index)
    boxes, count = ndimage.find_objects(whole), len(voxels)
    for number in np.flatnonzero(np.asarray(heights) > depth) + 1:
        box = boxes[number - 1]
        inside = whole[box] == number
        basins = _basins(np.where(inside, distance[box], 0), depth)[inside]
        found, of_object = np.unique(basins, return_inverse=True)
        # the first keeps the number of the component
        whole[box][inside] = np.concatenate([[number], count + np.arange(1, len(found))])[of_object]
        count += len(found) - 1
    return whole


def by_border(objects: np.ndarray, border: np.ndarray, spacing: Triple) -> np.ndarray:
    """The objects between borders, (Z, Y, X) bool each, with the border added; int32, numbered from 1.

    Objects that touch by an edge or a corner alone are two. A voxel of the border goes to the object from
    which it is nearest, within mask and border; a border without any object is an object itself.
    """
    seeds = np.empty(objects.shape, np.int32)
    count = int(ndimage.label(objects, output=seeds))  # type: ignore[arg-type]
    whole, voxels = components(objects | border)
    alone = np.setdiff1d(np.arange(1, len(voxels) + 1), whole[objects])
    renumbered = np.zeros(len(voxels) + 1, np.int32)
    renumbered[alone] = count + np.arange(1, len(alone) + 1)
    seeds += renumbered[whole]
    if not seeds.any():
        return seeds
    far = _distance(seeds == 0, spacing)
    # what is neither is flooded last
    far[whole == 0] = far.max() + 1
    flooded = sitk.MorphologicalWatershedFromMarkers(
        sitk.GetImageFromArray(far),
        sitk.GetImageFromArray(seeds),
        markWatershedLine=False,
        fullyConnected=True,
    )
    return np.where(whole > 0, sitk.GetArrayFromImage(flooded), 0).astype(np.int32)


def _basins(distance: np.ndarray, depth: float) -> np.ndarray:
    image = sitk.GetImageFromArray(-distance)
    return sitk.GetArrayFromImage(
        sitk.MorphologicalWatershed(image, level=depth, markWatershedLine=False, fullyConnected=True)
    )


def _distance(mask: np.ndarray, spacing: Triple) -> np.ndarray:
    """How far each voxel of a mask is from the next voxel outside, float32, in the unit of the spacing."""
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=spacing), np.float32)
