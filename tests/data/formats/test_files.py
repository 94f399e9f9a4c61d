"""Dispatch by content, one kind of error for every damaged file, results that are whole or absent."""

import gzip
import os
import pickle
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import zarr
from fewvox.data.errors import VolumeError
from fewvox.data.formats import files, nifti, tiff
from fewvox.data.formats.ras import Turn
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore

ARRAY = np.random.default_rng(0).integers(0, 60000, (9, 20, 24), np.uint16)


def write_nifti(path: Path) -> Path:
    nib.save(nib.Nifti1Image(ARRAY.T, np.diag((0.8, 0.8, 2.0, 1.0))), path)
    return path


def write_tiff(path: Path) -> Path:
    tiff.write_new(path, ARRAY, (2.0, 0.8, 0.8), "um")
    return path


def write_itk(path: Path) -> Path:
    image = sitk.GetImageFromArray(ARRAY)
    image.SetSpacing((0.8, 0.8, 2.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, path, useCompression=True)
    return path


def write_hdf5(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["raw"] = ARRAY
        file["raw"].attrs["element_size_um"] = (2.0, 0.8, 0.8)
    return path


WRITERS = {
    "a.nii": write_nifti,
    "a.nii.gz": write_nifti,
    "a.tif": write_tiff,
    "a.nrrd": write_itk,
    "a.mha": write_itk,
    "a.h5": write_hdf5,
}


@pytest.mark.parametrize(
    "name",
    [
        "a.nii",
        "a.nii.gz",
        "A.NII.GZ",
        "a.tif",
        "a.TIFF",
        "a.b.ome.tif",
        "a.ome.tiff",
        "a.seg.nrrd",
        "a.nhdr",
        "a.mha",
        "a.mhd",
        "a.npy",
        "a.h5",
        "A.HDF5",
        "a.zarr",
        "a.OME.ZARR",
    ],
)
def test_names_of_volumes(name):
    assert files.is_volume(Path("folder") / name)
    assert files.strip_suffix(f"sub/{name}") in ("sub/a", "sub/A", "sub/a.b")


@pytest.mark.parametrize("name", [".DS_Store", "._a.tif", ".a.nii.gz", "a.txt", "a.gz", "tif", "a.nii.json"])
def test_names_of_others(name):
    assert not files.is_volume(Path("folder") / name)


def test_a_folder_is_a_volume_only_by_a_folders_name(tmp_path):
    for name in ("a.nii", "a.ome.zarr", "plain"):
        (tmp_path / name).mkdir()
    assert [name for name in ("a.nii", "a.ome.zarr", "plain") if files.is_volume(tmp_path / name)] == [
        "a.ome.zarr"
    ]
    for name in ("a.nii", "plain"):
        with pytest.raises(VolumeError, match="without DICOM files"):
            files.read_volume(tmp_path / name)


def test_a_zarr_result_is_a_folder_and_replaces_what_had_its_name(tmp_path):
    zarr.create_array(LocalStore(tmp_path / "a.zarr"), data=ARRAY)
    source = files.read_volume(tmp_path / "a.zarr").source
    (tmp_path / "b.zarr").write_text("an earlier file")
    files.write_like(tmp_path / "b.zarr", ARRAY, source)
    np.testing.assert_array_equal(files.read_volume(tmp_path / "b.zarr").array[0], ARRAY)
    assert pickle.loads(pickle.dumps(source)) == source
    with pytest.raises(VolumeError, match=r"End the name in \.ome\.zarr"):
        files.write_like(tmp_path / "b.tif", ARRAY, source)


def test_a_name_without_a_known_suffix_is_kept_whole():
    assert files.strip_suffix("sub.tif/a.png") == "sub.tif/a.png"


@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
def test_all_formats_give_the_same_volume(tmp_path, name, write):
    volume = files.read_volume(write(tmp_path / name))
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert volume.spacing == (2.0, 0.8, 0.8)


@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
def test_a_suffix_in_capitals_is_the_same_suffix(tmp_path, name, write):
    write(tmp_path / name).rename(tmp_path / name.upper())
    np.testing.assert_array_equal(files.read_volume(tmp_path / name.upper()).array[0], ARRAY)


@pytest.mark.parametrize("unit", ["mm", "micron"])
def test_units_of_all_formats_meet(tmp_path, unit):
    """I11: one phantom, 2.0 x 0.8 x 0.8 um, in mm and micron, and as OME in nm."""
    scale = {"mm": 1e-3, "micron": 1.0}[unit]
    image = nib.Nifti1Image(ARRAY.T, np.diag((0.8 * scale, 0.8 * scale, 2.0 * scale, 1.0)))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    sizes = {"PhysicalSizeX": 800.0, "PhysicalSizeY": 800.0, "PhysicalSizeZ": 2000.0}
    units = {f"{key}Unit": "nm" for key in sizes}
    tifffile.imwrite(tmp_path / "a.ome.tif", ARRAY, metadata={"axes": "ZYX", **sizes, **units})
    for name in ("a.nii", "a.ome.tif"):
        volume = files.read_volume(tmp_path / name).in_unit("um")
        assert volume.spacing == pytest.approx((2.0, 0.8, 0.8), rel=1e-6)


@pytest.mark.parametrize("lost", [1, 8, 200, 2048])
@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
def test_a_cut_file_is_refused(tmp_path, name, write, lost):
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(VolumeError) as caught:
        files.read_volume(path)
    assert caught.value.where == str(path)


def test_the_cause_of_a_failure_is_kept(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:-2048])
    with pytest.raises(VolumeError, match="EOFError") as caught:
        files.read_volume(path)
    assert isinstance(caught.value.__cause__, EOFError)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("a.nii", "b.nii.gz"),
        ("a.nii.gz", "b.nii"),
        ("a.tif", "b.nii"),
        ("a.nii", "b.tif"),
        ("a.nii.gz", "b.tif"),
        ("a.mha", "b.nhdr"),
        ("a.h5", "b.npy"),
    ],
)
def test_a_name_that_belies_the_content_is_refused_with_the_right_suffix(tmp_path, written, name):
    WRITERS[written](tmp_path / written).rename(tmp_path / name)
    with pytest.raises(VolumeError, match="the name says") as caught:
        files.read_volume(tmp_path / name)
    assert f"end in {written[1:]}," in caught.value.remedy


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.tif"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(VolumeError, match="empty"):
        files.read_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.tif"])
