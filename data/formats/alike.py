"""Two volumes voxel by voxel, whatever their headers say of space."""

from dataclasses import fields

import numpy as np
from nibabel.orientations import apply_orientation

from ..volume import OpenVolume, Volume
from .ras import Turn

_STRAIGHT = Turn()


def is_turned(volume: OpenVolume) -> bool:
    """Whether the axes of a file stand otherwise than in the volume that was read from it."""
    return _turn(volume) != _STRAIGHT


def stored_alike(volume: OpenVolume, other: OpenVolume) -> OpenVolume:
    """`volume` turned as `other` is, so that voxels stored at one place in their files meet."""
    own, wanted = _turn(volume), _turn(other)
    if own == wanted:
        return volume
    channels = [
        apply_orientation(own.back(channel), wanted.orientation).transpose(2, 1, 0)
        for channel in volume.array[:]
    ]
    values = {f.name: getattr(volume, f.name) for f in fields(volume)}
    return Volume(**{**values, "array": np.stack(channels)})


def _turn(volume: OpenVolume) -> Turn:
    """From the axes of a file to those of the volume; formats that know no orientation stand as stored."""
    return getattr(volume.source, "turn", _STRAIGHT)
