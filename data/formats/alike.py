"""Two volumes voxel by voxel, whatever their headers say of space."""

from dataclasses import fields

import numpy as np
from nibabel.orientations import apply_orientation, ornt_transform

from ..volume import OpenVolume, Volume

_RAS = np.array([[0, 1], [1, 1], [2, 1]])


def is_turned(volume: OpenVolume) -> bool:
    """Whether the axes of a file stand otherwise than in the volume that was read from it."""
    return not np.array_equal(_orientation(volume), _RAS)


def stored_alike(volume: OpenVolume, other: OpenVolume) -> OpenVolume:
    """`volume` turned as `other` is, so that voxels stored at one place in their files meet."""
    own, wanted = _orientation(volume), _orientation(other)
    if np.array_equal(own, wanted):
        return volume
    turn = ornt_transform(_RAS, ornt_transform(ornt_transform(_RAS, wanted), ornt_transform(_RAS, own)))
    channels = [
        apply_orientation(channel.transpose(2, 1, 0), turn).transpose(2, 1, 0) for channel in volume.array[:]
    ]
    values = {f.name: getattr(volume, f.name) for f in fields(volume)}
    return Volume(**{**values, "array": np.stack(channels)})


def _orientation(volume: OpenVolume) -> np.ndarray:
    """nibabel's orientation array, (3, 2), from the axes of a file to those of the volume read from it."""
    return getattr(volume.source, "orientation", _RAS)
