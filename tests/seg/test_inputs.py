"""What a network was shown, and how much its first filters find in it."""

import copy

import numpy as np
import pytest
import torch
from fewvox.data.settings import parse, plain
from fewvox.seg.inputs import QUANTILES, InputStatistics, input_statistics
from fewvox.seg.networks.topology import Topology
from fewvox.seg.networks.unet import UNet
from torch import nn


@pytest.fixture
def network():
    torch.manual_seed(0)
    return UNet(2, 3, Topology(features=(4, 8), kernels=((3, 3, 3),) * 2, strides=((1, 2, 2),)))


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    # channels unlike each other, and far from zero, where sums of squares lose digits
    scale = torch.tensor([1.0, 50.0]).view(1, 2, 1, 1, 1)
    return torch.randn(3, 2, 4, 8, 8, generator=generator) * scale + 20 * scale


def test_grey_values_are_those_of_each_channel(network, images):
    found = input_statistics(network, images)
    assert found.patches == 3
    for index, channel in enumerate(found.channels):
        values = images[:, index].numpy().astype(np.float64)
        assert channel.mean == pytest.approx(values.mean())
        assert channel.std == pytest.approx(values.std())
        assert channel.quantiles == pytest.approx(np.percentile(values, QUANTILES), rel=1e-5)


def test_responses_are_those_of_the_first_convolution_before_its_norm(network, images):
    seen = []
    first = next(m for m in network.modules() if isinstance(m, nn.Conv3d))
    with first.register_forward_hook(lambda module, given, made: seen.append(made.detach().double())):
        network(images)
    expected = seen[0].transpose(0, 1).flatten(1).std(1, unbiased=False)
    found = input_statistics(network, images).responses
    assert found == pytest.approx(expected.tolist(), rel=1e-5)
    assert len(found) == 4


def test_responses_follow_the_contrast_and_not_the_level(network):
    ramp = torch.arange(512.0).reshape(1, 1, 8, 8, 8).repeat(1, 2, 1, 1, 1) / 512
    flat = input_statistics(network, torch.zeros_like(ramp)).responses
    assert flat == pytest.approx([0] * 4, abs=1e-6)
    once, twice = (input_statistics(network, f * ramp).responses for f in (1, 2))
    assert twice == pytest.approx([2 * value for value in once], rel=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_stays_as_it_was(network, images, training):
    network.train(training)
    before = copy.deepcopy(network.state_dict())
    input_statistics(network, images.requires_grad_())
    assert network.training == training
    assert images.grad is None
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())


def test_statistics_come_back_from_json(network, images):
    found = input_statistics(network, images)
    assert parse(InputStatistics, plain(found), "inputs") == found