def test_unknown_content_is_refused(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\n" * 20)
    with pytest.raises(VolumeError, match="no known format"):
        files.read_volume(tmp_path / name)


def test_gzip_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"no volume" * 100))
    with pytest.raises(VolumeError, match="no NIfTI"):
        files.read_volume(tmp_path / "a.nii.gz")


def test_a_header_that_nibabel_refuses_is_a_volume_error(tmp_path):
    path = write_nifti(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[70:72] = (9999).to_bytes(2, "little")  # the code of the data type
    path.write_bytes(content)
    with pytest.raises(VolumeError, match="HeaderDataError"):
        files.read_volume(path)


def test_an_absent_file_is_a_volume_error_too(tmp_path):
    with pytest.raises(VolumeError, match="FileNotFoundError"):
        files.read_volume(tmp_path / "a.tif")


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(WRITERS)),
    edits=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damaged_bytes_give_a_volume_or_a_volume_error(tmp_path_factory, name, edits):
    path = WRITERS[name](tmp_path_factory.mktemp("damaged") / name)
    content = bytearray(path.read_bytes())
    for place, value in edits:
        content[place] = value
    path.write_bytes(content)
    try:
        volume = files.read_volume(path)
    except VolumeError:
        return  # refused in words; anything else that is raised fails the test
    assert volume.array.ndim == 4


@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
def test_a_result_stands_in_the_geometry_of_its_source(tmp_path, name, write):
    volume = files.read_volume(write(tmp_path / name))
    out = tmp_path / f"mask{files.mask_suffix(volume.source)}"
    files.write_like(out, volume.array[0], volume.source)
    again = files.read_volume(out)
    np.testing.assert_array_equal(again.array, volume.array)
    assert (again.spacing, again.unit, again.origin) == (volume.spacing, volume.unit, volume.origin)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, out.name])


def test_results_are_readable_as_the_umask_allows(tmp_path):
    volume = files.read_volume(write_tiff(tmp_path / "a.tif"))
    files.write_like(tmp_path / "b.tif", volume.array, volume.source)
    assert (tmp_path / "b.tif").stat().st_mode == (tmp_path / "a.tif").stat().st_mode


@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, name, write):
    volume = files.read_volume(write(tmp_path / name))
    out = tmp_path / f"mask{files.mask_suffix(volume.source)}"
    out.write_text("an earlier result")

    def full(handle: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        files.write_like(out, volume.array, volume.source)
    assert out.read_text() == "an earlier result"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, out.name])


def test_a_result_under_another_formats_name_is_refused(tmp_path):
    volume = files.read_volume(write_tiff(tmp_path / "a.tif"))
    with pytest.raises(VolumeError, match=r"name in \.tif"):
        files.write_like(tmp_path / "b.nii.gz", volume.array, volume.source)


def test_a_source_of_no_format_is_refused(tmp_path):
    with pytest.raises(TypeError, match="NoneType"):
        files.write_like(tmp_path / "b.tif", ARRAY, None)
    with pytest.raises(TypeError, match="NoneType"):
        files.mask_suffix(None)


@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
def test_sources_cross_process_boundaries(tmp_path, name, write):
    source = files.read_volume(write(tmp_path / name)).source
    assert pickle.loads(pickle.dumps(source)) == source


def test_mask_suffixes():
    shape = (1, 1, 1)
    header = nifti.NiftiSource(header=b"", turn=Turn(), shape=shape)
    assert files.mask_suffix(header) == ".nii.gz"
    assert files.mask_suffix(tiff.TiffSource(kind="imagej", shape=shape)) == ".tif"
    assert files.mask_suffix(tiff.TiffSource(kind="plain", shape=shape)) == ".tif"
    assert files.mask_suffix(tiff.TiffSource(kind="ome", shape=shape)) == ".ome.tif"
