"""Masks lie where the volume lies: a network that labels what it sees, in every geometry."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from fewvox.data.errors import UserError
from fewvox.data.formats import tiff
from fewvox.data.formats.files import read_volume
from fewvox.data.labels import LabelTable
from fewvox.seg.predict import Model, Predictor, largest
from torch import nn


class Thresholds(nn.Module):
    """An identity labeller: class 1 where the first channel is above a threshold, background elsewhere."""

    def __init__(self, classes=2, threshold=0.0):
        super().__init__()
        self.classes, self.threshold, self.weight = classes, threshold, nn.Parameter(torch.ones(1))

    def forward(self, images):
        sure = 10 * (images[:, :1] - self.threshold)
        return torch.cat([-sure, sure, *[torch.full_like(sure, -1e3)] * (self.classes - 2)], dim=1)


class Levels(nn.Module):
    """A network of overlapping classes: channel k is above a half where the image is above k."""

    def __init__(self, channels):
        super().__init__()
        self.channels, self.weight = channels, nn.Parameter(torch.ones(1))

    def forward(self, images):
        return torch.cat([20 * (images[:, :1] - k) for k in range(self.channels)], dim=1)


def predictor_of(network, plan):
    return Predictor(models=(Model(network=network, plan=plan),))


@pytest.fixture
def make_overlapping(make_plan):
    """A predictor of overlapping classes."""

    def make(channels=2, **fields):
        table = LabelTable(kind="overlapping", values=tuple(range(channels + 1)))
        return predictor_of(Levels(channels), make_plan(labels=table, **fields))

    return make


@pytest.fixture
def make_predictor(make_plan):
    """A predictor with the identity labeller."""

    def make(labels=(0, 1), threshold=0.0, **fields):
        plan = make_plan(labels=LabelTable(values=labels), **fields)
        return predictor_of(Thresholds(len(labels), threshold), plan)

    return make


def corner_shape(shape=(12, 10, 8)):
    """A block without any symmetry."""
    mask = np.zeros(shape, dtype=bool)
    mask[2:9, 1:5, 1:4] = True
    mask[2:4, 1:8, 1:3] = True
    mask[7:9, 2:4, 1:7] = True
    return mask


ORIENTATIONS = [
    np.eye(3)[list(axes)] * np.array(signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
ROTATION = np.linalg.qr(np.array([[1.0, 0.3, -0.2], [-0.25, 1.0, 0.35], [0.1, -0.4, 1.0]]))[0]


def save(path, array, directions, spacing, forms=(1, 2)):
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = (-7, 11, 3.5)
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, forms[0])
    image.set_sform(affine, forms[1])
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def same_geometry(a, b):
    x, y = nib.load(a), nib.load(b)
    assert x.shape == y.shape  # type: ignore[attr-defined]
    np.testing.assert_array_equal(x.affine, y.affine)  # type: ignore[attr-defined]
    for name in ("pixdim", "qform_code", "sform_code", "xyzt_units", "quatern_b", "qoffset_x", "srow_y"):
        np.testing.assert_array_equal(x.header[name], y.header[name], err_msg=name)  # type: ignore[index]


def stored(path):
    return np.asarray(nib.load(path).dataobj)  # type: ignore[attr-defined]


def half_way(mask):
    """The normalised value half-way between background and mask."""
    return (0.5 - mask.mean()) / mask.std()


def overlap(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("directions", [*ORIENTATIONS, ROTATION, -ROTATION], ids=str)
def test_a_mask_lies_on_its_volume_in_every_orientation(tmp_path, make_predictor, directions):
    mask = corner_shape()
    source = save(tmp_path / "a.nii.gz", np.where(mask, 900, 30).astype(np.int16), directions, (1.5, 1, 2))
    make_predictor(spacing=None).write_mask(read_volume(source), source, tmp_path / "out/m.nii.gz")
    np.testing.assert_array_equal(stored(tmp_path / "out/m.nii.gz"), mask)
    same_geometry(source, tmp_path / "out/m.nii.gz")


@pytest.mark.parametrize("target", [(0.6, 0.6, 0.6), (2.0, 1.3, 0.9)])
@pytest.mark.parametrize("directions", [np.eye(3), ORIENTATIONS[13], ORIENTATIONS[30], ROTATION], ids=str)
def test_a_mask_made_at_another_spacing_comes_back_to_the_volume_s_own(
    tmp_path, make_predictor, directions, target
):
    mask = np.kron(corner_shape(), np.ones((3, 3, 3), dtype=bool))
    spacing = (1.0, 0.8, 1.2)
    source = save(
        tmp_path / "a.nii.gz", np.where(mask, 900, 30).astype(np.int16), directions, spacing, (0, 1)
    )
    make_predictor(spacing=target, threshold=half_way(mask)).write_mask(
        read_volume(source), source, tmp_path / "m.nii.gz"
    )
    found = stored(tmp_path / "m.nii.gz") > 0
    assert overlap(found, mask) > 0.95
    # shifted by a voxel along any axis it fits worse: there is no drift
    assert all(overlap(np.roll(found, s, a), mask) < overlap(found, mask) for s in (1, -1) for a in range(3))
    same_geometry(source, tmp_path / "m.nii.gz")


def test_the_unit_of_the_plan_may_be_another(tmp_path, make_predictor):
    mask = corner_shape()
    source = save(tmp_path / "a.nii.gz", np.where(mask, 900, 30).astype(np.int16), np.eye(3), (1, 1, 2))
    predictor = make_predictor(spacing=(2000.0, 1000.0, 1000.0), unit="um")
    np.testing.assert_array_equal(predictor.mask(read_volume(source), source), mask.T)


@pytest.mark.parametrize("target", [(0.5, 0.2, 0.2), (0.4, 0.3, 0.1)])
def test_a_tiff_mask_has_the_spacing_and_unit_of_its_source(tmp_path, make_predictor, target):
    mask = np.kron(corner_shape(), np.ones((2, 2, 2), dtype=bool))
    tiff.write_new(tmp_path / "a.tif", np.where(mask, 900, 30).astype(np.uint16), (0.5, 0.2, 0.2), "um")
    predictor = make_predictor(spacing=target, unit="um", orientation="stored", threshold=half_way(mask))
    predictor.write_mask(read_volume(tmp_path / "a.tif"), "a", tmp_path / "m.tif")
    found = tifffile.imread(tmp_path / "m.tif")
    assert found.shape == mask.shape
    assert overlap(found > 0, mask) > (0.95 if target != (0.5, 0.2, 0.2) else 0.9999)
    with tifffile.TiffFile(tmp_path / "a.tif") as source, tifffile.TiffFile(tmp_path / "m.tif") as made:
        for tag in ("XResolution", "YResolution"):
            assert made.pages.first.tags[tag].value == source.pages.first.tags[tag].value
        assert made.imagej_metadata is not None
        assert made.imagej_metadata["spacing"] == 0.5
        assert made.imagej_metadata["unit"] == "um"


@pytest.mark.parametrize(
    ("values", "dtype"), [((0, 255), np.uint8), ((0, 1000), np.uint16), ((0, 7, 9), np.uint8)]
)
def test_masks_have_the_values_of_the_user_s_labels(tmp_path, make_predictor, values, dtype):
    mask = corner_shape()
    source = save(tmp_path / "a.nii.gz", np.where(mask, 900.0, 30.0).astype(np.float32), np.eye(3), (1, 1, 2))
    make_predictor(values, spacing=None).write_mask(read_volume(source), source, tmp_path / "m.nii.gz")
    found = stored(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(found, np.where(mask, values[1], 0))
    assert found.dtype == dtype


def test_probabilities_are_those_of_the_network_and_sum_to_one(make_predictor):
    image = np.random.default_rng(0).normal(size=(1, 9, 10, 11)).astype(np.float32)
    found = make_predictor().probabilities(image)
    assert found.shape == (2, 9, 10, 11)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(found[1], 1 / (1 + np.exp(-20 * image[0].astype(float))), atol=1e-3)


def test_prediction_leaves_no_gradient_and_dropout_off(make_predictor):
    predictor = make_predictor()
    predictor.models[0].network.train()
    predictor.probabilities(np.zeros((1, 4, 8, 8), dtype=np.float32))
    assert not predictor.models[0].network.training


def test_a_constant_volume_gives_a_mask_and_no_nan(tmp_path, make_predictor):
    source = save(tmp_path / "a.nii.gz", np.full((8, 8, 8), 5, np.int16), np.eye(3), (1, 1, 2))
    assert make_predictor().mask(read_volume(source), source).shape == (8, 8, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": ("a", "b")}, "1 channels"),
        ({"unit": None}, "spacing in mm"),
    ],
)
def test_a_volume_that_the_plan_does_not_fit_is_refused(tmp_path, make_predictor, fields, message):
    source = save(tmp_path / "a.nii.gz", np.ones((8, 8, 8), np.int16), np.eye(3), (1, 1, 2))
    with pytest.raises(UserError, match=f"a.nii.gz: .*{message}"):
        make_predictor(**fields).mask(read_volume(source), source)


def test_a_model_without_labels_makes_no_mask(tmp_path, make_plan):
    source = save(tmp_path / "a.nii.gz", np.ones((8, 8, 8), np.int16), np.eye(3), (1, 1, 2))
    predictor = predictor_of(Thresholds(), make_plan(labels=None))
    with pytest.raises(ValueError, match="label table"):
        predictor.mask(read_volume(source), source)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_overlapping_classes_are_a_stack_of_masks_in_the_source_s_format(
    tmp_path, make_overlapping, channels
):
    image = np.random.default_rng(0).normal(size=(6, 9, 10)).astype(np.float32)
    image = (image - image.mean()) / image.std()
    tiff.write_new(tmp_path / "a.tif", image, (0.5, 0.2, 0.2), "um")
    predictor = make_overlapping(channels, spacing=(0.5, 0.2, 0.2), unit="um", orientation="stored")
    predictor.write_mask(read_volume(tmp_path / "a.tif"), "a", tmp_path / "m.tif")
    found = read_volume(tmp_path / "m.tif")
    assert (found.array.dtype, found.spacing, found.unit) == (np.uint8, (0.5, 0.2, 0.2), "um")
    np.testing.assert_array_equal(found.array, np.stack([image > k for k in range(channels)]))


def test_overlapping_classes_have_probabilities_of_their_own(make_overlapping):
    image = np.random.default_rng(0).normal(size=(1, 5, 9, 8)).astype(np.float32)
    found = make_overlapping(2).probabilities(image)
    expected = [1 / (1 + np.exp(-20 * (image[0].astype(float) - k))) for k in range(2)]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("target", [(1.0, 1.0, 1.0), (2.0, 1.6, 1.4)])
@pytest.mark.parametrize("overlapping", [False, True])
def test_probabilities_lie_on_the_volume_and_the_mask_is_chosen_from_them(
    tmp_path, make_predictor, make_overlapping, overlapping, target
):
    mask = corner_shape()
    source = save(
        tmp_path / "a.nii.gz", np.where(mask, 900, 30).astype(np.int16), ORIENTATIONS[13], (1, 1, 1)
    )
    predictor = make_overlapping(2, spacing=target) if overlapping else make_predictor(spacing=target)
    predictor.write_mask(
        read_volume(source), source, tmp_path / "out/m.nii.gz", tmp_path / "out/m_probabilities.nii.gz"
    )
    maps, found = stored(tmp_path / "out/m_probabilities.nii.gz"), stored(tmp_path / "out/m.nii.gz")
    assert (maps.dtype, maps.shape) == (np.float32, (*mask.shape, 2))
    np.testing.assert_array_equal(found, maps > 0.5 if overlapping else maps.argmax(axis=-1))
    if not overlapping:
        np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=1e-5)
    written = nib.load(tmp_path / "out/m_probabilities.nii.gz")
    np.testing.assert_array_equal(written.affine, nib.load(source).affine)  # type: ignore[attr-defined]
    assert written.header.get_xyzt_units()[0] == "mm"  # type: ignore[attr-defined]


@pytest.mark.parametrize("classes", [1, 2, 5, 300])
def test_the_largest_is_the_lowest_of_those_alike(classes):
    values = np.random.default_rng(0).integers(0, 4, (classes, 7, 50)).astype(np.float32)
    found = largest(values)
    np.testing.assert_array_equal(found, values.argmax(axis=0))
    assert found.dtype == np.min_scalar_type(classes - 1)
