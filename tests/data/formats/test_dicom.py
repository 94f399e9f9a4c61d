"""DICOM series: one folder is one volume, in the order and at the distance of its slices' positions."""

import locale
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from fewvox.data.errors import VolumeError
from fewvox.data.formats import dicom, files
from nibabel.eulerangles import euler2mat

# how GDCM is to store floating-point values: as unsigned or signed 16 bits
STORED = {"t0028_0100": "16", "t0028_0101": "16", "t0028_0102": "15"}
ARRAY = np.random.default_rng(0).integers(-1024, 3000, (6, 5, 4)).astype(np.int16)
STEP = 2.5
STRAIGHT = np.eye(3)


def write_slice(path: Path, pixels: np.ndarray, position: np.ndarray, direction: np.ndarray, **tags) -> None:
    """A file with one slice, its pixels 0.5 x 0.75 mm (x, y); `tags` are named as "t0020_000e"."""
    image = sitk.GetImageFromArray(pixels[None])[:, :, 0]
    image.SetSpacing((0.5, 0.75))
    told = {
        "t0008_0060": "CT",
        "t0020_000e": "1.2.826.1",
        "t0010_0010": "Doe^Jane",
        "t0020_0032": "\\".join(f"{p:.8g}" for p in position),
        "t0020_0037": "\\".join(f"{d:.8f}" for d in direction.T[:2].ravel()),
        "t0018_0050": "5",
    }
    for tag, value in {**told, **tags}.items():
        image.SetMetaData(tag[1:].replace("_", "|"), value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(path))
    before = locale.setlocale(locale.LC_ALL)
    writer.Execute(image)
    locale.setlocale(locale.LC_ALL, before)  # GDCM leaves "C" behind when it writes


def write_series(
    folder: Path,
    array: np.ndarray = ARRAY,
    direction: np.ndarray = STRAIGHT,
    names: list[str] | None = None,
    **tags,
) -> Path:
    """A series whose slices are STEP mm apart, in files called `names`."""
    folder.mkdir(exist_ok=True)
    for n, pixels in enumerate(array):
        position = np.array([10.0, 20.0, 30.0]) + n * STEP * direction[:, 2]
        name = names[n] if names else f"IM{n}.dcm"
        write_slice(folder / name, pixels, position, direction, t0008_0018=f"1.2.3.{name[2:3]}", **tags)
    return folder


def test_a_series_is_a_volume_in_ras(tmp_path):
    volume = files.read_volume(write_series(tmp_path / "ct"))
    np.testing.assert_array_equal(volume.array[0], ARRAY[:, ::-1, ::-1])
    assert volume.array.dtype == np.int16
    assert (volume.spacing, volume.unit, volume.orientation) == ((2.5, 0.75, 0.5), "mm", "RAS")
    assert volume.origin == (30.0, -20 - 4 * 0.75, -10 - 3 * 0.5)
    assert (volume.channels, volume.notes) == (("CT",), ())


@pytest.mark.parametrize("direction", [STRAIGHT, euler2mat(0.3, -0.2, 1.4)], ids=["straight", "oblique"])
def test_it_is_the_same_volume_as_in_nifti(tmp_path, direction):
    image = sitk.GetImageFromArray(ARRAY)
    image.SetSpacing((0.5, 0.75, STEP))
    image.SetOrigin((10, 20, 30))
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, tmp_path / "a.nii.gz")
    expected = files.read_volume(tmp_path / "a.nii.gz")
    volume = files.read_volume(write_series(tmp_path / "ct", direction=direction))
    np.testing.assert_array_equal(volume.array, expected.array)
    assert volume.spacing == pytest.approx(expected.spacing, rel=1e-6)
    np.testing.assert_allclose(volume.origin, expected.origin, atol=1e-5)
    np.testing.assert_allclose(volume.direction, expected.direction, atol=1e-6)


