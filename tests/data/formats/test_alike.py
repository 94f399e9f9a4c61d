"""Volumes stored alike meet voxel by voxel, however their headers turn them."""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import pytest
from fewvox.data.formats.alike import is_turned, stored_alike
from fewvox.data.formats.lazy import LazyArray
from fewvox.data.formats.ras import Turn
from fewvox.data.volume import OpenVolume, Volume
from nibabel.orientations import apply_orientation

# where the stored axes x, y, z may stand, and how they run
TURNS = [
    Turn(axes=axes, flips=flips) for axes in permutations(range(3)) for flips in product((1, -1), repeat=3)
]
STORED = np.arange(2 * 2 * 3 * 4).reshape(2, 2, 3, 4)


@dataclass
class Source:
    """What a format that knows its orientation keeps of a file."""

    turn: Turn


def read(stored_CXYZ: np.ndarray, turn: Turn | None) -> Volume:
    """A volume as a format reads it; one that knows no orientation takes the axes as z, y, x."""
    turned = [c if turn is None else apply_orientation(c, turn.orientation) for c in stored_CXYZ]
    array = np.stack([c.transpose(2, 1, 0) for c in turned])
    return Volume(array=array, source=object() if turn is None else Source(turn))


@pytest.mark.parametrize("own", [None, *TURNS], ids=str)
def test_all_48_orientations_turn_into_each_other(own):
    volume = read(STORED, own)
    for other in (None, *TURNS):
        wanted = read(STORED, other)
        np.testing.assert_array_equal(stored_alike(volume, wanted).array, wanted.array)


def test_what_is_stored_alike_stays_on_disk():
    array = LazyArray(shape=(1, 2, 2, 2), dtype=np.dtype("u1"), chunk=(1, 1, 1), read=lambda _: 1 / 0)
    volume = OpenVolume(array=array, source=Source(TURNS[5]))
    assert stored_alike(volume, read(STORED, TURNS[5])) is volume


def test_all_but_one_orientation_are_turned():
    assert [is_turned(read(STORED, o)) for o in TURNS].count(False) == 1
    assert not is_turned(read(STORED, None))
