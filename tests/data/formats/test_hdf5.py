"""HDF5: one named array, its axes and voxel size from its attributes, nothing from other files."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from fewvox.data.errors import VolumeError
from fewvox.data.formats import files, lazy
from fewvox.data.formats.choices import ReadChoices
from hypothesis import given, settings
from hypothesis import strategies as st

ARRAY = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)


def axistags(axes: str) -> str:
    """The attribute as vigra and ilastik write it."""
    kinds = {"c": 1, "t": 8}
    told = [{"key": a, "typeFlags": kinds.get(a, 2), "resolution": 0, "description": ""} for a in axes]
    return json.dumps({"axes": told})


def save(path: Path, array: np.ndarray = ARRAY, name: str = "raw", chunks=None, **attributes) -> Path:
    with h5py.File(path, "a") as file:
        file.create_dataset(name, data=array, chunks=chunks).attrs.update(attributes)
    return path


def test_the_only_volume_of_a_file_is_read(tmp_path):
    path = save(tmp_path / "a.h5", element_size_um=(2.0, 0.8, 0.8))
    save(path, np.arange(9), "group/list")
    save(path, np.zeros((4, 5)), "table")
    volume = files.read_volume(path)
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert (volume.spacing, volume.unit, volume.orientation) == ((2.0, 0.8, 0.8), "um", "stored")


def test_no_voxel_size_is_unknown(tmp_path):
    """I10."""
    volume = files.read_volume(save(tmp_path / "a.hdf5"))
    assert (volume.spacing, volume.unit) == (None, None)
    assert any("spacing unknown" in note for note in volume.notes)


def test_several_arrays_are_listed_for_a_choice(tmp_path):
    path = save(tmp_path / "a.h5")
    save(path, ARRAY.astype(np.uint32) + 1, "volumes/label")
    with pytest.raises(VolumeError, match="--dataset") as caught:
        files.read_volume(path)
    for told in ("/raw (4, 5, 6) int16", "/volumes/label (4, 5, 6) uint32"):
        assert told in caught.value.found
    label = files.read_volume(path, ReadChoices(dataset="volumes/label"))
    np.testing.assert_array_equal(label.array[0], ARRAY + 1)


@pytest.mark.parametrize("name", ["none", "volumes", "raw/deeper"])
def test_a_name_that_is_no_array_is_refused_with_those_there_are(tmp_path, name):
    path = save(tmp_path / "a.h5")
    save(path, ARRAY, "volumes/label")
    with pytest.raises(VolumeError, match=r"/raw \(4, 5, 6\)"):
        files.read_volume(path, ReadChoices(dataset=name))


def test_a_file_without_volumes_is_refused(tmp_path):
    with pytest.raises(VolumeError, match="0 arrays"):
        files.read_volume(save(tmp_path / "a.h5", np.arange(5)))


@pytest.mark.parametrize("axes", ["zyx", "xyz", "zyxc", "tzyxc", "yx"])
def test_axes_are_those_of_axistags(tmp_path, axes):
    extents = dict(zip("tczyx", (1, 2, 4, 5, 6), strict=True))
    array = np.arange(np.prod([extents[a] for a in axes])).reshape([extents[a] for a in axes])
    save(tmp_path / "a.h5", array.astype(np.int32), axistags=axistags(axes))
    volume = files.read_volume(tmp_path / "a.h5", ReadChoices(dataset="raw"))
    order = [axes.index(a) for a in "tczyx" if a in axes]
    expected = array.transpose(order).reshape([extents[a] if a in axes else 1 for a in "czyx"])
    np.testing.assert_array_equal(volume.array, expected)


def test_a_fourth_axis_without_a_name_is_for_the_user_to_name(tmp_path):
    """I07."""
    pairs = np.stack([ARRAY, ARRAY + 1])
    path = save(tmp_path / "a.h5", pairs)
    with pytest.raises(VolumeError, match=r"CZYX or ZYXC for channels.*TZYX --time"):
        files.read_volume(path)
    np.testing.assert_array_equal(files.read_volume(path, ReadChoices(axes="CZYX")).array, pairs)
    moment = files.read_volume(path, ReadChoices(axes="TZYX", time=1))
    np.testing.assert_array_equal(moment.array, pairs[1:])


def test_time_points_need_a_choice(tmp_path):
    path = save(tmp_path / "a.h5", np.stack([ARRAY, ARRAY + 1]), axistags=axistags("tzyx"))
    with pytest.raises(VolumeError, match="2 time points"):
        files.read_volume(path)
    volume = files.read_volume(path, ReadChoices(time=1))
    np.testing.assert_array_equal(volume.array[0], ARRAY + 1)


@pytest.mark.parametrize("size", [(0.0, 1.0, 1.0), (np.nan, 1.0, 1.0), (1.0, 1.0), (-1.0, 1.0, 1.0)])
def test_an_impossible_voxel_size_is_refused(tmp_path, size):
    with pytest.raises(VolumeError, match="element_size_um"):
        files.read_volume(save(tmp_path / "a.h5", element_size_um=size))


@pytest.mark.parametrize("dtype", [">i2", "<u8", ">f4", "bool"])
def test_all_numbers_become_native(tmp_path, dtype):
    """I19."""
    array = (ARRAY % 50).astype(dtype)
    volume = files.read_volume(save(tmp_path / "a.h5", array))
    np.testing.assert_array_equal(volume.array[0], array)
    assert volume.array.dtype.isnative


def test_complex_voxels_are_refused(tmp_path):
    with pytest.raises(VolumeError, match="one integer or floating-point number"):
        files.read_volume(save(tmp_path / "a.h5", ARRAY.astype(complex)), ReadChoices(dataset="raw"))


def linked(path: Path, kind: str, secret: Path) -> Path:
    """A file whose "raw" leads to the array of another file, one of the ways there are."""
    with h5py.File(path, "w") as file:
        if kind == "external link":
            file["raw"] = h5py.ExternalLink(str(secret), "/raw")
        elif kind == "linked folder":
            file["folder"] = h5py.ExternalLink(str(secret), "/")
        elif kind == "soft link to it":
            file["other"] = h5py.ExternalLink(str(secret), "/raw")
            file["raw"] = h5py.SoftLink("/other")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(ARRAY.shape, ARRAY.dtype)
            layout[:] = h5py.VirtualSource(secret, "/raw", ARRAY.shape)
            file.create_virtual_dataset("raw", layout)
        else:
            parts = [(str(secret), 0, ARRAY.nbytes)]
            file.create_dataset("raw", ARRAY.shape, ARRAY.dtype, external=parts)
    return path


@pytest.mark.parametrize("chosen", [True, False])
@pytest.mark.parametrize(
    "kind", ["external link", "linked folder", "soft link to it", "virtual", "external storage"]
)
def test_other_files_are_not_read(tmp_path, kind, chosen):
    secret = save(tmp_path / "secret.h5")
    path = linked(tmp_path / "a.h5", kind, secret)
    name = "folder/raw" if kind == "linked folder" else "raw"
    with pytest.raises(VolumeError) as caught:
        files.read_volume(path, ReadChoices(dataset=name if chosen else None))
    assert "another file" in str(caught.value) or "is a link" in str(caught.value) or not chosen
    assert "(4, 5, 6)" not in str(caught.value) or kind in ("virtual", "external storage")


def test_a_large_array_stays_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(lazy, "WHOLE_BYTES", 10)
    path = save(
        tmp_path / "a.h5", np.moveaxis(ARRAY[None], 0, -1), chunks=(2, 3, 4, 1), axistags=axistags("zyxc")
    )
    opened = files.open_volume(path)
    assert isinstance(opened.array, lazy.LazyArray)
    assert opened.array.chunk == (2, 3, 4)
    np.testing.assert_array_equal(opened.array[:, 1:3, 2:5], ARRAY[None, 1:3, 2:5])


def test_a_cut_file_is_refused(tmp_path):
    """I15."""
    path = save(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(VolumeError, match="OSError"):
        files.read_volume(path)


@settings(max_examples=25, deadline=None)
@given(
    axes=st.permutations("czyx").map("".join) | st.permutations("zyx").map("".join),
    extents=st.tuples(*[st.integers(1, 4)] * 4),
    channels=st.integers(1, 3),
    dtype=st.sampled_from(["uint8", "int16", "uint64", "float16", "float32"]),
    spacing=st.none() | st.tuples(*[st.floats(0.01, 100)] * 3),
)
def test_results_keep_name_axes_and_voxel_size(tmp_path_factory, axes, extents, channels, dtype, spacing):
    folder = tmp_path_factory.mktemp("h5")
    shape = [dict(zip("czyx", extents, strict=True))[axis] for axis in axes]
    attributes = {"axistags": axistags(axes), **({"element_size_um": spacing} if spacing else {})}
    volume = files.read_volume(save(folder / "a.h5", np.zeros(shape), "group/raw", **attributes))
    values = np.arange(channels * np.prod(volume.shape)).reshape(channels, *volume.shape).astype(dtype)
    files.write_like(folder / "b.h5", values, volume.source)
    again = files.read_volume(folder / "b.h5", ReadChoices(dataset="group/raw"))
    np.testing.assert_array_equal(again.array, values)
    assert again.array.dtype == dtype
    assert (again.spacing, again.unit) == (volume.spacing, volume.unit)
    if len(axes) == 3 or channels > 1:
        written = again.source.axes.lower()
        assert written.replace("c", "") == axes.replace("c", "")
