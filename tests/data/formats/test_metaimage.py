"""MetaImage: geometry and unit are the header's own, in both directions; ITK reads the same."""

import zlib
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from fewvox.data.errors import VolumeError
from fewvox.data.formats import lazy, metaimage, nifti
from fewvox.data.formats.choices import ReadChoices
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.eulerangles import euler2mat

ARRAY = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
MATRIX = "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1.50 -2.25 7\n"
SPACING = "ElementSpacing = 0.5 0.75 2\n"
DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
ORIENTATIONS = [
    np.diag(flips)[:, list(axes)] for axes in permutations(range(3)) for flips in product((1, -1), repeat=3)
]


def hand_written(
    path: Path,
    fields: str,
    array: np.ndarray = ARRAY,
    data: bytes | None = None,
    kind: str = "MET_SHORT",
    where: str = "LOCAL",
) -> Path:
    """A MetaImage with these fields and the array raw behind them (its last axis is the fastest)."""
    head = (
        f"ObjectType = Image\nNDims = {array.ndim}\n{fields}"
        f"DimSize = {' '.join(map(str, array.shape[::-1]))}\n"
        f"ElementType = {kind}\nElementDataFile = {where}\n"
    )
    path.write_bytes(head.encode() + (array.tobytes() if data is None else data))
    return path


def from_itk(path: Path, array: np.ndarray, direction: np.ndarray, spacing=(0.5, 0.75, 2.0)) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((1.5, -2.25, 7.0))
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, path, useCompression=True)
    return path


def same_geometry(first: Path, second: Path) -> bool:
    one, other = sitk.ReadImage(first), sitk.ReadImage(second)
    told = [(i.GetSpacing(), i.GetOrigin(), i.GetDirection()) for i in (one, other)]
    return told[0] == told[1]


def geometry(volume) -> tuple:
    return volume.spacing, volume.unit, volume.origin, volume.direction, volume.orientation


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_every_orientation_reads_as_in_nifti_and_goes_back(tmp_path, suffix):
    """F03."""
    for direction in ORIENTATIONS:
        path = from_itk(tmp_path / f"a{suffix}", ARRAY, direction)
        expected = nifti.read(from_itk(tmp_path / "a.nii", ARRAY, direction))
        volume = metaimage.read(path)
        np.testing.assert_array_equal(volume.array, expected.array)
        assert geometry(volume) == geometry(expected)
        out = tmp_path / f"b{suffix}"
        metaimage.write(out, volume.array[0].astype(np.uint8), volume.source)
        assert same_geometry(path, out)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(out)), ARRAY)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    channels=st.integers(1, 3),
    dtype=st.sampled_from(DTYPES),
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.01, 100)] * 3),
)
def test_any_rotated_grid_round_trips(tmp_path_factory, shape, channels, dtype, angles, spacing):
    """F03: what is written reads as it was, in the source's own words, and ITK sees the same."""
    folder = tmp_path_factory.mktemp("grid")
    path = from_itk(folder / "a.mha", np.zeros(shape, np.uint8), euler2mat(*angles), spacing)
    source = metaimage.read(path)
    values = np.arange(channels * np.prod(shape)).reshape(channels, *source.shape).astype(dtype)
    metaimage.write(folder / "b.mha", values, source.source)
    again = metaimage.read(folder / "b.mha")
    np.testing.assert_array_equal(again.array, values)
    assert again.array.dtype == dtype
    assert geometry(again) == geometry(source)
    assert again.source == source.source
    assert same_geometry(path, folder / "b.mha")
    seen = sitk.GetArrayFromImage(sitk.ReadImage(folder / "b.mha"))
    expected = np.stack([source.source.turn.back(channel).T for channel in values], axis=-1)
    np.testing.assert_array_equal(seen.reshape(*shape, channels), expected)


def test_an_oblique_volume_is_the_same_in_nifti(tmp_path):
    direction = euler2mat(0.2, -0.15, 0.1)
    expected = nifti.read(from_itk(tmp_path / "a.nii", ARRAY, direction))
    volume = metaimage.read(from_itk(tmp_path / "a.mha", ARRAY, direction))
    np.testing.assert_array_equal(volume.array, expected.array)
    assert volume.spacing == expected.spacing
    np.testing.assert_allclose(volume.origin, expected.origin, atol=1e-5)  # float32 in NIfTI
    np.testing.assert_allclose(volume.direction, expected.direction, atol=1e-6)


