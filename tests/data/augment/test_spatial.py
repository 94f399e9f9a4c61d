"""Turns in physical space as often and as far as asked, and smooth deformations."""

import numpy as np
import pytest
import torch
from fewvox.data.augment.draws import Draws
from fewvox.data.augment.spatial import SpatialConfig, displacement, draw_elastic, draw_turn, patch_map
from scipy.interpolate import BSpline

CUBE = (12, 12, 12)
CPU = torch.device("cpu")
NEVER = {"rotation_probability": 0, "scale_probability": 0, "shear_probability": 0, "flip_probability": 0}
ALWAYS = SpatialConfig(rotation_probability=1, scale_probability=1, shear_probability=1, flip_probability=0.5)


def turns(count, spacing=None, patch=CUBE, **config) -> np.ndarray:
    chosen = SpatialConfig(**(NEVER | config))
    return np.stack([draw_turn(patch, spacing, chosen, Draws((seed,))) for seed in range(count)])


def physical(found, spacing) -> np.ndarray:
    size = np.array(spacing)
    return found * size[:, None] / size


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 2.9, 1.0), (4.0, 1.0, 1.0)])
def test_a_turn_keeps_physical_distances(spacing):
    for turn in physical(turns(10, spacing, rotation_probability=1, rotation_degrees=90), spacing):
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)
        assert not np.allclose(turn, np.eye(3), atol=1e-3)


@pytest.mark.parametrize("kind", ["rotation", "shear"])
@pytest.mark.parametrize("thick", [0, 1, 2])
def test_very_anisotropic_volumes_turn_only_within_their_planes(thick, kind):
    spacing, patch = [1.0, 1.0, 1.0], [32, 32, 32]
    spacing[thick], patch[thick] = 3.1, 8
    for found in (
        turns(10, tuple(spacing), **{f"{kind}_probability": 1}),
        turns(10, None, tuple(patch), **{f"{kind}_probability": 1}),
    ):
        np.testing.assert_array_equal(found[:, thick], np.broadcast_to(np.eye(3)[thick], (10, 3)))
        np.testing.assert_array_equal(found[:, :, thick], np.broadcast_to(np.eye(3)[thick], (10, 3)))
        assert not np.allclose(found, np.eye(3))


def test_angles_stay_within_their_limits():
    around_z = turns(300, None, (2, 12, 12), rotation_probability=1, rotation_degrees=20)
    angles = np.degrees(np.arctan2(around_z[:, 2, 1], around_z[:, 1, 1]))
    assert np.abs(angles).max() <= 20
    assert angles.max() > 18
    assert angles.min() < -18


def test_scales_stay_within_their_limits_and_shrink_as_often_as_they_grow():
    zooms = 1 / turns(400, scale_probability=1, scale=(0.5, 2.0))[:, 0, 0]
    assert 0.5 <= zooms.min() < 0.6
    assert 1.8 < zooms.max() <= 2.0
    assert (zooms > 1).mean() == pytest.approx(0.5, abs=0.08)


def test_a_shear_tilts_each_axis_by_its_own_angle_and_keeps_their_own_lengths():
    found = turns(200, shear_probability=1, shear_degrees=15)
    np.testing.assert_array_equal(found[:, range(3), range(3)], 1)
    tilts = np.degrees(np.arctan(found[:, *np.nonzero(~np.eye(3, dtype=bool))]))
    assert np.abs(tilts).max() <= 15
    assert (np.abs(tilts).max(axis=0) > 13).all()


def test_probability_zero_changes_nothing():
    np.testing.assert_array_equal(turns(5), np.broadcast_to(np.eye(3), (5, 3, 3)))
    np.testing.assert_array_equal(turns(5, flip_probability=None), np.broadcast_to(np.eye(3), (5, 3, 3)))


def test_flips_come_as_often_as_they_are_asked_for():
    signs = turns(800, flip_probability=0.25)[:, range(3), range(3)]
    np.testing.assert_allclose((signs < 0).mean(axis=0), 0.25, atol=0.05)


