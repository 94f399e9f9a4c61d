"""Grey values change as told, by the generator's draw alone."""

import numpy as np
import pytest
import torch
from fewvox.data.augment.intensity import (
    IntensityConfig,
    change_contrast,
    change_gamma,
    change_intensity,
    gaussian_blur,
)
from scipy import ndimage

IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 2, 6, 7, 8)).astype(np.float32))
CHANGES = ("noise", "blur", "brightness", "contrast", "gamma", "inverted_gamma")
NEVER = {f"{name}_probability": 0.0 for name in CHANGES}
ALWAYS = {f"{name}_probability": 1.0 for name in CHANGES}


def changed(seed=0, images=IMAGES, **config) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return change_intensity(images, IntensityConfig(**(NEVER | config)), generator)


def only(name: str, images=IMAGES, **config) -> torch.Tensor:
    return changed(images=images, **{f"{name}_probability": 1.0}, **config)


@pytest.mark.parametrize("sigma", [0.6, 0.75, 1.0, 1.6])
def test_blur_is_scipys(sigma):
    out = gaussian_blur(IMAGES[0], sigma)
    for channel, result in zip(IMAGES[0].numpy(), out, strict=True):
        expected = ndimage.gaussian_filter(channel, sigma, mode="nearest", truncate=3.0)
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_blur_leaves_an_even_image_as_it_is():
    np.testing.assert_allclose(gaussian_blur(torch.full((1, 2, 3, 4), 7.0), 1.0), 7.0, rtol=1e-6)


@pytest.mark.parametrize("factor", [0.75, 1.25])
def test_contrast_spreads_around_the_mean_and_keeps_the_range(factor):
    out = change_contrast(IMAGES[0], factor)
    for channel, result in zip(IMAGES[0].numpy(), out.numpy(), strict=True):
        expected = np.clip((channel - channel.mean()) * factor + channel.mean(), channel.min(), channel.max())
        np.testing.assert_allclose(result, expected, atol=1e-6)
        assert (result.std() > channel.std()) == (factor > 1)


@pytest.mark.parametrize("gamma", [0.7, 1.0, 1.5])
def test_gamma_bends_the_range_and_keeps_mean_and_deviation(gamma):
    out = change_gamma(IMAGES[0], gamma)
    for channel, result in zip(IMAGES[0].numpy().astype(np.float64), out.numpy(), strict=True):
        bent = ((channel - channel.min()) / np.ptp(channel)) ** gamma
        expected = (bent - bent.mean()) / bent.std() * channel.std() + channel.mean()
        np.testing.assert_allclose(result, expected, atol=1e-5)
        np.testing.assert_array_equal(result.ravel().argsort(), channel.ravel().argsort())


def test_gamma_of_one_changes_nothing():
    torch.testing.assert_close(change_gamma(IMAGES[0], 1.0), IMAGES[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("change", [lambda x: change_gamma(x, 0.7), lambda x: change_contrast(x, 1.2)])
def test_a_constant_patch_stays_finite(change):
    np.testing.assert_allclose(change(torch.full((1, 2, 3, 4), -0.5)), -0.5, atol=1e-6)


def test_noise_has_its_variance_and_no_mean():
    even = torch.zeros(2, 1, 30, 30, 30)
    noise = only("noise", even, noise_variance=(0.04, 0.04))
    assert noise.std() == pytest.approx(0.2, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.005)
    assert not torch.equal(noise[0], noise[1])


def test_brightness_multiplies():
    torch.testing.assert_close(only("brightness", brightness=(1.2, 1.2)), IMAGES * 1.2)


def test_an_inverted_gamma_bends_the_bright_end():
    expected = torch.stack([-change_gamma(-image, 1.5) for image in IMAGES])
    torch.testing.assert_close(only("inverted_gamma", gamma=(1.5, 1.5)), expected)


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_draws_for_each_patch_anew(name):
    alike = IMAGES[:1].expand(3, -1, -1, -1, -1)
    one, two, three = only(name, alike)
    assert not torch.equal(one, alike[0])
    assert not torch.equal(one, two)
    assert not torch.equal(two, three)


def test_probability_zero_changes_nothing():
    assert torch.equal(changed(), IMAGES)


def test_a_probability_is_the_share_of_changed_patches():
    many = IMAGES[:1].expand(1000, -1, -1, -1, -1)
    out = changed(images=many, brightness_probability=0.3)
    share = (out != many).flatten(1).any(1).float().mean()
    assert share == pytest.approx(0.3, abs=0.05)


def test_the_same_generator_gives_the_same_patches():
    assert torch.equal(changed(1, **ALWAYS), changed(1, **ALWAYS))
    assert not torch.equal(changed(1, **ALWAYS), changed(2, **ALWAYS))


def test_the_input_is_not_written_into():
    before = IMAGES.clone()
    changed(**ALWAYS)
    assert torch.equal(IMAGES, before)


def test_noise_on_one_patch_does_not_shift_the_draws_of_the_next():
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 1, 4, 5, 6)).astype(np.float32))
    silent = {"noise_variance": (0.0, 0.0), "gamma_probability": 0.5}
    changed = [
        change_intensity(
            images, IntensityConfig(noise_probability=p, **silent), torch.Generator().manual_seed(3)
        )
        for p in (0.0, 1.0)
    ]
    torch.testing.assert_close(*changed, rtol=0, atol=0)
