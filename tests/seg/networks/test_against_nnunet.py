"""The same functions as nnU-Net's networks, tensor by tensor, where its package is installed."""

import re
from typing import Any

import pytest
import torch
from fewvox.seg.neighbours.names import nnunet_names, nnunet_residual_names
from fewvox.seg.networks.registry import Architecture, build
from fewvox.seg.networks.topology import Topology
from torch import nn

NAMES = {"unet": nnunet_names, "residual_unet": nnunet_residual_names}
CUBE = (3, 3, 3)
# features, kernels, strides, extent of an input
SHAPES = {
    "isotropic": ((4, 8, 16), (CUBE,) * 3, ((2, 2, 2),) * 2, (8, 8, 12)),
    "anisotropic": ((4, 8, 8), ((1, 3, 3), CUBE, CUBE), ((1, 2, 2), (2, 2, 2)), (6, 8, 8)),
    "a level of no stride": ((4, 6, 8, 8), (CUBE,) * 4, ((1, 2, 2), (1, 1, 1), (2, 2, 2)), (4, 8, 8)),
    "single slice": ((4, 8), ((1, 3, 3),) * 2, ((1, 2, 2),), (1, 12, 8)),
}


@pytest.fixture(params=NAMES)
def name(request) -> Any:
    return request.param


@pytest.fixture(params=SHAPES)
def shape(request) -> str:
    return request.param


def described(name: Any, shape: str) -> Architecture:
    features, kernels, strides, _ = SHAPES[shape]
    blocks = (1, 3, 2, 2)[: len(features)] if name == "residual_unet" else ()
    levels = Topology(features=features, kernels=kernels, strides=strides, blocks=blocks)
    return Architecture(name=name, in_channels=2, classes=3, topology=levels)


def theirs(architecture: Architecture) -> Any:
    """Their network, with weights of its own."""
    package = pytest.importorskip(
        "dynamic_network_architectures.architectures.unet",
        reason="compares with nnU-Net's networks: pip install dynamic-network-architectures",
    )
    levels, residual = architecture.topology, architecture.name == "residual_unet"
    number = len(levels.features)
    convolutions: dict[str, Any] = (
        {"n_blocks_per_stage": levels.blocks, "n_conv_per_stage_decoder": [1] * (number - 1)}
        if residual
        else {"n_conv_per_stage": [2] * number, "n_conv_per_stage_decoder": [2] * (number - 1)}
    )
    made = (package.ResidualEncoderUNet if residual else package.PlainConvUNet)(
        input_channels=architecture.in_channels,
        n_stages=number,
        features_per_stage=levels.features,
        conv_op=nn.Conv3d,
        kernel_sizes=levels.kernels,
        strides=((1, 1, 1), *levels.strides),
        num_classes=architecture.classes,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        **convolutions,
    )
    return made.apply(made.initialize)


def test_every_tensor_has_names_of_its_own(name, shape):
    architecture = described(name, shape)
    names = NAMES[name](architecture.topology)
    assert names.keys() == build(architecture).state_dict().keys()
    listed = [their for group in names.values() for their in group]
    assert len(listed) == len(set(listed))


def test_weights_copied_by_name_give_the_same_logits(name, shape):
    architecture = described(name, shape)
    ours, other = build(architecture).eval(), theirs(architecture).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    names, state = NAMES[name](architecture.topology), ours.state_dict()
    renamed = {their: state[own] for own, group in names.items() for their in group}
    missing, unexpected = other.load_state_dict(renamed, strict=False)
    assert unexpected == []
    assert all(re.fullmatch(r"decoder\.seg_layers\.\d+\.(weight|bias)", key) for key in missing)
    assert len(missing) == 2 * (len(architecture.topology.features) - 2)
    images = torch.randn(2, 2, *SHAPES[shape][3], generator=generator)
    torch.testing.assert_close(ours(images), other(images), rtol=0, atol=1e-5)


def test_there_are_as_many_parameters(name, shape):
    architecture = described(name, shape)
    other = theirs(architecture)
    supervising = sum(p.numel() for p in other.decoder.seg_layers[:-1].parameters())
    ours = sum(p.numel() for p in build(architecture).parameters())
    assert ours == sum(p.numel() for p in other.parameters()) - supervising


def test_training_begins_with_the_same_tensors_at_0_and_the_others_as_wide(name, shape):
    architecture = described(name, shape)
    state, ours = theirs(architecture).state_dict(), build(architecture, 0).state_dict()
    for own, group in NAMES[name](architecture.topology).items():
        found, expected = ours[own].float(), state[group[0]].float()
        assert bool(found.any()) == bool(expected.any()), own
        # enough weights to tell one way of drawing them from another
        if own.endswith("weight") and found.numel() > 1000:
            assert float(found.std() / expected.std()) == pytest.approx(1, abs=0.15), own
