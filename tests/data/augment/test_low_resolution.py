"""Lost resolution against scipy's interpolation."""

import numpy as np
import pytest
import torch
from fewvox.data.augment.draws import Draws
from fewvox.data.augment.low_resolution import LowResolution, coarsened
from scipy import ndimage

IMAGE = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 12, 14, 17)).astype(np.float32))


def middles(n: int, m: int) -> np.ndarray:
    """Where the middles of n voxels lie among m others of the same extent."""
    return (np.arange(n) + 0.5) * m / n - 0.5


def along_each_axis(image: np.ndarray, shape, order: int) -> np.ndarray:
    places = [middles(n, m) for n, m in zip(shape, image.shape, strict=True)]
    if order == 0:
        # a tie goes up
        places = [np.floor(place + 0.5) for place in places]
    grid = np.meshgrid(*places, indexing="ij")
    return ndimage.map_coordinates(image, grid, order=order, mode="nearest")


@pytest.mark.parametrize("size", [(6, 7, 8), (9, 14, 17), (12, 14, 5), (12, 3, 17), (1, 1, 1), (11, 13, 16)])
def test_coarsening_is_scipys(size):
    image = IMAGE[0].numpy()
    expected = along_each_axis(along_each_axis(image, size, 0), image.shape, 1)
    np.testing.assert_allclose(coarsened(IMAGE[0], size), expected, atol=1e-5)


def test_coarsening_is_torchs():
    small = torch.nn.functional.interpolate(IMAGE[:1, None], (7, 9, 11), mode="nearest-exact")
    expected = torch.nn.functional.interpolate(small, IMAGE.shape[1:], mode="trilinear")
    torch.testing.assert_close(coarsened(IMAGE[0], (7, 9, 11)), expected[0, 0])


def rough_axes(image: torch.Tensor, before: torch.Tensor) -> list[bool]:
    """Whether an image that varied along one axis alone has changed, for each axis."""
    return [not torch.allclose(image[axis], before[axis]) for axis in range(3)]


def ramps(*shape: int) -> torch.Tensor:
    """Three channels, each random along one axis and even along the others."""
    rng = np.random.default_rng(1)
    lines = [rng.normal(size=[n if a == axis else 1 for a in range(3)]) for axis, n in enumerate(shape)]
    return torch.from_numpy(np.stack([np.broadcast_to(line, shape) for line in lines])).float()


def test_all_axes_lose_resolution():
    before = ramps(16, 17, 18)
    operation = LowResolution(channel_probability=1, scale=(0.5, 0.5))
    assert rough_axes(operation(before.clone(), Draws((0,))), before) == [True, True, True]


def test_slices_far_apart_are_left_as_they_are():
    before = ramps(5, 17, 18)
    half = {"channel_probability": 1, "scale": (0.5, 0.5)}
    assert rough_axes(LowResolution(**half)(before.clone(), Draws((0,))), before) == [False, True, True]
    thicker = ramps(6, 17, 18)
    assert rough_axes(LowResolution(**half)(thicker.clone(), Draws((0,))), thicker) == [True, True, True]
    thin_too = LowResolution(**half, keeps_thin=False)
    assert rough_axes(thin_too(before.clone(), Draws((0,))), before) == [True, True, True]


def test_one_axis_is_drawn_evenly():
    ramp = ramps(8, 9, 10)
    diagonal = (ramp[0] + ramp[1] + ramp[2])[None].expand(300, -1, -1, -1)
    operation = LowResolution(channel_probability=1, scale=(0.5, 0.5), axes="one")
    out = operation(diagonal.clone(), Draws((0,)))
    counts = [0, 0, 0]
    for channel in out:
        sizes = [tuple(n // 2 if a == axis else n for a, n in enumerate((8, 9, 10))) for axis in range(3)]
        same = [torch.equal(channel, coarsened(diagonal[0], size)) for size in sizes]
        assert sum(same) == 1
        counts[same.index(True)] += 1
    assert min(counts) > 70


def test_channels_change_as_often_as_asked_for_and_by_their_own_draw():
    many = IMAGE[:1].expand(300, -1, -1, -1)
    out = LowResolution(channel_probability=0.4, scale=(0.3, 0.8))(many.clone(), Draws((0,)))
    changed = out[(out != many).flatten(1).any(1)]
    assert len(changed) / 300 == pytest.approx(0.4, abs=0.08)
    assert not torch.equal(changed[0], changed[1])
    assert out.dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (2, 1, 1, 1), (1, 1, 8, 8)])
def test_a_constant_image_stays_as_it_is(shape):
    even = torch.full(shape, -0.5)
    torch.testing.assert_close(LowResolution(channel_probability=1)(even.clone(), Draws((0,))), even)
