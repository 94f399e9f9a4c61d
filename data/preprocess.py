"""What every volume goes through before a network sees it, in training as in prediction."""

import numpy as np

from .errors import UserError
from .plan import SPACING_TOLERANCE, Preprocessing
from .resample import resample, resampled_shape
from .volume import Shape, Triple, Volume


def preprocess(volume: Volume, how: Preprocessing, where: object) -> np.ndarray:
    """The volume at the plan's spacing, normalised, float32 (C, Z, Y, X).

    Raises UserError when channels or spacing do not answer to the plan.
    """
    swapped = volume.channels != how.channels and sorted(volume.channels) == sorted(how.channels)
    if swapped or len(volume.channels) != len(how.channels):
        raise UserError(
            where,
            found=f"{len(volume.channels)} channels ({', '.join(volume.channels)})",
            rule=f"The plan has {len(how.channels)} ({', '.join(how.channels)})",
            remedy="Give a volume with these channels in this order",
        )
    if volume.orientation != how.orientation:
        raise UserError(
            where,
            found=f"orientation '{volume.orientation}'",
            rule=f"the plan's volumes have orientation '{how.orientation}' (RAS for files that know theirs)",
            remedy="give the volume in the format of the training data",
        )
    array = resample(volume.array, target_shape(volume, how, where))
    return np.stack([zscore(channel) for channel in array])


def target_shape(volume: Volume, how: Preprocessing, where: object) -> Shape:
    """Shape (z, y, x) of the volume at the plan's spacing."""
    if how.spacing is None:
        return volume.shape
    spacing = spacing_in_plan(volume, how, where)
    return resampled_shape(volume.shape, spacing, how.spacing, SPACING_TOLERANCE)


def spacing_in_plan(volume: Volume, how: Preprocessing, where: object) -> Triple:
    """The volume's spacing in the plan's unit; raises UserError when the file tells none."""
    volume = volume.in_unit(how.unit)
    if volume.spacing is None or (volume.unit is None) != (how.unit is None):
        raise UserError(
            where,
            found="no voxel spacing"
            if volume.spacing is None
            else f"a spacing in {volume.unit or 'no unit'}",
            rule=f"The plan resamples to {how.spacing} {how.unit or '(no unit)'} (z, y, x)",
            remedy="Save spacing and unit in the file, or give them with --spacing Z,Y,X --unit um",
        )
    return volume.spacing


def zscore(channel: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 over the channel, float32; a constant channel becomes 0."""
    mean = channel.mean(dtype=np.float64)
    std = channel.std(dtype=np.float64)
    if std <= 1e-8 * abs(mean):
        return np.zeros_like(channel, dtype=np.float32)
    return ((channel - mean) / std).astype(np.float32)
