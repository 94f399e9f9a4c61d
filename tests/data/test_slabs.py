"""Pieces of a large array cover it once, in order, and as the file is stored."""

from dataclasses import dataclass

import numpy as np
import pytest
from fewvox.data import slabs as module
from fewvox.data.slabs import Channel, boxes, parts, slabs, thin
from hypothesis import given
from hypothesis import strategies as st

extents = st.tuples(*[st.integers(1, 12)] * 3)


@dataclass
class OnDisk:
    """An array that says how it is chunked, and notes what is read of it."""

    array: np.ndarray
    chunk: tuple[int, int, int] = (1, 1, 1)

    def __post_init__(self) -> None:
        self.shape, self.dtype = self.array.shape, self.array.dtype
        self.read: list[tuple[slice, ...]] = []

    def __getitem__(self, key):
        self.read.append(key)
        return self.array[key]


@given(extents, st.integers(1, 5), st.floats(0.1, 8))
def test_slabs_follow_each_other_within_their_bytes_and_end_where_chunks_do(shape, chunk, planes):
    array = OnDisk(np.zeros((2, *shape), np.uint16), (chunk, 1, 1))
    plane = 2 * shape[1] * shape[2]
    limit = int(planes * plane)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SLAB_BYTES", limit)
        found = list(slabs(array))
    assert [z for s in found for z in range(s.start, s.stop)] == list(range(shape[0]))
    assert all((s.stop - s.start) * plane <= max(limit, plane) for s in found)
    if limit >= chunk * plane:
        assert all(s.start % chunk == 0 for s in found)


@given(extents, extents)
def test_boxes_hold_every_voxel_once(shape, size):
    seen = np.zeros(shape, int)
    for box in boxes(shape, size):
        seen[box] += 1
        assert all(s.stop - s.start <= edge for s, edge in zip(box, size, strict=True))
    assert (seen == 1).all()


def test_parts_are_the_array_in_order_and_slabs_are_read_once(monkeypatch):
    monkeypatch.setattr(module, "SLAB_BYTES", 5 * 6 * 2)
    monkeypatch.setattr(module, "_PART_VOXELS", 2 * 6)
    source = OnDisk(np.arange(2 * 12 * 6, dtype=np.uint16).reshape(2, 12, 2, 3))
    found = list(parts(Channel(whole=source, number=1)))
    np.testing.assert_array_equal(np.concatenate([part for _, part in found], axis=1), source.array[1:])
    assert [(z.start, z.stop) for z, _ in found] == [
        (0, 2),
        (2, 4),
        (4, 5),
        (5, 7),
        (7, 9),
        (9, 10),
        (10, 12),
    ]
    assert len(source.read) == 3


def test_a_plane_larger_than_a_part_is_a_part(monkeypatch):
    monkeypatch.setattr(module, "_PART_VOXELS", 3)
    assert list(thin(slice(4, 6), (1, 9, 5, 5))) == [slice(4, 5), slice(5, 6)]
