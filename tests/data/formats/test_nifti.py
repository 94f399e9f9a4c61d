"""NIfTI: orientations, scaling and geometry survive; what is no scalar 3D volume is refused."""

import gzip
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from fewvox.data.errors import VolumeError
from fewvox.data.formats import lazy, nifti
from fewvox.data.formats.choices import ReadChoices
from fewvox.data.formats.files import open_volume
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine, from_matvec
from nibabel.eulerangles import euler2mat
from nibabel.orientations import inv_ornt_aff

ROTATION: Any = euler2mat  # whose annotations say int
SPACING_XYZ = (0.5, 0.75, 2.0)
ORIENTATIONS = [
    np.column_stack([axes, flips]) for axes in permutations(range(3)) for flips in product((1, -1), repeat=3)
]
OBLIQUE = from_matvec(ROTATION(0.2, -0.15, 0.1) @ np.diag((-0.5, 0.75, 2.0)), (-12.5, 30.25, 7.0))


def ras_affine() -> np.ndarray:
    return from_matvec(np.diag(SPACING_XYZ), (-10.0, 20.0, 5.0))


def counting(shape: tuple[int, ...], dtype: str = "int16") -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def load(path: Path) -> Any:
    return nib.load(path)


def save(path: Path, data: np.ndarray, affine: np.ndarray, *, version: int = 1, unit: str = "mm") -> Path:
    image = (nib.Nifti1Image if version == 1 else nib.Nifti2Image)(data, affine, dtype=data.dtype)
    image.header.set_xyzt_units(unit, "sec")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=4)
    nib.save(image, path)
    return path


def edited(path: Path, offset: int, values: np.ndarray) -> Path:
    """The NIfTI-1 file with bytes of its header overwritten."""
    content = bytearray(path.read_bytes())
    content[offset : offset + values.nbytes] = values.tobytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda o: "".join(nib.orientations.ornt2axcodes(o)))
@pytest.mark.parametrize("version", [1, 2])
def test_every_orientation_reads_as_the_same_volume_and_goes_back(tmp_path, orientation, version):
    canonical = counting((4, 5, 6))
    back = nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], orientation)
    stored = nib.orientations.apply_orientation(canonical, back)
    affine = ras_affine() @ np.linalg.inv(inv_ornt_aff(orientation, stored.shape))
    path = save(tmp_path / "a.nii", stored, affine, version=version)

    volume = nifti.read(path)
    np.testing.assert_array_equal(volume.array[0], canonical.T)
    assert volume.spacing == SPACING_XYZ[::-1]
    assert volume.origin == (5.0, 20.0, -10.0)
    np.testing.assert_array_equal(volume.direction, np.eye(3))

    nifti.write(tmp_path / "b.nii", volume.array[0].astype(np.uint8), volume.source)
    assert_same_geometry(path, tmp_path / "b.nii")
    np.testing.assert_array_equal(np.asanyarray(load(tmp_path / "b.nii").dataobj), stored)


def assert_same_geometry(first: Path, second: Path) -> None:
    one, other = load(first), load(second)
    assert type(one) is type(other)
    assert one.shape == other.shape
    np.testing.assert_array_equal(one.affine, other.affine)
    for key in ("pixdim", "qform_code", "sform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d"):
        np.testing.assert_array_equal(one.header[key], other.header[key], err_msg=key)
    for key in ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"):
        np.testing.assert_array_equal(one.header[key], other.header[key], err_msg=key)


