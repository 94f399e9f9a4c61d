"""Slow shading against TorchIO's."""

import numpy as np
import pytest
import torch
import torchio
from fewvox.data.augment.bias_field import BiasField, bias_field, shade
from fewvox.data.augment.draws import Draws

RNG = np.random.default_rng(0)
IMAGE = torch.from_numpy(RNG.normal(size=(2, 6, 8, 10)).astype(np.float32))


@pytest.mark.parametrize(("order", "terms"), [(0, 1), (1, 4), (3, 20)])
@pytest.mark.parametrize("shape", [(6, 8, 10), (1, 7, 4)])
def test_the_field_is_torchios(order, terms, shape):
    coefficients = RNG.uniform(-0.5, 0.5, terms).tolist()
    image = torchio.ScalarImage(tensor=torch.ones(1, *shape))
    expected = torchio.transforms.BiasField(coefficients, order)(image).data[0]
    torch.testing.assert_close(bias_field(torch.empty(shape), coefficients, order), expected)


def test_shading_multiplies_the_distance_from_the_darkest_voxel():
    field = bias_field(IMAGE[0], RNG.uniform(-0.5, 0.5, 20), 3)
    channel, low = IMAGE[0].numpy().astype(np.float64), IMAGE[0].min().item()
    shaded = (channel - low) * field.numpy()
    np.testing.assert_allclose(
        shade(IMAGE[0].clone(), field, keeps_moments=False), shaded + low, rtol=1e-5, atol=1e-5
    )
    expected = (shaded - shaded.mean()) / shaded.std() * channel.std() + channel.mean()
    np.testing.assert_allclose(shade(IMAGE[0].clone(), field), expected, rtol=1e-5, atol=1e-5)


def test_all_channels_have_the_same_field():
    image = torch.stack([IMAGE[0], 2 * IMAGE[0] + 1])
    one, other = BiasField()(image.clone(), Draws((0,)))
    torch.testing.assert_close(2 * one + 1, other, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(one, IMAGE[0], atol=0.01)
    assert one.dtype == torch.float32


def test_coefficients_reach_to_both_sides_of_zero():
    ramp = torch.arange(8.0).reshape(1, 1, 1, 8)
    flat = BiasField(order=0, coefficient=0.5, keeps_moments=False)
    factors = np.array([flat(ramp.clone(), Draws((k,)))[0, 0, 0, 1].item() for k in range(200)])
    assert np.exp(-0.5) <= factors.min() < np.exp(-0.45)
    assert np.exp(0.45) < factors.max() <= np.exp(0.5)


@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (2, 1, 1, 1)])
def test_a_constant_image_stays_as_it_is(shape):
    even = torch.full(shape, -0.5)
    torch.testing.assert_close(BiasField()(even.clone(), Draws((0,))), even)