def test_the_words_of_the_header_go_back(tmp_path):
    """F03."""
    volume = metaimage.read(hand_written(tmp_path / "a.mha", MATRIX + SPACING + "DistanceUnits = um\n"))
    assert (volume.unit, volume.orientation, volume.spacing) == ("um", "RAS", (2.0, 0.75, 0.5))
    metaimage.write(tmp_path / "b.mha", volume.array, volume.source)
    written = (tmp_path / "b.mha").read_bytes().decode("latin-1")
    for line in (*MATRIX.splitlines(), SPACING, "DistanceUnits = um\n"):
        assert line in written


def test_without_a_matrix_the_volume_stands_as_stored_and_that_is_said(tmp_path):
    volume = metaimage.read(hand_written(tmp_path / "a.mha", SPACING))
    assert (volume.orientation, volume.spacing, volume.unit) == ("stored", (2.0, 0.75, 0.5), "mm")
    assert any("patient" in note for note in volume.notes)
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    metaimage.write(tmp_path / "b.mha", volume.array, volume.source)
    assert b"TransformMatrix" not in (tmp_path / "b.mha").read_bytes()


@pytest.mark.parametrize("fields", ["", MATRIX])
def test_no_voxel_size_is_unknown_and_stays_so(tmp_path, fields):
    """I10: never 1."""
    volume = metaimage.read(hand_written(tmp_path / "a.mha", fields))
    assert (volume.spacing, volume.unit, volume.orientation) == (None, None, "stored")
    metaimage.write(tmp_path / "b.mha", volume.array, volume.source)
    assert metaimage.read(tmp_path / "b.mha").spacing is None


def test_an_element_size_is_a_spacing(tmp_path):
    volume = metaimage.read(hand_written(tmp_path / "a.mha", "ElementSize = 0.5 0.75 2\n"))
    assert volume.spacing == (2.0, 0.75, 0.5)


def test_components_are_channels(tmp_path):
    pairs = np.stack([ARRAY, -ARRAY], axis=-1)
    image = sitk.GetImageFromArray(pairs, isVector=True)
    sitk.WriteImage(image, tmp_path / "a.mha")
    volume = metaimage.read(tmp_path / "a.mha")
    np.testing.assert_array_equal(volume.array, np.moveaxis(pairs, -1, 0)[:, :, ::-1, ::-1])


def test_a_fourth_axis_is_for_the_user_to_name(tmp_path):
    """I07: with the two choices there are; the geometry is that of three axes."""
    still = sitk.GetImageFromArray(ARRAY)
    still.SetSpacing((0.5, 0.75, 2))
    sitk.WriteImage(still, tmp_path / "still.mha")
    sitk.WriteImage(sitk.JoinSeries([still, still + 1], 0.0, 3.0), tmp_path / "a.mha")
    with pytest.raises(VolumeError, match=r"XYZC for channels.*XYZT --time"):
        metaimage.read(tmp_path / "a.mha")
    expected = metaimage.read(tmp_path / "still.mha")
    first = expected.array[:]
    channels = metaimage.read(tmp_path / "a.mha", ReadChoices(axes="XYZC"))
    np.testing.assert_array_equal(channels.array, np.concatenate([first, first + 1]))
    moment = metaimage.read(tmp_path / "a.mha", ReadChoices(axes="XYZT", time=1))
    np.testing.assert_array_equal(moment.array, first + 1)
    for volume in (channels, moment):
        assert geometry(volume) == geometry(expected)
    metaimage.write(tmp_path / "b.mha", moment.array, moment.source)
    assert same_geometry(tmp_path / "still.mha", tmp_path / "b.mha")


def test_a_plane_is_one_slice_and_goes_back_as_a_plane(tmp_path):
    path = hand_written(tmp_path / "a.mha", "ElementSpacing = 0.5 0.75\n", ARRAY[0])
    volume = metaimage.read(path)
    assert (volume.array.shape, volume.spacing) == ((1, 1, 5, 6), (0.5, 0.75, 0.5))
    metaimage.write(tmp_path / "b.mha", volume.array, volume.source)
    image = sitk.ReadImage(tmp_path / "b.mha")
    assert (image.GetSize(), image.GetSpacing()) == ((6, 5), (0.5, 0.75))