def test_an_oblique_affine_is_kept_to_the_bit(tmp_path):
    path = save(tmp_path / "a.nii.gz", counting((4, 5, 6)), OBLIQUE)
    volume = nifti.read(path)
    nifti.write(tmp_path / "b.nii.gz", volume.array, volume.source)
    assert_same_geometry(path, tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(load(tmp_path / "b.nii.gz").get_fdata(), load(path).get_fdata())


def test_every_voxel_of_an_oblique_volume_keeps_its_place_in_the_world(tmp_path):
    stored = counting((4, 5, 6))
    volume = nifti.read(save(tmp_path / "a.nii", stored, OBLIQUE))
    assert volume.spacing == pytest.approx((2.0, 0.75, 0.5))
    for index in [(0, 0, 0), (3, 1, 5), (1, 4, 2)]:
        (place,) = np.argwhere(volume.array[0] == stored[index])
        world = np.array(volume.origin) + np.array(volume.direction) @ (np.array(volume.spacing) * place)
        np.testing.assert_allclose(world[::-1], apply_affine(OBLIQUE, index), atol=1e-5)


def test_without_form_codes_the_geometry_stays_uncoded(tmp_path):
    image = nib.Nifti1Image(counting((4, 5, 6)), None)
    image.header.set_zooms(SPACING_XYZ)
    nib.save(image, tmp_path / "a.nii")
    volume = nifti.read(tmp_path / "a.nii")
    assert volume.spacing == SPACING_XYZ[::-1]
    nifti.write(tmp_path / "b.nii", volume.array, volume.source)
    assert_same_geometry(tmp_path / "a.nii", tmp_path / "b.nii")
    assert load(tmp_path / "b.nii").header["sform_code"] == 0


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    zooms=st.tuples(*[st.floats(0.01, 100)] * 3),
    flip=st.booleans(),
)
def test_any_rotated_grid_round_trips(tmp_path_factory, shape, angles, zooms, flip):
    folder = tmp_path_factory.mktemp("grid")
    matrix = ROTATION(*angles) @ np.diag(zooms) @ np.diag((-1 if flip else 1, 1, 1))
    path = save(folder / "a.nii", counting(shape), from_matvec(matrix, (1, -2, 3)))
    volume = nifti.read(path)
    nifti.write(folder / "b.nii", volume.array, volume.source)
    assert_same_geometry(path, folder / "b.nii")
    np.testing.assert_array_equal(load(folder / "b.nii").dataobj, load(path).dataobj)


@pytest.mark.parametrize(("name", "unit"), [("mm", "mm"), ("micron", "um"), ("meter", "m")])
def test_units_are_those_of_the_header(tmp_path, name, unit):
    volume = nifti.read(save(tmp_path / "a.nii", counting((4, 5, 6)), ras_affine(), unit=name))
    assert (volume.unit, volume.spacing, volume.notes) == (unit, SPACING_XYZ[::-1], ())


def test_an_unknown_unit_is_taken_for_mm_and_noted_but_written_back_as_unknown(tmp_path):
    path = save(tmp_path / "a.nii", counting((4, 5, 6)), ras_affine(), unit="unknown")
    volume = nifti.read(path)
    assert volume.unit == "mm"
    assert any("no unit of length" in note for note in volume.notes)
    nifti.write(tmp_path / "b.nii", volume.array, volume.source)
    assert load(tmp_path / "b.nii").header.get_xyzt_units()[0] == "unknown"


@pytest.mark.parametrize(
    ("data", "slope", "inter", "expected"),
    [
        (np.array([-32768, 0, 32767], np.int16), 0.5, 10.0, np.array([-16374, 10, 16393.5], np.float32)),
        (np.array([0, 1, 65535], np.uint16), 0.5, 0.0, np.array([0, 0.5, 32767.5], np.float32)),
        (np.array([-32768, 0, 32767], np.int16), 1.0, -1024.0, np.array([-33792, -1024, 31743], np.float32)),
        (np.array([0, 1, 2**31 - 1], np.int32), 0.5, 0.0, np.array([0, 0.5, 2**30 - 0.5], np.float64)),
        (np.array([-32768, 0, 32767], np.int16), 0.0, 7.0, np.array([-32768, 0, 32767], np.int16)),
        (np.array([-32768, 0, 32767], np.int16), np.nan, np.nan, np.array([-32768, 0, 32767], np.int16)),
        (np.array([0, 1, 65535], np.uint16), 1.0, 0.0, np.array([0, 1, 65535], np.uint16)),
    ],
)
def test_scaling_is_exact_and_leaves_unscaled_types_alone(tmp_path, data, slope, inter, expected):
    path = save(tmp_path / "a.nii", data.reshape(3, 1, 1), ras_affine())
    volume = nifti.read(edited(path, 112, np.array([slope, inter], np.float32)))
    assert volume.array.dtype == expected.dtype
    np.testing.assert_array_equal(volume.array.ravel(), expected)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "float32", "float64"])
def test_big_endian_voxels_become_native(tmp_path, dtype):
    data = counting((4, 5, 6), dtype) - 50
    nib.save(
        nib.Nifti1Image(data, ras_affine(), nib.Nifti1Header(endianness=">"), dtype=dtype), tmp_path / "a.nii"
    )
    assert (tmp_path / "a.nii").read_bytes()[:4] == (348).to_bytes(4, "big")
    volume = nifti.read(tmp_path / "a.nii")
    assert volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.array[0], data.T)
    nifti.write(tmp_path / "b.nii", volume.array, volume.source)
    assert_same_geometry(tmp_path / "a.nii", tmp_path / "b.nii")
    np.testing.assert_array_equal(load(tmp_path / "b.nii").dataobj, data)