def test_the_names_of_files_do_not_matter(tmp_path):
    """I17."""
    names = ["IM9", "IM1", "IM7.ima", "IM2.dcm", "IM8.dcm", "IM0.DCM"]
    first = files.read_volume(write_series(tmp_path / "sorted"))
    second = files.read_volume(write_series(tmp_path / "random", names=names))
    np.testing.assert_array_equal(first.array, second.array)
    assert (first.spacing, first.origin, first.direction) == (second.spacing, second.origin, second.direction)


@pytest.mark.parametrize("lost", [1, 3])
def test_a_missing_slice_is_told_with_its_place(tmp_path, lost):
    """I17."""
    folder = write_series(tmp_path / "ct")
    (folder / f"IM{lost}.dcm").unlink()
    with pytest.raises(VolumeError) as caught:
        files.read_volume(folder)
    below, above = 30 + (lost - 1) * STEP, 30 + (lost + 1) * STEP
    place = f"between {below:g} mm (IM{lost - 1}.dcm) and {above:g} mm (IM{lost + 1}.dcm)"
    assert place in caught.value.found
    assert caught.value.where == str(folder)


def test_two_series_are_listed(tmp_path):
    """I17."""
    folder = write_series(tmp_path / "ct", t0008_103e="thin")
    others = [f"XX{n}" for n in range(3)]
    write_series(folder, ARRAY[:3], names=others, t0020_000e="1.2.826.2", t0008_103e="scout")
    with pytest.raises(VolumeError, match="folder of its own") as caught:
        files.read_volume(folder)
    assert "1.2.826.1 ('thin', 6 slices); 1.2.826.2 ('scout', 3 slices)" in caught.value.found


def test_two_slices_at_one_position_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct")
    write_slice(folder / "copy.dcm", ARRAY[2], np.array([10, 20, 30 + 2 * STEP]), STRAIGHT)
    with pytest.raises(
        VolumeError, match=r"two slices at 35 mm: (IM2.dcm and copy.dcm|copy.dcm and IM2.dcm)"
    ):
        files.read_volume(folder)


def test_a_tilted_gantry_is_refused(tmp_path):
    folder = write_series(tmp_path / "ct", ARRAY[:2])
    for n in range(2, 6):
        write_slice(folder / f"IM{n}.dcm", ARRAY[n], np.array([10, 20.0 + 0.6 * n, 30 + n * STEP]), STRAIGHT)
    with pytest.raises(VolumeError, match="tilt"):
        files.read_volume(folder)


def test_uneven_slices_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct", ARRAY[:5])
    write_slice(folder / "IM5.dcm", ARRAY[5], np.array([10, 20, 30 + 5.4 * STEP]), STRAIGHT)
    with pytest.raises(VolumeError, match="evenly spaced"):
        files.read_volume(folder)


def test_slices_of_another_orientation_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct", ARRAY[:5])
    write_slice(folder / "scout.dcm", ARRAY[5], np.array([10.0, 20, 90]), euler2mat(0, 0, 1.5))
    with pytest.raises(VolumeError, match=r"0020,0037 .* scout.dcm"):
        files.read_volume(folder)


@pytest.mark.parametrize(("slope", "intercept"), [("0.5", "-1024"), ("2", "10"), ("1", "-1024")])
def test_values_are_rescaled(tmp_path, slope, intercept):
    """I19."""
    expected = (ARRAY + 1024) * float(slope) + float(intercept)
    # the writer divides values by the slope that it is given
    scale = {"t0028_1053": slope, "t0028_1052": intercept, "t0028_0103": "0"}
    folder = write_series(tmp_path / "ct", expected, **scale, **STORED)
    volume = files.read_volume(folder)
    np.testing.assert_array_equal(volume.array[0], expected[:, ::-1, ::-1])
    assert volume.array.dtype.itemsize <= 4


def test_slices_of_different_scales_keep_their_fractions(tmp_path):
    """I19: ITK's series reader would cast all slices to the type of the first."""
    folder = write_series(tmp_path / "pt", ARRAY[:3])
    for n in range(3, 6):
        place = np.array([10.0, 20, 30 + n * STEP])
        scale = {"t0028_1053": "0.25", "t0028_1052": "0", "t0028_0103": "1"}
        write_slice(folder / f"IM{n}.dcm", ARRAY[n] + 0.25, place, STRAIGHT, **scale, **STORED)
    volume = files.read_volume(folder)
    np.testing.assert_array_equal(volume.array[0, 3:], (ARRAY[3:] + 0.25)[:, ::-1, ::-1])
    np.testing.assert_array_equal(volume.array[0, :3], ARRAY[:3, ::-1, ::-1])