@pytest.mark.parametrize("key", ["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])
def test_a_big_endian_file_reads_the_same(tmp_path, key):
    """I19."""
    path = hand_written(tmp_path / "a.mha", f"{key} = True\n", data=ARRAY.astype(">i2").tobytes())
    volume = metaimage.read(path)
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert volume.array.dtype.isnative


@pytest.mark.parametrize(("size", "before"), [(3, 3), (-1, 5)])
def test_bytes_before_the_voxels_are_left_out(tmp_path, size, before):
    (tmp_path / "a.raw").write_bytes(b"x" * before + ARRAY.tobytes())
    path = hand_written(tmp_path / "a.mhd", f"HeaderSize = {size}\n", data=b"", where="a.raw")
    np.testing.assert_array_equal(metaimage.read(path).array[0], ARRAY)


def test_a_large_uncompressed_file_stays_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(lazy, "WHOLE_BYTES", 10)
    volume = metaimage.read(hand_written(tmp_path / "a.mha", MATRIX + SPACING))
    assert isinstance(volume.array, lazy.LazyArray)
    np.testing.assert_array_equal(volume.array[:, 1:3, 2:5], ARRAY[None, 1:3, ::-1, ::-1][:, :, 2:5])


@pytest.mark.parametrize("where", ["a.raw", "LIST\nb0.raw\nb1.raw\n", "b%01d.raw 0 1 1"])
def test_a_header_of_its_own_finds_the_voxels(tmp_path, where):
    (tmp_path / "a.raw").write_bytes(ARRAY.tobytes())
    for n in range(2):
        (tmp_path / f"b{n}.raw").write_bytes(ARRAY[2 * n : 2 * n + 2].tobytes())
    path = hand_written(tmp_path / "a.mhd", "", data=b"", where=where)
    np.testing.assert_array_equal(metaimage.read(path).array[0], ARRAY)


@pytest.mark.parametrize("where", ["{}/secret.raw", "../secret.raw", "LIST\n../secret.raw", "absent.raw"])
def test_voxels_elsewhere_or_absent_are_refused(tmp_path, where):
    (tmp_path / "secret.raw").write_bytes(ARRAY.tobytes())
    (tmp_path / "data").mkdir()
    path = hand_written(tmp_path / "data" / "a.mhd", "", data=b"", where=where.format(tmp_path))
    with pytest.raises(VolumeError, match="beside its header"):
        metaimage.read(path)


@pytest.mark.parametrize("change", [-1, 1])
def test_too_few_or_too_many_bytes_are_refused(tmp_path, change):
    path = hand_written(tmp_path / "a.mha", "", data=(ARRAY.tobytes() + b"\0")[: ARRAY.nbytes + change])
    with pytest.raises(VolumeError, match=f"{ARRAY.nbytes + change} bytes of voxels .* {ARRAY.nbytes}"):
        metaimage.read(path)


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_compressed_voxels_are_checked(tmp_path, damage):
    """I15: SimpleITK prints "Uncompress failed" and returns other voxels."""
    packed = zlib.compress(ARRAY.tobytes())
    data = packed[:-1] if damage == "cut" else packed[:-1] + bytes([packed[-1] ^ 1])
    with pytest.raises(zlib.error):
        metaimage.read(hand_written(tmp_path / "a.mha", "CompressedData = True\n", data=data))


@pytest.mark.parametrize(("fields", "kind"), [("", "MET_STRING"), ("BinaryData = False\n", "MET_SHORT")])
def test_voxels_that_are_no_plain_numbers_are_refused(tmp_path, fields, kind):
    with pytest.raises(VolumeError, match="binary numbers"):
        metaimage.read(hand_written(tmp_path / "a.mha", fields, kind=kind))


@pytest.mark.parametrize("size", ["0", "nan", "inf"])
def test_impossible_voxel_sizes_are_refused(tmp_path, size):
    with pytest.raises(VolumeError, match="Voxel sizes are finite"):
        metaimage.read(hand_written(tmp_path / "a.mha", f"{MATRIX}ElementSpacing = 1 1 {size}\n"))
