"""A volume is known again by all of its files, wherever its voxels lie."""

import numpy as np
import pytest
import SimpleITK as sitk
from fewvox.data.hashing import file_hash
from fewvox.data.sources import source_files, source_hash, source_state


@pytest.fixture(params=["a.mhd", "a.nhdr"])
def detached(request, tmp_path):
    """A header and the file of its voxels."""
    sitk.WriteImage(
        sitk.GetImageFromArray(np.arange(24, dtype=np.uint8).reshape(2, 3, 4)), str(tmp_path / request.param)
    )
    (voxels,) = (path for path in tmp_path.iterdir() if path.suffix not in (".mhd", ".nhdr"))
    return tmp_path / request.param, voxels


def test_a_file_is_known_by_its_bytes(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(b"123")
    assert source_hash(path) == source_hash([path]) == file_hash(path)
    assert source_state(path) == (3, path.stat().st_mtime_ns)


def test_a_header_is_known_by_its_voxels_too(detached):
    header, voxels = detached
    assert source_files(header) == [header, voxels]
    before = source_hash(header), source_state(header)
    assert before[1][0] == header.stat().st_size + voxels.stat().st_size
    voxels.write_bytes(voxels.read_bytes()[::-1])
    assert source_hash(header) != before[0]


def test_a_header_with_its_voxels_inside_is_one_file(tmp_path):
    path = tmp_path / "a.mhd"
    path.write_bytes(b"ObjectType = Image\nElementDataFile = LOCAL\n\0\0")
    assert source_files(path) == [path]


@pytest.mark.parametrize("change", ["content", "name", "more"])
def test_a_folder_is_known_by_the_names_and_bytes_of_all_its_files(tmp_path, change):
    (tmp_path / "a.zarr" / "0").mkdir(parents=True)
    first = tmp_path / "a.zarr" / "0" / "0.0"
    first.write_bytes(b"1")
    (tmp_path / "a.zarr" / ".zgroup").write_bytes(b"{}")
    before = source_hash(tmp_path / "a.zarr")
    if change == "content":
        first.write_bytes(b"2")
    elif change == "name":
        first.rename(first.with_name("0.1"))
    else:
        first.with_name("0.1").write_bytes(b"")
    assert source_hash(tmp_path / "a.zarr") != before


def test_channels_in_files_of_their_own_are_known_together(tmp_path):
    paths = [tmp_path / name for name in ("a_0000.nii", "a_0001.nii")]
    for n, path in enumerate(paths):
        path.write_bytes(bytes([n]))
    assert source_hash(paths) != source_hash(paths[::-1]) != source_hash(paths[0])
