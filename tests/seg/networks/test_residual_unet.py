"""Blocks of the residual U-Net: how many there are, and that each begins as its skip."""

import pytest
import torch
from fewvox.seg.networks.registry import architecture_for, build
from fewvox.seg.networks.residual_unet import ResidualBlock
from torch import nn


@pytest.mark.parametrize(("levels", "blocks"), [(1, (1,)), (3, (1, 3, 4)), (6, (1, 3, 4, 6, 6, 6))])
def test_the_levels_have_the_blocks_of_nnunet_s_presets(make_plan, levels, blocks):
    plan = make_plan(patch=(32, 32, 32), strides=((2, 2, 2),) * (levels - 1), max_width=8)
    architecture = architecture_for(plan, "residual_unet")
    assert architecture.topology.blocks == blocks
    assert tuple(len(level.blocks) for level in build(architecture).encoder) == blocks  # type: ignore[arg-type]


def test_a_decoder_level_has_one_convolution(make_plan):
    network = build(architecture_for(make_plan(), "residual_unet"))
    assert [len(level.convolutions) for level in network.decoder] == [1]  # type: ignore[arg-type]


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize("outputs", [4, 6])
def test_a_block_begins_as_its_skip(stride, outputs):
    block, features = ResidualBlock(4, outputs, (3, 3, 3), stride), torch.randn(2, 4, 4, 6, 6)
    skip = nn.functional.avg_pool3d(features, stride)
    if outputs != 4:
        convolved = nn.functional.conv3d(skip, block.projection[0].weight)  # type: ignore[index]
        skip = nn.functional.instance_norm(convolved)
    torch.testing.assert_close(block(features), nn.functional.leaky_relu(skip, 0.01))


def test_what_a_block_learns_is_added():
    block, features = ResidualBlock(4, 4, (3, 3, 3)), torch.randn(2, 4, 4, 6, 6)
    nn.init.ones_(block.second[1].weight)  # type: ignore[arg-type]
    learned = block.second(block.first(features))
    torch.testing.assert_close(block(features), nn.functional.leaky_relu(features + learned, 0.01))
