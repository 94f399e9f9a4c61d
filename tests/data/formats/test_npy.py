""".npy: any layout reads the same, axes are named or said, objects are never unpickled."""

from pathlib import Path

import numpy as np
import pytest
from fewvox.data.errors import VolumeError
from fewvox.data.formats import files, lazy, npy
from fewvox.data.formats.choices import ReadChoices
from hypothesis import given, settings
from hypothesis import strategies as st

ARRAY = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


def test_three_axes_are_zyx_of_unknown_spacing(tmp_path):
    """I10."""
    volume = files.read_volume(save(tmp_path / "a.npy", ARRAY))
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert (volume.spacing, volume.unit, volume.orientation) == (None, None, "stored")
    assert any("spacing unknown" in note for note in volume.notes)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u2", ">f4", "<f8", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_byte_order_and_layout_do_not_matter(tmp_path, dtype, order):
    """I19."""
    array = np.asarray(ARRAY - 50, dtype=dtype, order=order)
    volume = files.read_volume(save(tmp_path / "a.npy", array))
    np.testing.assert_array_equal(volume.array[0], array)
    assert volume.array.dtype.isnative
    assert volume.array.dtype.kind != "b"


def test_an_array_of_objects_is_refused_unopened(tmp_path):
    """S01."""
    canary = tmp_path / "canary"
    save(tmp_path / "a.npy", np.array([Canary(canary)], dtype=object))
    with pytest.raises(VolumeError, match="never unpickled"):
        files.read_volume(tmp_path / "a.npy")
    assert not canary.exists()


@pytest.mark.parametrize("array", [ARRAY.astype(complex), np.zeros((2, 3, 4), [("r", "u1"), ("g", "u1")])])
def test_voxels_that_are_not_one_number_are_refused(tmp_path, array):
    with pytest.raises(VolumeError, match="one integer or floating-point number"):
        files.read_volume(save(tmp_path / "a.npy", array))


def test_a_plane_is_one_slice(tmp_path):
    volume = files.read_volume(save(tmp_path / "a.npy", ARRAY[0]))
    np.testing.assert_array_equal(volume.array, ARRAY[None, :1])
    assert any("one slice" in note for note in volume.notes)
    files.write_like(tmp_path / "b.npy", volume.array, volume.source)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), ARRAY[0])


def test_a_fourth_axis_is_for_the_user_to_name(tmp_path):
    """I07."""
    pairs = np.stack([ARRAY, ARRAY + 1])
    path = save(tmp_path / "a.npy", pairs)
    with pytest.raises(VolumeError, match=r"CZYX or ZYXC for channels.*TZYX --time"):
        files.read_volume(path)
    np.testing.assert_array_equal(files.read_volume(path, ReadChoices(axes="CZYX")).array, pairs)
    moment = files.read_volume(path, ReadChoices(axes="TZYX", time=1))
    np.testing.assert_array_equal(moment.array, pairs[1:])
    for wrong in (ReadChoices(axes="TZYX"), ReadChoices(axes="TZYX", time=2), ReadChoices(axes="ZYX")):
        with pytest.raises(VolumeError):
            files.read_volume(path, wrong)


@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (4, 5, 6, 1), (1, 1, 4, 5, 6), (1, 4, 5, 6, 1)])
def test_axes_of_extent_1_are_dropped_and_noted(tmp_path, shape):
    volume = files.read_volume(save(tmp_path / "a.npy", ARRAY.reshape(shape)))
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert any("extent 1" in note for note in volume.notes)


@pytest.mark.parametrize("shape", [(4,), (), (2, 3, 4, 5, 6), (1, 1, 1, 4, 5, 6)])
def test_other_numbers_of_axes_are_refused(tmp_path, shape):
    with pytest.raises(VolumeError, match="whose axes have no names"):
        files.read_volume(save(tmp_path / "a.npy", np.zeros(shape)))


@pytest.mark.parametrize("change", [b"", b"x"])
def test_too_few_or_too_many_bytes_are_refused(tmp_path, change):
    """I15."""
    path = save(tmp_path / "a.npy", ARRAY)
    path.write_bytes(path.read_bytes()[:-1] + 2 * change)
    with pytest.raises(VolumeError, match="header announces"):
        files.read_volume(path)


@pytest.mark.parametrize(("order", "chunk"), [("C", (1, 5, 6)), ("F", (4, 5, 1))])
def test_a_large_array_stays_on_disk(tmp_path, monkeypatch, order, chunk):
    monkeypatch.setattr(lazy, "WHOLE_BYTES", 10)
    opened = files.open_volume(save(tmp_path / "a.npy", np.asarray(ARRAY, order=order)))
    assert isinstance(opened.array, lazy.LazyArray)
    assert opened.array.chunk == chunk
    np.testing.assert_array_equal(opened.array[:, 1:3, 2:5], ARRAY[None, 1:3, 2:5])
    np.testing.assert_array_equal(opened.load().array[0], ARRAY)


@settings(max_examples=30, deadline=None)
@given(
    axes=st.permutations("CZYX").map("".join) | st.permutations("ZYX").map("".join) | st.just("YX"),
    extents=st.tuples(*[st.integers(1, 4)] * 4),
    channels=st.integers(1, 3),
    dtype=st.sampled_from(["uint8", "int16", "uint64", "float16", "float32", "bool"]),
)
def test_results_go_back_in_the_order_of_their_source(tmp_path_factory, axes, extents, channels, dtype):
    folder = tmp_path_factory.mktemp("order")
    source = np.zeros([dict(zip("CZYX", extents, strict=True))[axis] for axis in axes])
    volume = files.read_volume(save(folder / "a.npy", source), ReadChoices(axes=axes))
    values = (np.arange(channels * np.prod(volume.shape)) % 7).reshape(channels, *volume.shape).astype(dtype)
    files.write_like(folder / "b.npy", values, volume.source)
    spatial = axes.replace("C", "")
    kept = spatial if channels == 1 else axes if "C" in axes else "C" + axes
    again = files.read_volume(folder / "b.npy", ReadChoices(axes=kept))
    np.testing.assert_array_equal(again.array, values)
    assert again.array.dtype == ("uint8" if dtype == "bool" else dtype)


def test_a_result_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match="shape"):
        npy.write(tmp_path / "b.npy", ARRAY, npy.NpySource(axes="ZYX", shape=(4, 5, 5)))