def test_float64_is_not_narrowed(tmp_path):
    volume = nifti.read(save(tmp_path / "a.nii", np.full((2, 3, 4), 1e300), ras_affine()))
    assert volume.array.dtype == np.float64
    assert (volume.array == 1e300).all()


def test_a_mask_of_a_scaled_image_is_unscaled_and_forgets_the_image_values(tmp_path):
    path = save(tmp_path / "a.nii", counting((4, 5, 6)), ras_affine())
    edited(path, 112, np.array([0.5, 10.0], np.float32))
    edited(path, 124, np.array([900.0, 1.0], np.float32))  # cal_max, cal_min
    volume = nifti.read(path)
    mask = (counting((6, 5, 4)) % 300).astype(np.uint16)
    nifti.write(tmp_path / "b.nii.gz", mask, volume.source)
    written = load(tmp_path / "b.nii.gz")
    assert written.get_data_dtype() == np.uint16
    assert (written.dataobj.slope, written.dataobj.inter) == (1.0, 0.0)
    assert (written.header["cal_max"], written.header["cal_min"]) == (0, 0)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), mask.T)


def test_channels_become_the_fourth_axis(tmp_path):
    volume = nifti.read(save(tmp_path / "a.nii", counting((4, 5, 6)), OBLIQUE))
    probabilities = np.stack([volume.array[0], -volume.array[0]]).astype(np.float32)
    nifti.write(tmp_path / "b.nii", probabilities, volume.source)
    written = load(tmp_path / "b.nii")
    assert written.shape == (4, 5, 6, 2)
    np.testing.assert_array_equal(written.affine, load(tmp_path / "a.nii").affine)
    np.testing.assert_array_equal(written.get_fdata()[..., 1], -counting((4, 5, 6)))


def test_a_boolean_mask_is_written_as_uint8(tmp_path):
    volume = nifti.read(save(tmp_path / "a.nii", counting((4, 5, 6)), ras_affine()))
    nifti.write(tmp_path / "b.nii", volume.array[0] > 50, volume.source)
    assert load(tmp_path / "b.nii").get_data_dtype() == np.uint8
    assert np.asanyarray(load(tmp_path / "b.nii").dataobj).sum() == 69


def test_a_result_of_another_shape_is_refused(tmp_path):
    volume = nifti.read(save(tmp_path / "a.nii", counting((4, 5, 6)), ras_affine()))
    with pytest.raises(ValueError, match="shape"):
        nifti.write(tmp_path / "b.nii", np.zeros((6, 5, 5), np.uint8), volume.source)


@pytest.mark.parametrize("shape", [(4, 5, 6, 1), (4, 5, 6, 1, 1)])
def test_trailing_axes_of_extent_1_are_dropped_and_noted(tmp_path, shape):
    volume = nifti.read(save(tmp_path / "a.nii", counting(shape), ras_affine()))
    assert volume.array.shape == (1, 6, 5, 4)
    assert any("extent 1" in note for note in volume.notes)
    nifti.write(tmp_path / "b.nii", volume.array, volume.source)
    assert load(tmp_path / "b.nii").shape == (4, 5, 6)


def test_a_plane_is_one_slice_and_goes_back_as_a_plane(tmp_path):
    volume = nifti.read(save(tmp_path / "a.nii", counting((4, 5)), ras_affine()))
    assert volume.array.shape == (1, 1, 5, 4)
    nifti.write(tmp_path / "b.nii", volume.array, volume.source)
    assert_same_geometry(tmp_path / "a.nii", tmp_path / "b.nii")


