"""One map per patch: against numpy, scipy, and geometry itself."""

import math

import numpy as np
import pytest
import torch
from fewvox.data.augment.spatial import SpatialConfig, apply_maps, random_maps, read_size
from scipy import ndimage

RNG = np.random.default_rng(0)
IDENTITY = torch.eye(3, dtype=torch.float64)[None]
ALWAYS = SpatialConfig(rotation_probability=1, scale_probability=1, flip_probability=0.5)
CUBE = (12, 12, 12)
TURNS = SpatialConfig(rotation_degrees=90, rotation_probability=1, scale_probability=0)


def volume(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.normal(size=(1, 2, *shape)).astype(np.float32))


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("patch", [(6, 7, 8), (4, 3, 8), (2, 1, 2)])
def test_the_identity_crops_the_centre(patch, nearest):
    box = volume(6, 7, 8)
    cut = tuple(slice((k - n) // 2, (k + n) // 2) for k, n in zip((6, 7, 8), patch, strict=True))
    out = apply_maps(box, IDENTITY, patch, nearest=nearest)
    torch.testing.assert_close(out, box[:, :, *cut], atol=1e-5, rtol=0)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_a_flip_is_numpys(axes):
    box, flip = volume(5, 6, 7), IDENTITY.clone()
    for axis in axes:
        flip[0, axis, axis] = -1
    out = apply_maps(box, flip, (5, 6, 7))
    np.testing.assert_allclose(out, np.flip(box.numpy(), tuple(2 + axis for axis in axes)), atol=1e-5)


@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (2, 0)])
def test_a_quarter_turn_is_numpys(axes):
    box, (i, j) = volume(6, 6, 6), axes
    turn = IDENTITY.clone()
    turn[0, i, i] = turn[0, j, j] = 0
    # out[i, j] = in[j, -i], as np.rot90 has it
    turn[0, i, j], turn[0, j, i] = 1, -1
    expected = np.rot90(box.numpy(), axes=(2 + i, 2 + j))
    np.testing.assert_allclose(apply_maps(box, turn, (6, 6, 6)), expected, atol=1e-5)


@pytest.mark.parametrize(("nearest", "order"), [(False, 1), (True, 0)])
def test_any_map_is_scipys(nearest, order):
    box, patch = volume(9, 10, 12), (6, 8, 7)
    matrix = np.array([[0.913, 0.207, -0.119], [-0.311, 1.103, 0.257], [0.151, -0.211, -0.797]])
    centre, middle = (np.array(shape) / 2 - 0.5 for shape in ((9, 10, 12), patch))
    out = apply_maps(box, torch.from_numpy(matrix)[None], patch, nearest=nearest)
    for channel, result in zip(box[0], out[0], strict=True):
        expected = ndimage.affine_transform(
            channel.numpy(), matrix, centre - matrix @ middle, patch, order=order, mode="grid-constant"
        )
        np.testing.assert_allclose(result, expected, atol=1e-4)


def test_labels_are_taken_at_the_very_places_of_the_image():
    """Each voxel's label is its own index: the nearest one is the rounded place, axis by axis."""
    shape, maps = (12, 14, 16), random_maps(20, CUBE, (2.0, 1.0, 1.0), ALWAYS, generator())
    for axis in range(3):
        along = [1, 1, 1, 1, 1]
        along[2 + axis] = shape[axis]
        index = torch.arange(1.0, shape[axis] + 1).reshape(along).expand(20, 1, *shape)
        places = apply_maps(index, maps, (4, 4, 4))
        labels = apply_maps(index, maps, (4, 4, 4), nearest=True)
        inside = apply_maps(torch.ones(20, 1, *shape), maps, (4, 4, 4)) > 0.999
        clear = inside & ((places - places.floor() - 0.5).abs() > 1e-3)
        assert clear.float().mean() > 0.9
        torch.testing.assert_close(labels[clear], places[clear].round(), atol=1e-4, rtol=0)


