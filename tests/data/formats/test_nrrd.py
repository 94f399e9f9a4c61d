"""NRRD: geometry, units and axes are the header's own, in both directions; ITK reads the same."""

import gzip
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from fewvox.data.errors import VolumeError
from fewvox.data.formats import lazy, nifti, nrrd
from fewvox.data.formats.choices import ReadChoices
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.eulerangles import euler2mat

ARRAY = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
LPS = "space: left-posterior-superior\nspace origin: (1.5,-2.25,7)\n"
DIRECTIONS = "space directions: (0.5,0,0) (0,0.75,0) (0,0,2)\n"
DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
ORIENTATIONS = [
    np.diag(flips)[:, list(axes)] for axes in permutations(range(3)) for flips in product((1, -1), repeat=3)
]


def hand_written(
    path: Path, fields: str, array: np.ndarray = ARRAY, kind: str = "short", data: bytes | None = None
) -> Path:
    """An NRRD with these fields and the array raw behind them (its last axis is the fastest)."""
    head = (
        f"NRRD0005\n# by hand\ntype: {kind}\ndimension: {array.ndim}\nendian: little\nencoding: raw\n"
        f"sizes: {' '.join(map(str, reversed(array.shape)))}\n{fields}\n"
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


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr"])
def test_every_orientation_reads_as_in_nifti_and_goes_back(tmp_path, suffix):
    """F03."""
    for direction in ORIENTATIONS:
        path = from_itk(tmp_path / f"a{suffix}", ARRAY, direction)
        expected = nifti.read(from_itk(tmp_path / "a.nii", ARRAY, direction))
        volume = nrrd.read(path)
        np.testing.assert_array_equal(volume.array, expected.array)
        assert geometry(volume) == geometry(expected)
        out = tmp_path / f"b{suffix}"
        nrrd.write(out, volume.array[0].astype(np.uint8), volume.source)
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
    path = from_itk(folder / "a.nrrd", np.zeros(shape, np.uint8), euler2mat(*angles), spacing)
    source = nrrd.read(path)
    values = np.arange(channels * np.prod(shape)).reshape(channels, *source.shape).astype(dtype)
    nrrd.write(folder / "b.nrrd", values, source.source)
    again = nrrd.read(folder / "b.nrrd")
    np.testing.assert_array_equal(again.array, values)
    assert again.array.dtype == dtype
    assert geometry(again) == geometry(source)
    if again.array.shape[0] == 1:
        assert again.source == source.source
    assert same_geometry(path, folder / "b.nrrd")


def test_an_oblique_volume_is_the_same_in_nifti(tmp_path):
    direction = euler2mat(0.2, -0.15, 0.1)
    expected = nifti.read(from_itk(tmp_path / "a.nii", ARRAY, direction))
    volume = nrrd.read(from_itk(tmp_path / "a.nrrd", ARRAY, direction))
    np.testing.assert_array_equal(volume.array, expected.array)
    assert volume.spacing == expected.spacing
    np.testing.assert_allclose(volume.origin, expected.origin, atol=1e-5)  # float32 in NIfTI
    np.testing.assert_allclose(volume.direction, expected.direction, atol=1e-6)


def test_an_identity_labeller_returns_the_oblique_source_to_the_letter(tmp_path):
    """F03."""
    path = hand_written(
        tmp_path / "a.nrrd",
        "space: RAS\nspace directions: (0.1,0.3,0) (-0.3,.1,0) (0,0,-1e0)\nspace origin: (1.10,2,3)\n",
    )
    volume = nrrd.read(path)
    nrrd.write(tmp_path / "b.nrrd", volume.array, volume.source)
    written = (tmp_path / "b.nrrd").read_bytes().split(b"\n\n")[0].decode()
    for line in ("space: RAS", "space directions: (0.1,0.3,0) (-0.3,.1,0) (0,0,-1e0)", "(1.10,2,3)"):
        assert line in written
    np.testing.assert_array_equal(nrrd.read(tmp_path / "b.nrrd").array, volume.array)


@pytest.mark.parametrize(("space", "signs"), [("RAS", (1, 1)), ("LAS", (-1, 1)), ("LPS", (-1, -1))])
def test_the_frames_of_patients_meet_in_ras(tmp_path, space, signs):
    path = hand_written(tmp_path / "a.nrrd", f"space: {space}\nspace origin: (1,2,3)\n{DIRECTIONS}")
    x, y = signs
    flipped = ARRAY[:, ::y, ::x]
    volume = nrrd.read(path)
    np.testing.assert_array_equal(volume.array[0], flipped)
    first = (3.0, 2 * y - 0.75 * 4 * (y < 0), x - 0.5 * 5 * (x < 0))
    assert volume.origin == first
    assert volume.spacing == (2.0, 0.75, 0.5)


def test_a_voxel_size_without_a_frame_stands_as_stored_and_is_said(tmp_path):
    volume = nrrd.read(hand_written(tmp_path / "a.nrrd", "spacings: 0.5 0.75 2\n"))
    assert (volume.orientation, volume.spacing) == ("stored", (2.0, 0.75, 0.5))
    assert any("patient" in note for note in volume.notes)
    np.testing.assert_array_equal(volume.array[0], ARRAY)


def test_no_voxel_size_is_unknown_and_stays_so(tmp_path):
    """I10: never 1."""
    volume = nrrd.read(hand_written(tmp_path / "a.nrrd", ""))
    assert (volume.spacing, volume.unit, volume.orientation) == (None, None, "stored")
    nrrd.write(tmp_path / "b.nrrd", volume.array, volume.source)
    assert nrrd.read(tmp_path / "b.nrrd").spacing is None


@pytest.mark.parametrize(
    ("words", "unit", "spacing"),
    [
        ('space units: "um" "um" "um"\n', "um", (2.0, 0.75, 0.5)),
        ('space units: "mm" "mm" "mm"\n', "mm", (2.0, 0.75, 0.5)),
        ("", "mm", (2.0, 0.75, 0.5)),
        ('space units: "pixel" "pixel" "pixel"\n', None, None),
        ('space units: "mm" "mm" "um"\n', None, None),
    ],
)
def test_units_are_the_headers_and_go_back(tmp_path, words, unit, spacing):
    volume = nrrd.read(hand_written(tmp_path / "a.nrrd", LPS + DIRECTIONS + words))
    assert (volume.unit, volume.spacing) == (unit, spacing)
    nrrd.write(tmp_path / "b.nrrd", volume.array, volume.source)
    assert geometry(nrrd.read(tmp_path / "b.nrrd")) == geometry(volume)
    assert words.encode() in (tmp_path / "b.nrrd").read_bytes()


@pytest.mark.parametrize("place", ["first", "last"])
def test_the_layers_of_a_segmentation_are_channels(tmp_path, place):
    """I07."""
    layers = np.stack([ARRAY, ARRAY + 1])
    first = place == "first"
    fields = (
        f"{LPS}kinds: {'list domain domain domain' if first else 'domain domain domain list'}\n"
        f"space directions: {'none ' * first}(0.5,0,0) (0,0.75,0) (0,0,2){' none' * (not first)}\n"
        "Segment0_Name:=liver: left\n"
    )
    stored = np.moveaxis(layers, 0, -1) if first else layers
    volume = nrrd.read(hand_written(tmp_path / "a.seg.nrrd", fields, np.ascontiguousarray(stored)))
    np.testing.assert_array_equal(volume.array, layers[:, :, ::-1, ::-1])
    assert volume.spacing == (2.0, 0.75, 0.5)
    nrrd.write(tmp_path / "b.nrrd", volume.array, volume.source)
    again = nrrd.read(tmp_path / "b.nrrd")
    np.testing.assert_array_equal(again.array, volume.array)
    assert geometry(again) == geometry(volume)


@pytest.mark.parametrize("kinds", ["domain domain domain list", "domain domain domain domain", ""])
def test_a_fourth_axis_is_for_the_user_to_name(tmp_path, kinds):
    """I07: with the two choices there are."""
    frames = np.stack([ARRAY, ARRAY + 1])
    path = hand_written(tmp_path / "a.nrrd", f"kinds: {kinds}\n" if kinds else "", frames)
    with pytest.raises(VolumeError, match=r"XYZC for channels.*XYZT --time"):
        nrrd.read(path)
    channels = nrrd.read(path, ReadChoices(axes="XYZC"))
    np.testing.assert_array_equal(channels.array, frames)
    moment = nrrd.read(path, ReadChoices(axes="XYZT", time=1))
    np.testing.assert_array_equal(moment.array, frames[1:])
    for wrong in (ReadChoices(axes="XYZT"), ReadChoices(axes="XYZT", time=2), ReadChoices(axes="CXYZ")):
        with pytest.raises(VolumeError):
            nrrd.read(path, wrong)


def test_an_axis_of_time_needs_a_time_point(tmp_path):
    frames = np.stack([ARRAY, ARRAY + 1])
    fields = "space: LPS\nkinds: domain domain domain time\nspace directions: (1,0,0) (0,1,0) (0,0,3) none\n"
    path = hand_written(tmp_path / "a.nrrd", fields, frames)
    with pytest.raises(VolumeError, match="2 time points"):
        nrrd.read(path)
    volume = nrrd.read(path, ReadChoices(time=1))
    np.testing.assert_array_equal(volume.array[0], frames[1, :, ::-1, ::-1])
    nrrd.write(tmp_path / "b.nrrd", volume.array, volume.source)
    assert geometry(nrrd.read(tmp_path / "b.nrrd")) == geometry(volume)


@pytest.mark.parametrize("space", ["LPST", "left-posterior-superior-time"])
@pytest.mark.parametrize("first", [True, False])
def test_a_space_with_time_is_left_without_it(tmp_path, space, first):
    frames = np.stack([ARRAY, ARRAY + 1], axis=-1 if first else 0)
    steps = ["(0.5,0,0,0)", "(0,0.75,0,0)", "(0,0,2,0)"]
    steps.insert(0 if first else 3, "(0,0,0,0.1)")
    fields = f"space: {space}\nspace directions: {' '.join(steps)}\nspace origin: (1.5,-2.25,7,3)\n"
    volume = nrrd.read(hand_written(tmp_path / "a.nrrd", fields, frames), ReadChoices(time=1))
    expected = nrrd.read(hand_written(tmp_path / "still.nrrd", LPS + DIRECTIONS, ARRAY + 1))
    np.testing.assert_array_equal(volume.array, expected.array[:])
    assert geometry(volume) == geometry(expected)
    nrrd.write(tmp_path / "b.nrrd", volume.array, volume.source)
    assert same_geometry(tmp_path / "still.nrrd", tmp_path / "b.nrrd")


def test_a_fourth_axis_of_extent_1_is_dropped_and_noted(tmp_path):
    volume = nrrd.read(hand_written(tmp_path / "a.nrrd", "", ARRAY[None]))
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert any("extent 1" in note for note in volume.notes)


def test_a_plane_is_one_slice_and_goes_back_as_a_plane(tmp_path):
    path = hand_written(tmp_path / "a.nrrd", "spacings: 0.5 0.75\n", ARRAY[0])
    volume = nrrd.read(path)
    assert (volume.array.shape, volume.spacing) == ((1, 1, 5, 6), (0.5, 0.75, 0.5))
    nrrd.write(tmp_path / "b.nrrd", volume.array, volume.source)
    image = sitk.ReadImage(tmp_path / "b.nrrd")
    assert (image.GetSize(), image.GetSpacing()) == ((6, 5), (0.5, 0.75))


def test_a_big_endian_file_reads_the_same(tmp_path):
    """I19."""
    path = hand_written(tmp_path / "a.nrrd", "", data=ARRAY.astype(">i2").tobytes())
    path.write_bytes(path.read_bytes().replace(b"endian: little", b"endian: big"))
    volume = nrrd.read(path)
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert volume.array.dtype.isnative


def test_a_large_raw_file_stays_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(lazy, "WHOLE_BYTES", 10)
    volume = nrrd.read(hand_written(tmp_path / "a.nrrd", LPS + DIRECTIONS))
    assert isinstance(volume.array, lazy.LazyArray)
    assert volume.array.chunk == (1, 5, 6)
    np.testing.assert_array_equal(volume.array[:, 1:3, 2:5], ARRAY[None, 1:3, ::-1, ::-1][:, :, 2:5])


@pytest.mark.parametrize("data", ["a.raw", "deep/a.raw", "LIST\nb0.raw\nb1.raw", "b%d.raw 0 1 1"])
def test_a_detached_header_finds_its_voxels(tmp_path, data):
    (tmp_path / "deep").mkdir()
    for name in ("a.raw", "deep/a.raw"):
        (tmp_path / name).write_bytes(ARRAY.tobytes())
    for n in range(2):
        (tmp_path / f"b{n}.raw").write_bytes(ARRAY[2 * n : 2 * n + 2].tobytes())
    path = hand_written(tmp_path / "a.nhdr", f"data file: {data}", data=b"")
    np.testing.assert_array_equal(nrrd.read(path).array[0], ARRAY)


@pytest.mark.parametrize("data", ["{}/secret.raw", "../secret.raw", "LIST\n../secret.raw", "absent.raw"])
def test_voxels_elsewhere_or_absent_are_refused(tmp_path, data):
    (tmp_path / "secret.raw").write_bytes(ARRAY.tobytes())
    (tmp_path / "data").mkdir()
    path = hand_written(tmp_path / "data" / "a.nhdr", f"data file: {data.format(tmp_path)}\n", data=b"")
    with pytest.raises(VolumeError, match="beside its header"):
        nrrd.read(path)


@pytest.mark.parametrize("change", [-1, 1])
def test_too_few_or_too_many_bytes_are_refused(tmp_path, change):
    path = hand_written(tmp_path / "a.nrrd", "", data=(ARRAY.tobytes() + b"\0")[: ARRAY.nbytes + change])
    with pytest.raises(VolumeError, match=f"{ARRAY.nbytes + change} bytes of voxels .* {ARRAY.nbytes}"):
        nrrd.read(path)


def test_compressed_voxels_are_checked_against_their_checksum(tmp_path):
    """I15."""
    packed = bytearray(gzip.compress(ARRAY.tobytes()))
    packed[-6] ^= 1
    path = hand_written(tmp_path / "a.nrrd", "", data=bytes(packed))
    path.write_bytes(path.read_bytes().replace(b"encoding: raw", b"encoding: gzip"))
    with pytest.raises(gzip.BadGzipFile, match="CRC"):
        nrrd.read(path)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [("", "block"), ("encoding: text\n", "short"), ("line skip: 2\n", "short")],
)
def test_voxels_that_are_no_plain_numbers_are_refused(tmp_path, fields, kind):
    with pytest.raises(VolumeError, match="3D Slicer or ITK"):
        nrrd.read(hand_written(tmp_path / "a.nrrd", fields, kind=kind))


@pytest.mark.parametrize("size", ["0", "nan", "inf"])
def test_impossible_steps_are_refused(tmp_path, size):
    fields = f"{LPS}space directions: (1,0,0) (0,1,0) (0,0,{size})\n"
    with pytest.raises(VolumeError, match="Voxel sizes are finite"):
        nrrd.read(hand_written(tmp_path / "a.nrrd", fields))


@pytest.mark.parametrize(("dtype", "stored"), [("bool", "uint8"), ("float16", "float32")])
def test_types_that_nrrd_lacks_are_widened(tmp_path, dtype, stored):
    volume = nrrd.read(hand_written(tmp_path / "a.nrrd", ""))
    values = (ARRAY % 2).astype(dtype)
    nrrd.write(tmp_path / "b.nrrd", values, volume.source)
    again = nrrd.read(tmp_path / "b.nrrd").array
    assert again.dtype == stored
    np.testing.assert_array_equal(again[0], values)


def test_a_result_of_another_shape_is_refused(tmp_path):
    volume = nrrd.read(hand_written(tmp_path / "a.nrrd", ""))
    with pytest.raises(ValueError, match="shape"):
        nrrd.write(tmp_path / "b.nrrd", ARRAY[:2], volume.source)
