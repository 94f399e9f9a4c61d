"""Boxes of arrays in any order of axes, turned and at any time point, are boxes of the canonical array."""

import numpy as np
import pytest
from fewvox.data.formats import lazy
from fewvox.data.formats.lazy import LazyArray
from fewvox.data.formats.stored import Stored, volume_of
from fewvox.data.volume import OpenVolume, Volume
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def stored_arrays(draw) -> tuple[Stored, np.ndarray]:
    """An array as stored, and the same as (C, Z, Y, X)."""
    optional = draw(st.lists(st.sampled_from("TCZ"), unique=True))
    axes = "".join(draw(st.permutations([*optional, "Y", "X"])))
    flipped = "".join(draw(st.lists(st.sampled_from(sorted(set(axes) & set("ZYX"))), unique=True)))
    shape = tuple(draw(st.integers(1, 5)) for _ in axes)
    array = np.arange(np.prod(shape), dtype=draw(st.sampled_from(["<i4", ">u2", ">f8"]))).reshape(shape)
    time = draw(st.integers(0, shape[axes.index("T")] - 1)) if "T" in axes else 0
    expected = array.take(time, axes.index("T")) if "T" in axes else array
    left = axes.replace("T", "")
    expected = np.flip(expected, tuple(left.index(axis) for axis in flipped))
    expected = expected.transpose([left.index(axis) for axis in "CZYX" if axis in left])
    expected = expected.reshape([shape[axes.index(axis)] if axis in axes else 1 for axis in "CZYX"])
    stored = Stored(
        shape=shape,
        dtype=array.dtype,
        axes=axes,
        chunk=shape,
        read=array.__getitem__,
        time=time,
        flipped=flipped,
    )
    return stored, expected


@given(data=st.data(), arrays=stored_arrays())
def test_any_box_is_that_of_the_canonical_array(data, arrays):
    stored, expected = arrays
    array = stored.canonical()
    assert array.shape == expected.shape
    assert array.dtype == expected.dtype.newbyteorder("=")
    box = tuple(slice(*sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2)))) for n in expected.shape)
    part = array[box]
    np.testing.assert_array_equal(part, expected[box])
    assert part.dtype == array.dtype
    assert part.flags.c_contiguous
    np.testing.assert_array_equal(array[:], expected)


@pytest.mark.parametrize(("limit", "kind"), [(119, LazyArray), (120, np.ndarray)])
def test_large_arrays_stay_on_disk(monkeypatch, limit, kind):
    """The measure is what would be read: one time point."""
    monkeypatch.setattr(lazy, "WHOLE_BYTES", limit)
    array = np.zeros((9, 5, 4, 3), np.uint16)
    stored = Stored(
        shape=array.shape, dtype=array.dtype, axes="TZYX", chunk=(1, 2, 3, 3), read=array.__getitem__
    )
    opened = stored.opened()
    assert isinstance(opened, kind)
    assert isinstance(volume_of(opened), Volume) == (kind is np.ndarray)
    assert isinstance(volume_of(opened, spacing=(1.0, 2.0, 3.0), unit="um"), OpenVolume)
    assert stored.canonical().chunk == (2, 3, 3)