@pytest.mark.parametrize("direction", [STRAIGHT, euler2mat(0.3, -0.2, 1.4)], ids=["straight", "oblique"])
def test_masks_leave_as_nifti_in_place(tmp_path, direction):
    """F03: and without anything of the patient."""
    volume = files.read_volume(write_series(tmp_path / "ct", direction=direction))
    assert files.mask_suffix(volume.source) == ".nii.gz"
    files.write_like(tmp_path / "m.nii.gz", volume.array[0], volume.source)
    again = files.read_volume(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(again.array, volume.array)
    assert again.spacing == volume.spacing
    np.testing.assert_allclose(again.origin, volume.origin, atol=1e-5)
    stored = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "m.nii.gz"))
    np.testing.assert_array_equal(stored, ARRAY)
    header = nib.Nifti1Image.from_filename(tmp_path / "m.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert b"Doe" not in volume.source.header
    assert not any("Doe" in note for note in volume.notes)


def test_folders_of_dicom_files_are_volumes(tmp_path):
    folder = write_series(tmp_path / "ct", names=[f"IM{n}" for n in range(6)])
    assert files.is_volume(folder)
    assert not files.is_volume(tmp_path)
    assert not files.is_volume(folder / "IM0")
    hidden = write_series(tmp_path / ".ct", ARRAY[:2])
    assert not files.is_volume(hidden)
    assert files.strip_suffix("sub/ct") == "sub/ct"


def test_other_files_among_the_slices_are_noted_and_hidden_ones_are_not_seen(tmp_path):
    folder = write_series(tmp_path / "ct")
    (folder / "LICENSE").write_text("CC BY")
    (folder / ".DS_Store").write_text("x")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert files.read_volume(folder).notes == ("1 files that are not DICOM are not read",)


def test_a_cut_slice_is_refused(tmp_path):
    """I15."""
    folder = write_series(tmp_path / "ct")
    content = (folder / "IM3.dcm").read_bytes()
    (folder / "IM3.dcm").write_bytes(content[:-8])
    with pytest.raises(VolumeError, match=r"IM3.dcm|Cannot read"):
        files.read_volume(folder)


@pytest.mark.parametrize("trouble", ["empty file", "folder"])
def test_empty_files_and_folders_among_the_slices_are_refused(tmp_path, trouble):
    folder = write_series(tmp_path / "ct")
    (folder / "IM7").touch() if trouble == "empty file" else (folder / "IM7").mkdir()
    with pytest.raises(VolumeError, match="IM7"):
        files.read_volume(folder)


def test_a_single_slice_is_refused(tmp_path):
    with pytest.raises(VolumeError, match="single DICOM slice"):
        files.read_volume(write_series(tmp_path / "ct", ARRAY[:1]))


def test_a_file_of_many_frames_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "ct").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray((ARRAY + 1024).astype(np.uint16)), tmp_path / "ct" / "a.dcm")
    with pytest.raises(VolumeError, match=r"frames 6.*dcm2niix"):
        files.read_volume(tmp_path / "ct")


def test_slices_without_a_position_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct")
    content = (folder / "IM3.dcm").read_bytes()
    position, other = b"\x20\x00\x32\x00", b"\x20\x00\x33\x00"
    assert content.count(position) == 1
    (folder / "IM3.dcm").write_bytes(content.replace(position, other))
    with pytest.raises(VolumeError, match=r"IM3.dcm.*missing tags .*0020\|0032"):
        files.read_volume(folder)


def test_recognises_only_by_content(tmp_path):
    (tmp_path / "a.dcm").write_text("no dicom")
    assert not dicom.recognises(tmp_path)
