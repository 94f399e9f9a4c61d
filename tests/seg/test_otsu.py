"""Masks by a threshold."""

import json

import numpy as np
import pytest
from fewvox.data.dataset import find_images
from fewvox.data.errors import UserError
from fewvox.data.labels import LabelTable
from fewvox.data.reading import ScanOptions
from fewvox.seg.batch_predict import MANIFEST
from fewvox.seg.evaluate import evaluate
from fewvox.seg.metrics import dice
from fewvox.seg.otsu import OtsuConfig, otsu_mask, write_otsu_masks

SPACING = (2.0, 1.0, 1.0)


@pytest.fixture
def nuclei():
    """A noisy image with two bright boxes, one of them hollow, and the filled truth."""
    true = np.zeros((12, 24, 24), bool)
    true[2:8, 3:11, 3:11] = true[4:10, 14:22, 13:21] = True
    image = np.where(true, 200.0, 50.0)
    image[4:6, 6:8, 6:8] = 50
    image[11, 0, 23] = 4000 / 16
    noise = np.random.default_rng(0).normal(0, 8, true.shape)
    return (image + noise).astype(np.float32), true


def test_bright_objects_are_found_filled_and_without_specks(nuclei):
    image, true = nuclei
    mask = otsu_mask(image, SPACING, OtsuConfig(smoothing=0.5))
    assert (dice(mask, true) or 0) > 0.95
    assert mask[4:6, 6:8, 6:8].all()
    assert not mask[11].any()


def test_dark_objects_are_those_of_the_inverted_image(nuclei):
    image, _ = nuclei
    dark = otsu_mask(-image, SPACING, OtsuConfig(foreground="dark"))
    assert (dice(dark, otsu_mask(image, SPACING, OtsuConfig())) or 0) > 0.98


def test_smoothing_is_as_wide_in_space_along_every_axis():
    image = np.zeros((9, 9, 9), np.float32)
    image[4, 4, 4] = 1
    mask = otsu_mask(image, (4.0, 1.0, 1.0), OtsuConfig(smoothing=1.5))
    assert mask[4, 4, 3]
    assert not mask[3].any()


def test_masks_are_scored_as_those_of_a_model_that_has_seen_nothing(nuclei, tmp_path, save_nifti):
    image, true = nuclei
    save_nifti(tmp_path / "images/a.nii.gz", image)
    save_nifti(tmp_path / "labels/a.nii.gz", 255 * true.astype(np.uint8))
    table, out = LabelTable(values=(0, 255)), tmp_path / "masks"
    write_otsu_masks(find_images(tmp_path), out, table, OtsuConfig(smoothing=1), ScanOptions())
    assert json.loads((out / MANIFEST).read_text())["cases"]["a"]["role"] == "unseen"
    (score,) = evaluate(out, tmp_path / "labels").scores
    assert (score.value, score.role) == (255, "unseen")
    assert (score.dice or 0) > 0.9


def test_a_channel_that_is_not_there_is_told(nuclei, tmp_path, save_nifti):
    save_nifti(tmp_path / "a.nii.gz", nuclei[0])
    with pytest.raises(UserError, match="1 channels"):
        write_otsu_masks(
            find_images(tmp_path), tmp_path / "out", LabelTable(), OtsuConfig(channel=1), ScanOptions()
        )


@pytest.mark.parametrize(
    "table", [LabelTable(values=(0, 1, 2)), LabelTable(kind="overlapping", values=(0, 1))]
)
def test_labels_of_more_than_one_class_are_refused(table, tmp_path):
    with pytest.raises(UserError, match="A threshold parts one class"):
        write_otsu_masks([], tmp_path, table, OtsuConfig(), ScanOptions())