@pytest.mark.parametrize("shape", [(4, 5, 6, 2), (4, 5, 6, 1, 3), (4, 5, 6, 2, 3)])
def test_further_axes_are_for_the_user_to_name(tmp_path, shape):
    """I07: channels, time points or an error, never a guess."""
    with pytest.raises(VolumeError, match="as a 3D file of its own") as caught:
        nifti.read(save(tmp_path / "a.nii", counting(shape), ras_affine()))
    assert str(shape) in caught.value.found
    assert "--axes XYZC" in caught.value.remedy
    assert "--axes XYZT --time N" in caught.value.remedy


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(
    ("shape", "axes", "time"),
    [
        ((4, 5, 6, 3), "XYZC", None),
        ((4, 5, 6, 3), "XYZT", 2),
        ((4, 5, 6, 1, 3), "XYZC", None),
        ((4, 5, 6, 1, 3), "XYZTC", None),
        ((4, 5, 6, 2, 3), "XYZTC", 1),
        ((4, 5, 6, 2, 3), "XYZCT", 2),
        ((4, 5, 6, 1), "XYZC", None),
    ],
)
def test_declared_axes_give_channels_or_a_time_point(tmp_path, shape, axes, time, name):
    data = counting(shape)
    path = save(tmp_path / name, data, OBLIQUE)
    volume = nifti.read(path, ReadChoices(axes=axes, time=time))
    data = data.squeeze() if len(axes) < len(shape) else data
    data = data.take(time or 0, axes.index("T")) if "T" in axes else data
    channels = data.reshape(4, 5, 6, -1)
    for c, found in enumerate(volume.array):
        np.testing.assert_array_equal(found, channels[::-1, :, :, c].T)
    assert volume.spacing == pytest.approx((2.0, 0.75, 0.5))
    assert any(f"declared as {axes}" in note for note in volume.notes)
    nifti.write(tmp_path / "b.nii", volume.array[0], volume.source)
    mask = load(tmp_path / "b.nii")
    np.testing.assert_array_equal(mask.affine, load(path).affine)
    np.testing.assert_array_equal(mask.dataobj, channels[..., 0])
    assert mask.header["dim"][0] == 3


@pytest.mark.parametrize("axes", ["ZYXC", "XYZ", "XYZTC", "XYZZ"])
def test_declared_axes_that_do_not_fit_are_refused(tmp_path, axes):
    path = save(tmp_path / "a.nii", counting((4, 5, 6, 2)), ras_affine())
    with pytest.raises(VolumeError, match=rf"\(4, 5, 6, 2\).*for the declared axes {axes}"):
        nifti.read(path, ReadChoices(axes=axes))


@pytest.mark.parametrize("time", [None, 3])
def test_a_time_point_that_is_not_there_is_refused(tmp_path, time):
    path = save(tmp_path / "a.nii", counting((4, 5, 6, 3)), ras_affine())
    with pytest.raises(VolumeError, match="3 time points"):
        nifti.read(path, ReadChoices(axes="XYZT", time=time))


def test_a_time_point_of_a_file_without_time_is_refused(tmp_path):
    path = save(tmp_path / "a.nii", counting((4, 5, 6)), ras_affine())
    assert nifti.read(path, ReadChoices(time=0)).shape == (6, 5, 4)
    with pytest.raises(VolumeError, match="1 time point"):
        nifti.read(path, ReadChoices(time=1))


def test_components_of_vectors_are_channels(tmp_path):
    data = counting((4, 5, 6, 1, 3))
    image = nib.Nifti1Image(data, ras_affine())
    image.header.set_intent("vector")
    nib.save(image, tmp_path / "a.nii")
    volume = nifti.read(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.array, data[:, :, :, 0].T)
    assert any("vectors" in note for note in volume.notes)


@pytest.mark.parametrize("letters", ["RGB", "RGBA"])
def test_colours_are_channels(tmp_path, letters):
    """I05: never slices; what the header says of scaling is not meant for them."""
    data = counting((4, 5, 6, len(letters)), "uint8")
    packed = data.view([(letter, "u1") for letter in letters])[..., 0]
    path = edited(save(tmp_path / "a.nii", packed, OBLIQUE), 112, np.array([2.0, 1.0], np.float32))
    volume = nifti.read(path)
    np.testing.assert_array_equal(volume.array, data[::-1].T)
    assert volume.array.dtype == np.uint8
    assert volume.channels == ("red", "green", "blue", "alpha")[: len(letters)]
    nifti.write(tmp_path / "b.nii", volume.array[0], volume.source)
    np.testing.assert_array_equal(load(tmp_path / "b.nii").dataobj, data[..., 0])


def test_complex_voxels_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.complex64), ras_affine()), tmp_path / "a.nii")
    with pytest.raises(VolumeError, match="one number per voxel"):
        nifti.read(tmp_path / "a.nii")


