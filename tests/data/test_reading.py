"""The files of a case are opened as one volume, with what a user says of them."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from fewvox.data.cases import Case
from fewvox.data.errors import UserError
from fewvox.data.formats.choices import ReadChoices
from fewvox.data.reading import (
    Finite,
    ScanOptions,
    Stacked,
    made_finite,
    nonfinite,
    open_image,
    open_label,
    open_region,
    read_image,
)

SHAPE = (3, 4, 5)


def voxels(seed=0, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def case(*images, **fields) -> Case:
    return Case(id="a", images=images, subject="a", **fields)


@pytest.fixture
def channels(tmp_path, save_nifti):
    """Files of two channels, uint16 and float32."""
    first = np.arange(60, dtype=np.uint16).reshape(SHAPE)
    return save_nifti(tmp_path / "a_0000.nii", first), save_nifti(tmp_path / "a_0001.nii", voxels())


def test_channels_in_files_of_their_own_are_one_volume(channels):
    opened = open_image(case(*channels, channels=("t1", "t2")))
    assert (opened.array.shape, opened.array.dtype, opened.channels) == (
        (2, *SHAPE),
        np.float32,
        ("t1", "t2"),
    )
    assert (opened.spacing, opened.unit, opened.orientation) == ((2.0, 1.0, 1.0), "mm", "RAS")
    whole = np.stack([np.arange(60).reshape(SHAPE), voxels()])
    for key in (slice(None), (slice(1, 2), slice(0, 2)), (slice(None), slice(1, 3), slice(2), slice(1, 4))):
        np.testing.assert_array_equal(opened.array[key], whole[key])
    np.testing.assert_array_equal(read_image(case(*channels)).array, whole)


def test_channels_take_the_type_that_holds_both_and_the_pieces_of_the_first():
    class Chunked(np.ndarray):
        chunk = (1, 2, 3)

    first = np.zeros((1, 2, 2, 2), np.int32).view(Chunked)
    stacked = Stacked(channels=(first, np.full((1, 2, 2, 2), 0.5, np.float32)))
    assert (stacked.dtype, stacked.chunk) == (np.float64, (1, 2, 3))
    assert stacked[:1].dtype == stacked[1:].dtype == np.float64


@pytest.mark.parametrize(
    ("array", "spacing", "unit", "told"),
    [
        (voxels(shape=(3, 4, 6)), (2.0, 1.0, 1.0), "mm", r"shape \(3, 4, 6\)"),
        (voxels(), (2.0, 1.0, 1.1), "mm", "spacing"),
        (voxels(), (2.0, 1.0, 1.0), "micron", "unit um"),
    ],
)
def test_channels_of_another_geometry_are_refused(channels, save_nifti, array, spacing, unit, told):
    save_nifti(channels[1], array, spacing, unit)
    with pytest.raises(UserError, match=f"a_0001.nii: {told}.*, unlike in .*a_0000.nii"):
        open_image(case(*channels))


def test_a_channel_turned_otherwise_is_refused(channels, tmp_path, save_tiff):
    nib.save(nib.Nifti1Image(voxels().T, np.diag((-1, 1, 2, 1.0))), channels[1])
    with pytest.raises(UserError, match=r"a_0001\.nii: origin"):
        open_image(case(*channels))
    two = save_tiff(tmp_path / "b.tif", voxels(shape=(2, *SHAPE)))
    with pytest.raises(UserError, match="2 channels, unlike"):
        open_image(case(two, two))


def test_names_of_channels_are_as_many_as_there_are(channels):
    with pytest.raises(UserError, match=r"1 channels .*The data set has 2 \(t1, t2\)"):
        open_image(case(channels[0], channels=("t1", "t2")))


@pytest.fixture
def told(tmp_path):
    """A sidecar of (3, 1, 1) um."""
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"spacing": {"z": 3, "y": 1, "x": 1}, "unit": "um"}))
    return file


def spacing_of(case, **options):
    opened = open_image(case, ScanOptions(**options))
    return opened.spacing, opened.unit


def test_a_table_stands_above_a_sidecar_above_the_file_above_what_is_said_of_all(tmp_path, save_tiff, told):
    said = {"spacing": (9.0, 9.0, 9.0), "unit": "nm"}
    silent = case(save_tiff(tmp_path / "silent.tif", voxels()))
    known = case(save_tiff(tmp_path / "known.tif", voxels(), (2.0, 1.0, 1.0), "um"))
    table = {"a": ((4.0, 1.0, 1.0), "mm"), "other": ((5.0, 5.0, 5.0), "mm")}
    assert spacing_of(silent) == (None, None)
    assert spacing_of(silent, **said) == ((9.0, 9.0, 9.0), "nm")
    assert spacing_of(known, **said) == ((2.0, 1.0, 1.0), "um")
    for file in (silent, known):
        beside = replace(file, sidecar=told)
        assert spacing_of(beside, **said) == ((3.0, 1.0, 1.0), "um")
        assert spacing_of(beside, spacings=table, **said) == ((4.0, 1.0, 1.0), "mm")


def test_axes_of_the_data_set_stand_above_those_of_the_user(tmp_path, save_tiff):
    file = save_tiff(tmp_path / "a.tif", voxels())
    options = ScanOptions(image=ReadChoices(axes="CYX"))
    assert open_image(case(file), options).array.shape == (3, 1, 4, 5)
    assert open_image(case(file, axes="ZYX"), options).array.shape == (1, 3, 4, 5)


HOLED = np.array([1.0, np.nan, np.inf, -np.inf, 1e39, 2.0]).reshape(1, 1, 2, 3)


def test_what_is_no_finite_float32_is_counted_and_replaced():
    assert nonfinite(HOLED) == 4
    assert nonfinite(HOLED[..., :1, :2].astype(np.float32)) == 1
    assert nonfinite(np.zeros(3, np.int64)) == 0
    assert made_finite(HOLED, 7).ravel().tolist() == [1, 7, 7, 7, 7, 2]
    finite = Finite(array=HOLED, value=7)
    assert (finite.shape, finite.dtype) == (HOLED.shape, HOLED.dtype)
    assert finite[:, :, 1:, :2].ravel().tolist() == [7, 7]


def test_an_image_is_read_with_its_holes_filled_or_not_at_all(tmp_path, save_tiff):
    file = save_tiff(tmp_path / "a.tif", HOLED[0, :, :1].astype(np.float32).repeat(2, axis=0))
    with pytest.raises(UserError, match="4 of 6 voxels are NaN"):
        read_image(case(file))
    filled = read_image(case(file), ScanOptions(replace_nonfinite=-1)).array
    assert filled[0, 1].ravel().tolist() == [1, -1, -1]


@pytest.mark.parametrize("kind", ["label", "region"])
def test_a_mask_is_turned_as_its_image_only_where_headers_do_not_count(tmp_path, save_tiff, kind):
    nib.save(nib.Nifti1Image(voxels().T, np.diag((-1, -1, 2, 1.0))), tmp_path / "a.nii")
    mask = save_tiff(tmp_path / "m.tif", np.arange(60, dtype=np.uint8).reshape(SHAPE))
    whole = replace(case(tmp_path / "a.nii"), label=mask, region=mask)
    image = open_image(whole)

    def opened(options: ScanOptions) -> np.ndarray:
        found = open_label(mask, image, options) if kind == "label" else open_region(whole, image, options)
        return found.array[:]

    straight = np.arange(60).reshape(1, *SHAPE)
    np.testing.assert_array_equal(opened(ScanOptions()), straight)
    np.testing.assert_array_equal(opened(ScanOptions(accept_geometry=True)), straight[..., ::-1, ::-1])
