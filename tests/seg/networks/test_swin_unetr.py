"""Swin UNETR's levels, what it refuses, and that attention looks beyond a window."""

import ast
from pathlib import Path

import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.data.plan import Training
from fewvox.seg.networks import swin_unetr
from fewvox.seg.networks.registry import architecture_for, build
from fewvox.seg.networks.swin_unetr import WINDOW, AttentionLevel, swin_topology


@pytest.mark.parametrize(
    ("width", "most", "features"),
    [
        (4, 320, (12, 12, 24, 48, 96, 192)),
        (24, 320, (24, 24, 48, 96, 192, 312)),
        (32, 320, (36, 36, 72, 144, 288, 288)),
        (32, 8, (36,) * 6),
    ],
)
def test_features_double_from_the_next_multiple_of_12(width, most, features):
    strides = ((2, 2, 2),) * 5
    found = swin_topology(Training(patch=(64, 64, 64), strides=strides, width=width, max_width=most))  # type: ignore[arg-type]
    assert found.features == features
    assert found.strides == strides


def test_heads_double_with_the_features(make_plan):
    plan = make_plan(patch=(8, 16, 16), strides=((1, 2, 2), (2, 2, 2), (2, 2, 2)))
    network = build(architecture_for(plan, "swin_unetr"))
    heads = [[b.attn.num_heads for b in level.attention.blocks] for level in network.encoder[1:]]  # type: ignore[attr-defined]
    assert heads == [[3, 3], [6, 6], [12, 12]]


def test_a_plan_without_pooling_is_refused(make_plan):
    with pytest.raises(UserError, match="without pooling"):
        architecture_for(make_plan(strides=()), "swin_unetr")


def test_shifted_windows_let_a_voxel_see_the_next_window():
    level = AttentionLevel(2, 6, (1, 1, 1), (1, 1, 1), 3).double()
    images = torch.randn(1, 2, 2 * WINDOW, WINDOW, WINDOW, dtype=torch.float64, requires_grad=True)
    patches, _ = level(images)
    patches[0, :, 0, 0, 0].sum().backward()
    seen = images.grad.abs().sum((0, 1, 3, 4)) > 0  # type: ignore[union-attr]
    # those of its own shifted window, and of the plain windows that these are from
    assert seen.all()


@pytest.mark.parametrize("extents", [(2, 2, 2), (3, 1, 2), (4, 2, 3), (1, 2, 4), (6, 2, 5)])
def test_a_level_smaller_than_a_window_has_the_positions_of_one_of_its_size(extents):
    from monai.networks.nets.swin_unetr import BasicLayer

    level = AttentionLevel(6, 6, (1, 1, 1), (1, 1, 1), 3)
    weights = level.attention.state_dict()
    window = tuple(min(extent, WINDOW) for extent in extents)
    middle = tuple(slice(WINDOW - extent, WINDOW + extent - 1) for extent in window)
    for name in [name for name in weights if name.endswith("bias_table")]:
        weights[name] = torch.randn(weights[name].shape)
    level.attention.load_state_dict(weights)
    for name in [name for name in weights if name.endswith("bias_table")]:
        whole = weights[name].unflatten(0, (2 * WINDOW - 1,) * 3)
        weights[name] = whole[middle].flatten(0, 2)
    smaller = BasicLayer(6, 2, 3, window, drop_path=[0.0, 0.0], qkv_bias=True)
    smaller.load_state_dict(weights, strict=False)
    level.merging = torch.nn.Identity()
    images = torch.randn(1, 6, *extents)
    level(torch.randn(1, 6, 8, 8, 8))  # another size before
    torch.testing.assert_close(level(images)[0], smaller(images))


def test_what_follows_from_the_window_is_no_weight(make_plan):
    network = build(architecture_for(make_plan(), "swin_unetr"))
    assert not any("index" in name or "positions" in name for name in network.state_dict())
    assert any("relative_position_index" in name for name, _ in network.named_buffers())


def test_the_table_of_networks_does_not_wait_for_monai():
    """It takes seconds to import, and `fewvox --help` reads the table."""
    tree = ast.parse(Path(swin_unetr.__file__).read_text(encoding="utf-8"))
    imported = [node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert "torch" in imported
    assert not any(module.startswith("monai") for module in imported)