@pytest.mark.parametrize(
    "orientation", ORIENTATIONS[::5], ids=lambda o: "".join(nib.orientations.ornt2axcodes(o))
)
def test_boxes_of_a_volume_on_disk_are_those_of_one_in_memory(tmp_path, monkeypatch, orientation):
    shape = (7, 5, 6)
    affine = ras_affine() @ np.linalg.inv(inv_ornt_aff(orientation, shape))
    path = edited(save(tmp_path / "a.nii", counting(shape), affine), 112, np.array([0.5, 10], np.float32))
    whole = nifti.read(path)
    monkeypatch.setattr(lazy, "WHOLE_BYTES", 0)
    opened = nifti.read(path)
    assert isinstance(opened.array, lazy.LazyArray)
    assert (opened.array.shape, opened.array.dtype) == (whole.array.shape, whole.array.dtype)
    box = (slice(0, 1), slice(1, 4), slice(2, 3), slice(0, 4))
    np.testing.assert_array_equal(opened.array[box], whole.array[box])
    np.testing.assert_array_equal(opened.load().array, whole.array)
    assert (opened.spacing, opened.origin, opened.source) == (whole.spacing, whole.origin, whole.source)


def test_a_sparse_giant_opens_at_once_and_reads_only_what_is_asked(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_shape((1024, 1024, 1024))
    header.set_data_dtype(np.uint8)
    header.set_zooms(SPACING_XYZ)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with (tmp_path / "a.nii").open("wb") as file:
        file.write(header.binaryblock + bytes(4))
        file.seek(352 + 1000 * 2**20 + 500 * 2**10 + 20)
        file.write(b"\7")
        file.truncate(352 + 2**30)
    volume = open_volume(tmp_path / "a.nii")
    assert (volume.shape, volume.spacing) == ((1024,) * 3, SPACING_XYZ[::-1])
    flipped = volume.array[:, 999:1002, 499:502, 1002:1005]  # an affine without codes runs from right to left
    assert flipped.shape == (1, 3, 3, 3)
    assert flipped[0, 1, 1, 1] == 7
    assert flipped.sum() == 7
    with (tmp_path / "a.nii").open("rb+") as file:
        file.truncate(2**30)
    with pytest.raises(VolumeError):
        open_volume(tmp_path / "a.nii")


def test_voxels_inside_the_header_are_refused(tmp_path):
    path = save(tmp_path / "a.nii", counting((4, 5, 6)), ras_affine())
    with pytest.raises(VolumeError, match="vox_offset"):
        nifti.read(edited(path, 108, np.zeros(1, np.float32)))


def test_one_phantom_in_three_orientations_is_one_volume(tmp_path):
    """I27: RAS, LPS and ASR."""
    canonical = counting((4, 5, 6))
    for codes in ("RAS", "LPS", "ASR"):
        orientation = nib.orientations.axcodes2ornt(codes).astype(int)
        back = nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], orientation)
        stored = nib.orientations.apply_orientation(canonical, back)
        affine = ras_affine() @ np.linalg.inv(inv_ornt_aff(orientation, stored.shape))
        volume = nifti.read(save(tmp_path / f"{codes}.nii", stored, affine))
        np.testing.assert_array_equal(volume.array[0], canonical.T)
        assert (volume.spacing, volume.origin) == (SPACING_XYZ[::-1], (5.0, 20.0, -10.0))


@pytest.mark.parametrize("size", [0.0, np.nan, np.inf])
def test_an_impossible_voxel_size_is_refused_before_nibabel_mends_it(tmp_path, size):
    path = save(tmp_path / "a.nii", counting((4, 5, 6)), ras_affine())
    with pytest.raises(VolumeError, match="voxel size"):
        nifti.read(edited(path, 76 + 3 * 4, np.array([size], np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0], ids=["nan", "inf", "singular"])
def test_an_unusable_affine_is_refused(tmp_path, value):
    path = save(tmp_path / "a.nii", counting((4, 5, 6)), ras_affine())
    with pytest.raises(VolumeError, match="affine"):
        nifti.read(edited(path, 280, np.array([value], np.float32)))  # srow_x[0]


def test_a_gzip_file_is_read_to_its_checksum(tmp_path):
    save(tmp_path / "a.nii", counting((4, 5, 6)), ras_affine())
    packed = bytearray(gzip.compress((tmp_path / "a.nii").read_bytes()))
    packed[-6] ^= 1  # in the checksum, behind the last voxel
    (tmp_path / "b.nii.gz").write_bytes(packed)
    with pytest.raises(gzip.BadGzipFile, match="CRC"):
        nifti.read(tmp_path / "b.nii.gz")