def test_a_label_map_gets_no_new_value():
    labels = torch.from_numpy(RNG.choice([0.0, 5.0], (4, 1, 9, 9, 9)))
    out = apply_maps(labels, random_maps(4, CUBE, None, ALWAYS, generator()), (9, 9, 9), nearest=True)
    assert set(out.unique().tolist()) == {0.0, 5.0}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 2.9, 1.0), (4.0, 1.0, 1.0)])
def test_a_turn_keeps_physical_distances(spacing):
    size = torch.diag(torch.tensor(spacing, dtype=torch.float64))
    for turn in random_maps(10, CUBE, spacing, TURNS, generator()):
        physical = size @ turn @ size.inverse()
        torch.testing.assert_close(physical @ physical.T, IDENTITY[0])
        assert torch.det(physical) == pytest.approx(1)
        assert not torch.allclose(physical, IDENTITY[0], atol=1e-3)


@pytest.mark.parametrize("thick", [0, 1, 2])
def test_very_anisotropic_volumes_turn_only_within_their_planes(thick):
    spacing = [1.0, 1.0, 1.0]
    spacing[thick] = 3.1
    for turn in random_maps(10, CUBE, tuple(spacing), TURNS, generator()):
        torch.testing.assert_close(turn[thick], IDENTITY[0, thick])
        torch.testing.assert_close(turn[:, thick], IDENTITY[0, :, thick])


def test_scales_stay_within_their_limits_and_shrink_as_often_as_they_grow():
    config = SpatialConfig(rotation_probability=0, scale_probability=1, scale=(0.5, 2.0))
    zooms = 1 / torch.stack([m[0, 0] for m in random_maps(400, CUBE, None, config, generator())])
    assert 0.5 <= zooms.min() < 0.6
    assert 1.8 < zooms.max() <= 2.0
    assert (zooms > 1).float().mean() == pytest.approx(0.5, abs=0.08)


def test_a_scale_above_one_enlarges_what_is_seen():
    ball = torch.zeros(1, 1, 16, 16, 16)
    ball[..., 6:10, 6:10, 6:10] = 1
    config = SpatialConfig(rotation_probability=0, scale_probability=1, scale=(1.5, 1.5))
    larger = apply_maps(ball, random_maps(1, CUBE, None, config, generator()), (16, 16, 16))
    assert larger.sum() == pytest.approx(64 * 1.5**3, rel=0.05)


@pytest.mark.parametrize("flips", [None, 0.0])
def test_probability_zero_changes_nothing(flips):
    config = SpatialConfig(rotation_probability=0, scale_probability=0, flip_probability=flips)
    torch.testing.assert_close(random_maps(5, CUBE, None, config, generator()), IDENTITY.expand(5, 3, 3))
    assert read_size((5, 6, 7), config) == (5, 6, 7)


def test_flips_come_as_often_as_they_are_asked_for():
    config = SpatialConfig(rotation_probability=0, scale_probability=0, flip_probability=0.25)
    signs = torch.stack([m.diagonal() for m in random_maps(800, CUBE, None, config, generator())])
    np.testing.assert_allclose((signs < 0).float().mean(0), 0.25, atol=0.05)


def test_the_same_generator_gives_the_same_maps():
    assert torch.equal(
        random_maps(3, CUBE, None, ALWAYS, generator(1)), random_maps(3, CUBE, None, ALWAYS, generator(1))
    )
    assert not torch.equal(
        random_maps(3, CUBE, None, ALWAYS, generator(1)), random_maps(3, CUBE, None, ALWAYS, generator(2))
    )


def test_one_probability_does_not_shift_the_draws_of_another():
    without = SpatialConfig(rotation_probability=0, scale_probability=1, flip_probability=0)
    withal = SpatialConfig(
        rotation_probability=1, rotation_degrees=30, scale_probability=1, flip_probability=0
    )
    for one, other in zip(
        *(random_maps(5, CUBE, None, c, generator()) for c in (without, withal)), strict=True
    ):
        assert torch.det(one) == pytest.approx(torch.det(other).item())


