"""Grey values change as told: against numpy, scipy and plain formulas."""

import numpy as np
import pytest
import torch
from fewvox.data.augment.draws import Draws
from fewvox.data.augment.intensity import (
    Blur,
    Brightness,
    Contrast,
    Gamma,
    Noise,
    change_contrast,
    change_gamma,
    gaussian_blur,
)
from scipy import ndimage

IMAGE = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 6, 7, 8)).astype(np.float32))
CHANGES = (Noise(), Blur(), Brightness(), Contrast(), Gamma(), Gamma(inverted=True))


def changed(operation, image=IMAGE, seed=0) -> torch.Tensor:
    return operation(image.clone(), Draws((seed,)))


@pytest.mark.parametrize("sigmas", [(0.6, 0.6, 0.6), (0.5, 0.75, 1.0), (1.6, 0.3, 3.9)])
def test_blur_is_scipys(sigmas):
    expected = ndimage.gaussian_filter(
        IMAGE[0].numpy(), sigmas, mode="nearest", radius=[max(1, round(3 * sigma)) for sigma in sigmas]
    )
    np.testing.assert_allclose(gaussian_blur(IMAGE[0].clone(), sigmas), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 3, 1), (1, 1, 1)])
def test_blur_of_few_voxels_is_scipys(shape):
    image = IMAGE.flatten()[: np.prod(shape)].reshape(shape)
    expected = ndimage.gaussian_filter(image.numpy(), 1.0, mode="nearest", truncate=3)
    np.testing.assert_allclose(gaussian_blur(image.clone(), (1.0, 1.0, 1.0)), expected, atol=1e-6)


def test_every_axis_of_every_channel_is_blurred_by_its_own_draw():
    point = torch.zeros(2, 15, 15, 15)
    point[:, 7, 7, 7] = 1
    out = changed(Blur(sigma=(0.5, 2.0)), point)
    widths = [
        out[c].sum([a for a in range(3) if a != axis]).max().item() for c in (0, 1) for axis in range(3)
    ]
    assert len({round(width, 3) for width in widths}) == 6


def test_a_channel_is_left_out_as_often_as_asked_for():
    many = IMAGE[:1].expand(300, -1, -1, -1)
    for operation in (Blur(channel_probability=0.3), Contrast(channel_probability=0.3)):
        share = (changed(operation, many) != many).flatten(1).any(1).float().mean()
        assert share == pytest.approx(0.3, abs=0.08)


@pytest.mark.parametrize("keeps_range", [True, False])
@pytest.mark.parametrize("factor", [0.75, 1.25])
def test_contrast_spreads_around_the_mean(factor, keeps_range):
    channel = IMAGE[0].numpy().astype(np.float64)
    expected = (channel - channel.mean()) * factor + channel.mean()
    if keeps_range:
        expected = np.clip(expected, channel.min(), channel.max())
    out = change_contrast(IMAGE[0].clone(), factor, keeps_range=keeps_range)
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("gamma", [0.3, 0.7, 1.0, 1.5, 4.0])
def test_gamma_bends_the_range_and_keeps_mean_and_deviation(gamma, inverted):
    channel = IMAGE[0].numpy().astype(np.float64) * (-1 if inverted else 1) + 20
    bent = ((channel - channel.min()) / np.ptp(channel)) ** gamma
    expected = ((bent - bent.mean()) / bent.std() * channel.std() + channel.mean()) * (-1 if inverted else 1)
    out = change_gamma(torch.from_numpy(channel * (-1 if inverted else 1)).float(), gamma, inverted=inverted)
    np.testing.assert_allclose(out, expected, atol=2e-5)


def test_brightness_multiplies():
    torch.testing.assert_close(changed(Brightness(factor=(1.2, 1.2))), IMAGE * 1.2)


def test_noise_has_its_deviation_and_no_mean():
    noise = changed(Noise(deviation=(0.2, 0.2)), torch.zeros(2, 30, 30, 31))
    assert noise.std() == pytest.approx(0.2, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.005)
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize("operation", CHANGES, ids=str)
def test_a_change_is_its_seeds_alone(operation):
    assert torch.equal(changed(operation), changed(operation))
    assert not torch.equal(changed(operation), changed(operation, seed=1))
    assert not torch.equal(changed(operation), IMAGE)
    assert changed(operation).dtype == torch.float32


@pytest.mark.parametrize("operation", CHANGES[1:], ids=str)
def test_channels_have_draws_of_their_own(operation):
    out = changed(operation, IMAGE[:1].expand(2, -1, -1, -1))
    assert not torch.equal(out[0], out[1])


@pytest.mark.parametrize("operation", [*CHANGES[:2], *CHANGES[3:]], ids=str)
@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (2, 1, 1, 1)])
def test_a_constant_image_stays_finite(operation, shape):
    out = changed(operation, torch.full(shape, -0.5))
    assert out.isfinite().all()
    if not isinstance(operation, Noise):
        torch.testing.assert_close(out, torch.full(shape, -0.5))
