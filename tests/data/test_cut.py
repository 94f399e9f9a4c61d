"""What is cut is what scipy makes of the whole volume, and no more of it is read than it takes."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fewvox.data.augment.draws import Draws
from fewvox.data.augment.spatial import SpatialConfig, displacement, draw_elastic, draw_turn, patch_map
from fewvox.data.cut import cut_image, cut_labels
from fewvox.data.resample import coarsen_image
from scipy import ndimage

EXTENT, SHAPE = (20, 24, 28), (6, 7, 8)
RNG = np.random.default_rng(0)
VOLUME = RNG.normal(size=(1, *EXTENT)).astype(np.float32)
LABELS = RNG.integers(0, 3, EXTENT).astype(np.int8)
COARSER = ((1, 1, 1), (1, 2, 2), (2, 4, 4))


class Watched:
    """An array that notes the boxes that are read of it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, []

    def __getitem__(self, key):
        self.read.append(self.array[key].shape[-3:])
        return self.array[key]


def store(image=VOLUME, labels=LABELS, levels=COARSER[:1]) -> SimpleNamespace:
    images = [Watched(image)]
    for finer, coarser in pairwise(levels):
        z, y, x = (b // a for a, b in zip(finer, coarser, strict=True))
        images.append(Watched(coarsen_image(images[-1].array, (z, y, x))))
    watched = Watched(labels)
    return SimpleNamespace(
        cases={"v": SimpleNamespace(levels=levels)},
        images=images,
        labels=watched,
        image=lambda case, level=0: images[level],
        label=lambda case: watched,
    )


def turned(degrees: float, scale: float = 1.0) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    tilt = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return scale * tilt @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def mapped(turn=None, place=(9.3, 11.1, 13.7)) -> np.ndarray:
    linear = np.eye(3) if turn is None else turn
    return patch_map(linear, np.array(place), (np.array(SHAPE) - 1) / 2)


def places(affine, field=0.0) -> np.ndarray:
    indices = np.indices(SHAPE) + field
    return np.einsum("ij,jzyx->izyx", affine[:, :3], indices) + affine[:, 3].reshape(3, 1, 1, 1)


def sampled(volume, at, order, outside=0.0) -> np.ndarray:
    return ndimage.map_coordinates(volume.astype(float), at, order=order, mode="grid-constant", cval=outside)


@pytest.mark.parametrize("turn", [None, turned(25), turned(140, 1.3)])
@pytest.mark.parametrize("place", [(9.3, 11.1, 13.7), (0, 1, 27), (40, 0, 0)])
def test_image_and_labels_are_those_of_the_whole_volume(turn, place):
    affine = mapped(turn, place)
    image = cut_image(store(), "v", affine, SHAPE).image()
    labels = cut_labels(store(), "v", affine, SHAPE, -1).labels()
    np.testing.assert_allclose(image[0], sampled(VOLUME[0], places(affine), 1), atol=1e-4)
    np.testing.assert_array_equal(labels[0], sampled(LABELS, places(affine), 0, -1))
    assert labels.dtype == torch.int8


def test_no_more_is_read_than_the_map_reaches():
    watched = store()
    affine = mapped(turned(25))
    cut_image(watched, "v", affine, SHAPE)
    cut_labels(watched, "v", affine, SHAPE)
    at = places(affine)
    needed = tuple(int(np.ceil(a.max()) - np.floor(a.min())) + 1 for a in at)
    assert watched.images[0].read == [needed]
    assert watched.labels.read == [needed]


def test_a_patch_that_lies_on_voxels_is_read_alone():
    watched = store()
    cut = cut_image(watched, "v", mapped(np.diag([1.0, -1.0, 1.0]), (9.5, 11, 13.5)), SHAPE)
    assert watched.images[0].read == [SHAPE]
    expected = VOLUME[:, 7:13, 8:15, 10:18][:, :, ::-1]
    np.testing.assert_array_equal(cut.image(), expected)


# the steps of a patch against the voxels of a level, which may be as large along each axis
@pytest.mark.parametrize(
    ("steps", "level"),
    [((1, 1, 1), 0), ((1, 1.9, 4), 0), ((1, 2, 2), 1), ((1.9, 9, 9), 1), ((2, 4, 4), 2), ((2, 4, 3.9), 1)],
)
def test_the_coarsest_level_that_is_fine_enough_is_read(steps, level):
    watched = store(levels=COARSER)
    cut_image(watched, "v", mapped(np.diag(np.array(steps, float))), SHAPE)
    assert [len(image.read) for image in watched.images] == [int(k == level) for k in range(3)]


@pytest.mark.parametrize("steps", [1.2, 1.5, 1.8, 1.99])
def test_turned_out_of_thick_slices_no_voxel_of_a_level_is_larger_than_a_step(steps):
    """A turn between axes of different spacing makes long steps along one and short ones along the patch."""
    spacing, config = (2.9, 1.0, 1.0), SpatialConfig(rotation_probability=1, scale_probability=0)
    for seed in range(40):
        turn = draw_turn(SHAPE, spacing, config, Draws((seed,)))
        cut = cut_image(store(levels=COARSER[:2]), "v", mapped(turn * steps), SHAPE)
        at_finest = np.linalg.norm(turn * steps, axis=0)
        assert (np.linalg.norm(cut.affine[:, :3], axis=0) >= np.minimum(1, at_finest) - 1e-6).all()


SLOPE = np.array([0.3, 0.2, -0.1])
RAMP = np.einsum("i,izyx->zyx", SLOPE, np.indices((64, 64, 64)))[None].astype(np.float32)


@pytest.mark.parametrize("steps", [1.0, 1.7, 2.0, 2.9, 4.0])
@pytest.mark.parametrize("deformed", [False, True])
def test_a_ramp_has_its_analytic_values_at_every_level(steps, deformed):
    """Half a voxel amiss at any level is an error of 0.05 or more."""
    affine = mapped(turned(20, steps), (31.2, 30.7, 32.9))
    reach, field = 0.0, None
    if deformed:
        config = SpatialConfig(elastic_probability=1, elastic_share=(0.2, 0.2))
        moved = draw_elastic(SHAPE, None, config, Draws((0,)))
        assert moved is not None
        reach, field = 2 * np.abs(moved).max(axis=(1, 2, 3)), displacement(moved, SHAPE, torch.device("cpu"))
    image = cut_image(store(RAMP, levels=COARSER), "v", affine, SHAPE, reach=reach).image(field)
    at = places(affine, 0.0 if field is None else field.numpy())
    np.testing.assert_allclose(image[0], np.einsum("i,izyx->zyx", SLOPE, at), atol=2e-4)


def test_a_deformed_patch_finds_all_it_needs_in_what_was_read():
    config = SpatialConfig(elastic_probability=1, elastic_share=(0.4, 0.4))
    for seed in range(5):
        moved = draw_elastic(SHAPE, None, config, Draws((seed,)))
        assert moved is not None
        reach, field = 2 * np.abs(moved).max(axis=(1, 2, 3)), displacement(moved, SHAPE, torch.device("cpu"))
        affine = mapped(turned(25))
        image = cut_image(store(), "v", affine, SHAPE, reach=reach).image(field)
        labels = cut_labels(store(), "v", affine, SHAPE, reach=reach).labels(field, by_share=True)
        at = places(affine, field.numpy())
        np.testing.assert_allclose(image[0], sampled(VOLUME[0], at, 1), atol=1e-4)
        shares = np.stack([sampled(value == LABELS, at, 1) for value in range(3)])
        np.testing.assert_array_equal(labels[0], (shares > shares.max(axis=0) - 1e-6).argmax(axis=0))


def test_a_single_slice_is_not_dimmed_by_what_is_beside_it():
    """Where the place is off the only slice, and the patch has one slice too."""
    flat = store(np.ones((1, 1, 20, 20), np.float32), np.ones((1, 20, 20), np.int8))
    affine = patch_map(np.eye(3), np.array([0.3, 9, 9]), np.array([0, 3.5, 3.5]))
    assert (cut_image(flat, "v", affine, (1, 8, 8)).image() == 1).all()
    assert (cut_labels(flat, "v", affine, (1, 8, 8)).labels() == 1).all()