def test_a_turned_patch_is_filled_to_its_corners_by_a_small_turn():
    config = SpatialConfig(rotation_degrees=8, rotation_probability=1, scale_probability=0)
    box = read_size((12, 12, 12), config)
    assert box == (18, 18, 18)
    out = apply_maps(torch.ones(8, 1, *box), random_maps(8, CUBE, None, config, generator()), (12, 12, 12))
    torch.testing.assert_close(out, torch.ones_like(out))


def test_the_box_that_is_read_is_larger_by_an_even_number_and_flat_where_the_patch_is():
    for n in range(2, 40):
        _, y, _ = read_size((1, n, n), SpatialConfig())
        assert (y - n) % 2 == 0
        assert y >= math.ceil(n / 0.7)
    assert read_size((1, 8, 8), SpatialConfig()) == (1, 12, 12)


def test_a_shrunk_patch_finds_voxels_to_its_corners():
    """The box was once larger by a quarter whatever the scale: a third of such a patch was 0."""
    config = SpatialConfig(scale=(0.7, 0.7), scale_probability=1, rotation_probability=0, flip_probability=0)
    box = read_size(CUBE, config)
    out = apply_maps(torch.ones(2, 1, *box), random_maps(2, CUBE, None, config, generator()), CUBE)
    torch.testing.assert_close(out, torch.ones_like(out))


@pytest.mark.parametrize("patch", [(1, 32, 32), (8, 32, 32)])
def test_a_thin_patch_is_turned_within_its_plane_only(patch):
    """Turned out of it, a single slice lost up to 98 % of its voxels."""
    config = SpatialConfig(rotation_probability=1, scale_probability=0, flip_probability=0)
    for turn in random_maps(10, patch, None, config, generator()):
        torch.testing.assert_close(turn[0], IDENTITY[0, 0])
        torch.testing.assert_close(turn[:, 0], IDENTITY[0, :, 0])
        assert not torch.allclose(turn, IDENTITY[0])


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, -2, 1), (-1, 0, 2)])
def test_a_shift_of_whole_voxels_is_another_crop(shift):
    box = volume(8, 10, 12)
    out = apply_maps(box, IDENTITY, (4, 4, 4), shifts=torch.tensor([shift], dtype=torch.float64))
    cut = tuple(slice(k // 2 - 2 + s, k // 2 + 2 + s) for k, s in zip((8, 10, 12), shift, strict=True))
    torch.testing.assert_close(out, box[:, :, *cut], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("nearest", "order"), [(False, 1), (True, 0)])
def test_a_shifted_map_is_scipys(nearest, order):
    """The shift is in voxels of the box, whatever the map; beyond the border it is 0."""
    box, patch = volume(9, 10, 12), (6, 8, 7)
    matrix = np.array([[0.913, 0.207, -0.119], [-0.311, 1.103, 0.257], [0.151, -0.211, -0.797]])
    for shift in ([0.6137, -1.2713, 2.1373], [-3.4127, 4.0731, 0.2913]):
        centre, middle = np.array([9, 10, 12]) / 2 - 0.5 + shift, np.array(patch) / 2 - 0.5
        shifts = torch.tensor([shift], dtype=torch.float64)
        out = apply_maps(box, torch.from_numpy(matrix)[None], patch, shifts=shifts, nearest=nearest)
        for channel, result in zip(box[0], out[0], strict=True):
            expected = ndimage.affine_transform(
                channel.numpy(), matrix, centre - matrix @ middle, patch, order=order, mode="grid-constant"
            )
            np.testing.assert_allclose(result, expected, atol=1e-4)


def test_each_item_has_a_shift_of_its_own():
    boxes = volume(6, 6, 6).expand(2, 2, 6, 6, 6)
    shifts = torch.tensor([[0.0, 0, 0], [1, 0, -1]], dtype=torch.float64)
    out = apply_maps(boxes, IDENTITY.expand(2, 3, 3), (4, 4, 4), shifts=shifts)
    torch.testing.assert_close(out[0], boxes[0, :, 1:5, 1:5, 1:5], atol=1e-5, rtol=0)
    torch.testing.assert_close(out[1], boxes[1, :, 2:6, 1:5, 0:4], atol=1e-5, rtol=0)
