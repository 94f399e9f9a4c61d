"""Random rotation, scaling, shear and flips as one map, and elastic deformation."""

import math
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..settings import Probability, settings
from ..volume import Shape, Triple
from .draws import Draws
from .operations import PositiveRange, Range


@settings
class SpatialConfig:
    """How patches are turned, each by its own draw.

    Angles are in degrees, and turns happen in physical space. `scale` is how much larger things become, drawn
    evenly on a logarithmic scale. `shear_degrees` tilts each axis against each other one. An elastic
    deformation moves the points of a grid, `elastic_points` along each axis of the patch, by normal numbers
    whose deviation is drawn from `elastic_share`, in shares of the distance between them, and everything
    between smoothly. `flip_probability` is per axis; None leaves the choice to the training (see
    `training.flip_probability`). `labels` says how labels follow: the nearest voxel's, or the class with the
    largest linearly interpolated share.
    """

    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 30.0
    rotation_probability: Probability = 0.2
    scale: PositiveRange = (0.7, 1.4)
    scale_probability: Probability = 0.2
    shear_degrees: Annotated[float, Field(ge=0, lt=45)] = 10.0
    shear_probability: Probability = 0.0
    elastic_points: Annotated[int, Field(ge=2, le=32)] = 5
    elastic_share: Range = (0.0, 0.25)
    elastic_probability: Probability = 0.0
    flip_probability: Probability | None = None
    labels: Literal["nearest", "linear"] = "nearest"


# beyond this ratio of voxel sizes, or of a patch's extents (nnU-Net), only turns within the plane are made:
# others would mix slices that are far apart, or turn a thin patch out of what was read
_ANISOTROPIC = 3.0


def draw_turn(patch: Shape, spacing: Triple | None, config: SpatialConfig, draws: Draws) -> np.ndarray:
    """A map (3, 3) from voxel offsets in the patch to voxel offsets in the volume, around the centres.

    Turns happen in physical space, so that an anisotropic volume is not sheared.
    """
    size = np.array(spacing or (1.0, 1.0, 1.0))
    axis = _only_axis(patch, size)
    # every number is drawn whether used or not: one probability then never shifts the others' draws
    chance = draws.numbers.random(6)
    angles, tilts = draws.numbers.uniform(-1, 1, 3), draws.numbers.uniform(-1, 1, 6)
    share = draws.numbers.random()
    turn = np.eye(3)
    if chance[0] < config.rotation_probability:
        turn = _rotation(angles * math.radians(config.rotation_degrees), axis)
    if chance[2] < config.shear_probability:
        turn = turn @ _shear(tilts * math.radians(config.shear_degrees), axis)
    turn = turn * size / size[:, None]
    if chance[1] < config.scale_probability:
        low, high = np.log(config.scale)
        turn = turn / math.exp(low + share * (high - low))
    return turn * np.where(chance[3:] < (config.flip_probability or 0.0), -1.0, 1.0)


def patch_map(turn: np.ndarray, place: np.ndarray, voxel: np.ndarray) -> np.ndarray:
    """The map (3, 4) from indices of a patch's voxels to the volume's that brings `voxel` to `place`."""
    return np.concatenate([turn, (place - turn @ voxel)[:, None]], axis=1)


def draw_elastic(
    patch: Shape, spacing: Triple | None, config: SpatialConfig, draws: Draws
) -> np.ndarray | None:
    """How far (voxels of the patch) the points of a grid are moved, (3, n, n, n); None for nowhere.

    One point lies beyond each border. Along an axis that turns leave alone nothing is moved.
    """
    chance, deviation = draws.numbers.random(), draws.within(config.elastic_share)
    if chance >= config.elastic_probability:
        return None
    count = config.elastic_points
    moved = draws.numbers.normal(0, deviation, (3, count + 2, count + 2, count + 2))
    moved *= np.array(patch).reshape(3, 1, 1, 1) / (count - 1)
    axis = _only_axis(patch, np.array(spacing or (1.0, 1.0, 1.0)))
    still = [a for a in range(3) if a == axis or patch[a] == 1]
    moved[still] = 0
    return moved


def displacement(moved: np.ndarray, patch: Shape, device: torch.device) -> Tensor:
    """How far each voxel is moved (voxels of the patch), (3, *patch) float32: cubic B-splines between points.

    The voxel in the middle stays. Source: Rueckert et al. 1999, https://doi.org/10.1109/42.796284, section
    II.B (free-form deformation).
    """
    field = torch.from_numpy(moved).float().to(device)
    for axis, n in enumerate(patch):
        weights = torch.from_numpy(_splines(n, moved.shape[axis + 1])).to(field)
        # the axis goes to the end, each in its turn
        field = torch.einsum("apqr,np->aqrn", field, weights)
    middle = field[:, patch[0] // 2, patch[1] // 2, patch[2] // 2]
    return field - middle.view(3, 1, 1, 1)


def _splines(voxels: int, points: int) -> np.ndarray:
    """What each point gives to each voxel of an axis, (voxels, points); the outermost lie beyond the ends."""
    places = (np.arange(voxels) + 0.5) / voxels * (points - 3) + 1
    away = np.abs(places[:, None] - np.arange(points))
    near, far = 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, None) ** 3 / 6
    return np.where(away < 1, near, far)


def _only_axis(patch: Shape, size: np.ndarray) -> int | None:
    """The one axis to turn around, where the patch or its voxels are too anisotropic for the others."""
    if size.max() / size.min() > _ANISOTROPIC:
        return int(size.argmax())
    return patch.index(min(patch)) if max(patch) / min(patch) > _ANISOTROPIC else None


def _rotation(angles: np.ndarray, axis: int | None) -> np.ndarray:
    turn = np.eye(3)
    for a in range(3):
        if axis is not None and a != axis:
            continue
        i, j = (k for k in range(3) if k != a)
        c, s = math.cos(angles[a]), math.sin(angles[a])
        one = np.eye(3)
        one[i, i], one[i, j], one[j, i], one[j, j] = c, -s, s, c
        turn = one @ turn
    return turn


def _shear(tilts: np.ndarray, axis: int | None) -> np.ndarray:
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    shear = np.eye(3)
    for (i, j), tilt in zip(pairs, tilts, strict=True):
        if axis is None or axis not in (i, j):
            shear[i, j] = math.tan(tilt)
    return shear
