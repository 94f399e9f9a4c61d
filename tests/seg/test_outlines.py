"""Slices with outlines."""

import io

import numpy as np
import pytest
from fewvox.seg.outlines import PREDICTED_COLOUR, TRUE_COLOUR, Segmented, outline_grid
from PIL import Image

SHAPE = (5, 20, 24)


def box(*edges: int) -> np.ndarray:
    """A label map (Z, Y, X) with class 1 from z0 to z1, y0 to y1, x0 to x1."""
    array = np.zeros(SHAPE, np.uint8)
    z0, z1, y0, y1, x0, x1 = edges
    array[z0:z1, y0:y1, x0:x1] = 1
    return array


def segmented(true: np.ndarray, predicted: np.ndarray, **changes) -> Segmented:
    image = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)
    return Segmented(
        **{"title": "scratch, Dice 0.50", "image": image, "true": true, "predicted": predicted} | changes
    )


def opened(png: bytes) -> np.ndarray:
    """The pixels of a PNG, (rows, columns, 3)."""
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def drawn(png: bytes, colour: str) -> int:
    """How many pixels above the legend have exactly this colour."""
    wanted = tuple(bytes.fromhex(colour[1:]))
    pixels = opened(png)
    return int((pixels[: len(pixels) * 4 // 5] == wanted).all(axis=-1).sum())


TRUE, OTHER = box(1, 4, 4, 12, 4, 12), box(1, 4, 9, 17, 9, 19)
NOTHING = np.zeros(SHAPE, np.uint8)


def test_overlapping_classes_are_outlined_each():
    alone, more = (
        drawn(outline_grid([[segmented(t, t * 0)]]), TRUE_COLOUR)
        for t in (TRUE[None], np.stack([TRUE, OTHER]))
    )
    assert 1.5 * alone < more


def test_truth_and_prediction_are_outlined_in_colours_of_their_own():
    png = outline_grid([[segmented(TRUE, OTHER)]])
    assert drawn(png, TRUE_COLOUR) > 50
    assert drawn(png, PREDICTED_COLOUR) > 50


def test_without_a_prediction_only_the_truth_is_outlined():
    png = outline_grid([[segmented(TRUE, NOTHING)]])
    assert drawn(png, TRUE_COLOUR) > 50
    assert drawn(png, PREDICTED_COLOUR) == 0


def test_the_slice_is_the_one_with_most_of_the_true_label():
    true = box(1, 2, 8, 10, 8, 10) + box(3, 4, 2, 18, 2, 22)
    in_it, beside = box(3, 4, 5, 9, 5, 9), box(1, 2, 5, 9, 5, 9)
    assert drawn(outline_grid([[segmented(true, in_it)]]), PREDICTED_COLOUR) > 20
    assert drawn(outline_grid([[segmented(true, beside)]]), PREDICTED_COLOUR) == 0


def test_rows_may_be_of_different_lengths():
    """An arm whose run failed has no mask of the case."""
    one, two = segmented(TRUE, OTHER), segmented(TRUE, NOTHING)
    png = outline_grid([[one, two, one], [two]])
    assert drawn(png, TRUE_COLOUR) > 3 * drawn(outline_grid([[two]]), TRUE_COLOUR)


@pytest.mark.parametrize("predicted", [np.ones(SHAPE, np.uint8), np.full(SHAPE, 2, np.uint8)])
def test_a_mask_without_an_outline_is_drawn_without_a_warning(predicted):
    """A network of few steps may call the whole slice foreground."""
    assert drawn(outline_grid([[segmented(TRUE, predicted)]]), TRUE_COLOUR) > 50


@pytest.mark.parametrize(
    "image", [np.zeros(SHAPE, np.uint16), np.full(SHAPE, 65535, np.uint16), np.full(SHAPE, 1e9, np.float32)]
)
def test_an_image_of_one_grey_value_is_drawn(image):
    assert drawn(outline_grid([[segmented(TRUE, OTHER, image=image)]]), TRUE_COLOUR) > 50


def test_a_flat_volume_is_drawn():
    """One voxel along an axis leaves nothing to outline, and must not cost the report."""
    flat = [box(1, 4, 4, end, 0, 1)[:, :, :1] for end in (12, 17)]
    picture = opened(outline_grid([[segmented(*flat, image=np.zeros((*SHAPE[:2], 1), np.float32))]]))
    assert min(picture.shape[:2]) > 50
