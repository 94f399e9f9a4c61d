"""EfficientNet's tables, its stages in the levels of any plan, and its blocks."""

import pytest
import torch
from fewvox.data.plan import Training
from fewvox.seg.networks.efficientnet import SCALINGS, InvertedBottleneck, SqueezeExcitation, Stage
from fewvox.seg.networks.registry import NETWORKS, Architecture, build
from torch import nn

B0 = SCALINGS["efficientnet_b0"]
# as published: widths and numbers of blocks of the seven stages
PUBLISHED = {
    "efficientnet_b0": ((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)),
    "efficientnet_b1": ((16, 24, 40, 80, 112, 192, 320), (2, 3, 3, 4, 4, 5, 2)),
    "efficientnet_b2": ((16, 24, 48, 88, 120, 208, 352), (2, 3, 3, 4, 4, 5, 2)),
    "efficientnet_b3": ((24, 32, 48, 96, 136, 232, 384), (2, 3, 3, 5, 5, 6, 2)),
    "efficientnet_b4": ((24, 32, 56, 112, 160, 272, 448), (2, 4, 4, 6, 6, 8, 2)),
}


def architecture(name, levels: int, width: int = 32) -> Architecture:
    strides = ((2, 2, 2),) * (levels - 1)
    training = Training(patch=(256, 256, 256), strides=strides, width=width)  # type: ignore[arg-type]
    return Architecture(name=name, in_channels=1, classes=2, topology=NETWORKS[name].levels(training))


def blocks_of(network) -> list[list[InvertedBottleneck]]:
    return [[b for b in level if isinstance(b, InvertedBottleneck)] for level in network.encoder]


@pytest.mark.parametrize("name", PUBLISHED)
def test_at_width_32_the_stages_are_the_published_ones(name):
    widths, numbers = PUBLISHED[name]
    assert [s.width for s in SCALINGS[name].stages()] == list(widths)
    assert [s.blocks for s in SCALINGS[name].stages()] == list(numbers)
    with torch.device("meta"):
        levels = blocks_of(build(architecture(name, 5)))
    found = [block.layers[-1][0].out_channels for level in levels for block in level]  # type: ignore[index]
    assert found == [w for w, n in zip(widths, numbers, strict=True) for _ in range(n)]
    assert [len(level) for level in levels] == [*numbers[:3], sum(numbers[3:5]), sum(numbers[5:])]


@pytest.mark.parametrize("levels", range(1, 10))
def test_any_number_of_levels_has_all_stages(levels):
    with torch.device("meta"):
        found = blocks_of(build(architecture("efficientnet_b0", levels)))
    stages = sum(PUBLISHED["efficientnet_b0"][1]) + max(0, levels - 7)
    assert len(found) == levels
    assert all(found)
    assert sum(map(len, found)) == stages


def test_widths_follow_the_plan_s():
    half = architecture("efficientnet_b0", 5, width=16)
    assert half.topology.features == (8, 12, 20, 56, 160)
    assert architecture("efficientnet_b0", 5, width=1).topology.features == (2, 2, 2, 4, 10)
    # the narrower stages of a level too
    fourth = blocks_of(build(half))[3]
    assert [b.layers[-1][0].out_channels for b in fourth] == [40] * 3 + [56] * 3  # type: ignore[index]


def test_kernels_are_the_stage_s_but_along_an_axis_of_one_slice():
    training = Training(patch=(1, 64, 64), strides=((1, 2, 2),) * 4, width=8)  # type: ignore[arg-type]
    levels = NETWORKS["efficientnet_b0"].levels(training)
    network = build(Architecture(name="efficientnet_b0", in_channels=1, classes=2, topology=levels))
    depthwise = [m for m in network.encoder.modules() if isinstance(m, nn.Conv3d) and m.groups > 1]
    assert {m.kernel_size for m in depthwise} == {(1, 3, 3), (1, 5, 5)}
    assert [m.stride for m in depthwise].count((1, 2, 2)) == 4


@pytest.mark.parametrize(
    ("stride", "width", "added"), [((1, 1, 1), 4, True), ((1, 2, 2), 4, False), ((1, 1, 1), 6, False)]
)
def test_a_block_adds_what_came_in_where_it_has_its_shape(stride, width, added):
    block = InvertedBottleneck(4, Stage(expansion=6, width=width, blocks=1, kernel=3), (3, 3, 3), stride)
    features = torch.randn(2, 4, 4, 6, 6)
    out = block(features) - block.layers(features)
    torch.testing.assert_close(out, features if added else torch.zeros_like(out))
    assert out.shape == (2, width, *(n // s for n, s in zip((4, 6, 6), stride, strict=True)))


def test_features_are_weighed_by_their_means():
    weigh, features = SqueezeExcitation(4, 2), torch.randn(2, 4, 3, 5, 5)
    with torch.no_grad():
        weights, others = weigh(features) / features, weigh(features + 1) / (features + 1)
    assert float(weights.min()) > 0
    assert float(weights.max()) < 1
    torch.testing.assert_close(weights, weights[..., :1, :1, :1].expand_as(weights))
    assert not torch.allclose(weights, others)