def test_the_same_draws_give_the_same_map():
    one, same, other = (draw_turn(CUBE, None, ALWAYS, Draws((seed,))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_one_probability_does_not_shift_the_draws_of_another():
    without = turns(5, scale_probability=1)
    withal = turns(5, scale_probability=1, rotation_probability=1)
    np.testing.assert_allclose(np.linalg.det(without), np.linalg.det(withal))


def test_a_patch_s_voxel_comes_to_its_place_however_it_is_turned():
    turn, voxel, place = draw_turn(CUBE, None, ALWAYS, Draws((0,))), np.array([6, 6, 6]), np.array([3, 40, 7])
    affine = patch_map(turn, place, voxel)
    np.testing.assert_allclose(affine[:, :3] @ voxel + affine[:, 3], place)
    np.testing.assert_array_equal(affine[:, :3], turn)


def elastic(seed=0, patch=CUBE, spacing=None, **config) -> np.ndarray | None:
    chosen = SpatialConfig(**({"elastic_probability": 1.0} | config))
    return draw_elastic(patch, spacing, chosen, Draws((seed,)))


def moved_points(*args, **kinds) -> np.ndarray:
    found = elastic(*args, **kinds)
    assert found is not None
    return found


def test_points_are_moved_by_a_share_of_the_distance_between_them():
    drawn = [
        moved_points(seed, (20, 40, 60), elastic_points=5, elastic_share=(0.2, 0.2)) for seed in range(30)
    ]
    assert {moved.shape for moved in drawn} == {(3, 7, 7, 7)}
    deviations = np.stack(drawn).std(axis=(0, 2, 3, 4))
    np.testing.assert_allclose(deviations, [0.2 * 5, 0.2 * 10, 0.2 * 15], rtol=0.05)


def test_deformations_come_as_often_as_they_are_asked_for():
    drawn = [elastic(seed, elastic_probability=0.3) is None for seed in range(400)]
    assert np.mean(drawn) == pytest.approx(0.7, abs=0.07)


def test_nothing_is_moved_between_slices_that_are_far_apart():
    for moved in (moved_points(spacing=(4.0, 1.0, 1.0)), moved_points(patch=(1, 12, 12))):
        assert (moved[0] == 0).all()
        assert (moved[1:] != 0).any()


@pytest.mark.parametrize("patch", [(9, 12, 7), (1, 8, 8)])
def test_between_its_points_a_deformation_is_a_cubic_spline(patch):
    """Point p of an axis, where the first one lies one distance before the border."""
    moved = moved_points(patch=patch)
    field = displacement(moved, patch, CPU)
    assert (field.dtype, field.shape) == (torch.float32, (3, *patch))
    expected = moved
    for axis, n in enumerate(patch):
        places = (np.arange(n) + 0.5) / n * 4
        # scipy's basis function of point p is not 0 between p - 3 and p + 1
        basis = BSpline.design_matrix(places, np.arange(-3, 9, dtype=float), 3).toarray()[:, :7]
        np.testing.assert_allclose(basis.sum(axis=1), 1)
        expected = np.moveaxis(np.tensordot(basis, np.moveaxis(expected, axis + 1, 0), axes=1), 0, axis + 1)
    middle = expected[:, *(n // 2 for n in patch)].reshape(3, 1, 1, 1)
    np.testing.assert_allclose(field, expected - middle, atol=1e-5)


def test_the_voxel_in_the_middle_stays_and_none_moves_further_than_twice_the_points():
    for seed in range(5):
        moved = moved_points(seed, elastic_share=(0.5, 0.5))
        field = displacement(moved, CUBE, CPU)
        assert (field[:, 6, 6, 6] == 0).all()
        assert (field.abs().amax(dim=(1, 2, 3)).numpy() <= 2 * np.abs(moved).max(axis=(1, 2, 3))).all()
        assert field.abs().max() > 0.1
