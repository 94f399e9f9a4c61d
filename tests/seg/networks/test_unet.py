"""Shapes, parts and gradients of the U-Net."""

import pytest
import torch
from fewvox.seg.networks.topology import Topology
from fewvox.seg.networks.unet import UNet

# name: (strides, kernel, extents of the input, extents of each level)
CASES = {
    "isotropic": (((2, 2, 2), (2, 2, 2)), (3, 3, 3), (8, 8, 12), [(8, 8, 12), (4, 4, 6), (2, 2, 3)]),
    "anisotropic": (((1, 2, 2), (2, 2, 2)), (3, 3, 3), (4, 8, 8), [(4, 8, 8), (4, 4, 4), (2, 2, 2)]),
    "single slice": (((1, 2, 2), (1, 2, 2)), (1, 3, 3), (1, 8, 8), [(1, 8, 8), (1, 4, 4), (1, 2, 2)]),
    "no pooling": ((), (3, 3, 3), (3, 5, 7), [(3, 5, 7)]),
    "single-voxel bottleneck": (((2, 2, 2), (2, 2, 2)), (3, 3, 3), (4, 4, 4), [(4,) * 3, (2,) * 3, (1,) * 3]),
}


def make(name: str, channels: int = 2, classes: int = 3) -> UNet:
    strides, kernel, _, extents = CASES[name]
    levels = len(extents)
    features = tuple(4 * 2**i for i in range(levels))
    return UNet(channels, classes, Topology(features=features, kernels=(kernel,) * levels, strides=strides))


@pytest.mark.parametrize("name", CASES)
def test_logits_have_the_extent_of_the_input_and_a_channel_per_class(name):
    _, _, shape, _ = CASES[name]
    assert make(name)(torch.randn(2, 2, *shape)).shape == (2, 3, *shape)


@pytest.mark.parametrize("name", CASES)
def test_levels_shrink_by_the_strides_and_grow_back(name):
    _, _, shape, extents = CASES[name]
    network = make(name)
    encoded = network.encode(torch.randn(1, 2, *shape))
    assert [tuple(level.shape[1:]) for level in encoded] == [(4 * 2**i, *e) for i, e in enumerate(extents)]
    decoded = network.decode(encoded)
    expected = [(4 * 2**i, *e) for i, e in enumerate(extents)]
    assert [tuple(level.shape[1:]) for level in decoded] == (expected[-2::-1] or expected)


@pytest.mark.parametrize("name", CASES)
def test_encode_decode_and_output_compose_to_forward(name):
    network, images = make(name).eval(), torch.randn(1, 2, *CASES[name][2])
    composed = network.output(network.decode(network.encode(images))[-1])
    torch.testing.assert_close(composed, network(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_reaches_every_parameter(name):
    network = make(name).train()
    images = torch.randn(2, 2, *CASES[name][2])
    network(images).square().mean().backward()
    unreached = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []


def test_a_single_voxel_bottleneck_trains():
    torch.manual_seed(0)
    network = make("single-voxel bottleneck", channels=1, classes=2).train()
    images = torch.randn(2, 1, 4, 4, 4)
    labels = (images[:, 0] > 0).long()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("shape", [(6, 8, 8), (8, 8, 9), (7, 8, 8)])
def test_extents_that_do_not_fit_the_strides_are_refused(shape):
    with pytest.raises(ValueError, match=r"multiple of \(4, 4, 4\)"):
        make("isotropic")(torch.zeros(1, 2, *shape))


def test_an_axis_that_is_not_pooled_takes_any_extent():
    network = make("single slice")
    assert network.multiple == (1, 4, 4)
    assert network(torch.zeros(1, 2, 3, 8, 8)).shape == (1, 3, 3, 8, 8)


def test_items_of_a_batch_do_not_mix():
    network, images = make("isotropic").train(), torch.randn(3, 2, 8, 8, 12)
    together = network(images)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
