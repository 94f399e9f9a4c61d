"""Our networks as nnU-Net builds and names them (`dynamic_network_architectures`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...data.errors import UserError
from ..checkpoint import Checkpoint
from ..neighbours.known import CLASSES
from ..networks.registry import Architecture
from ..networks.topology import Topology

REQUIRES_IMPORT = ["conv_op", "norm_op", "dropout_op", "nonlin"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One of nnU-Net's network classes.

    `depths` are the arguments that tell how many convolutions a level has. `encoder`, `stem` and
    `projections` are where nnU-Net looks for these when it takes weights of nnssl.
    """

    class_name: str
    depths: Callable[[Topology], dict[str, list[int]]]
    encoder: str
    stem: str
    projections: tuple[str, ...]


_LAYOUTS = (
    Layout(
        class_name="PlainConvUNet",
        depths=lambda topology: {
            "n_conv_per_stage": [2] * len(topology.features),
            "n_conv_per_stage_decoder": [2] * len(topology.strides),
        },
        encoder="encoder.stages",
        stem="encoder.stages.0",
        projections=("encoder.stages.0.0.convs.0.conv", "encoder.stages.0.0.convs.0.all_modules.0"),
    ),
    Layout(
        class_name="ResidualEncoderUNet",
        depths=lambda topology: {
            "n_blocks_per_stage": list(topology.blocks),
            "n_conv_per_stage_decoder": [1] * len(topology.strides),
        },
        encoder="encoder.stages",
        stem="encoder.stem",
        projections=("encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"),
    ),
)


def layout_of(architecture: Architecture) -> Layout:
    """nnU-Net's class of a network; raises UserError for one that it does not have."""
    known = {CLASSES[layout.class_name].network: layout for layout in _LAYOUTS}
    if architecture.name not in known:
        raise UserError(
            f"network {architecture.name}",
            found="nnU-Net has no such network",
            rule=f"It has: {', '.join(known)}",
            remedy="Export with --to onnx or --to safetensors",
        )
    return known[architecture.name]


def arguments(architecture: Architecture) -> dict[str, Any]:
    """What nnU-Net's class is built with, beside the numbers of input channels and classes."""
    topology = architecture.topology
    levels = len(topology.features)
    return {
        "n_stages": levels,
        "features_per_stage": list(topology.features),
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [list(kernel) for kernel in topology.kernels],
        # ours lead from a level to the next, theirs into a level
        "strides": [[1, 1, 1], *(list(stride) for stride in topology.strides)],
        **layout_of(architecture).depths(topology),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def weights(checkpoint: Checkpoint, *, with_output: bool) -> dict[str, Tensor]:
    """The tensors under all names that nnU-Net's network gives them.

    With the output come those of the coarser levels, which we do not have: zeros, read by nnU-Net only where
    it trains with deep supervision. Logits are centred between the classes, which softmax does not see:
    nnU-Net sums them in half precision, whose digits are finest around 0, where two classes compete.
    """
    architecture = checkpoint.info.architecture
    tensors, labels = dict(checkpoint.tensors), checkpoint.info.plan.labels
    if labels is not None and labels.kind != "overlapping":
        for name in ("output.weight", "output.bias"):
            tensors[name] = tensors[name] - tensors[name].mean(dim=0)
    found = {
        name: tensors[ours].contiguous()
        for ours, names in CLASSES[layout_of(architecture).class_name].names(architecture.topology).items()
        if with_output or not ours.startswith("output.")
        for name in names
    }
    if with_output:
        features = architecture.topology.features
        for stage in range(len(features) - 2):
            shape = (architecture.classes, features[-2 - stage], 1, 1, 1)
            found[f"decoder.seg_layers.{stage}.weight"] = torch.zeros(shape)
            found[f"decoder.seg_layers.{stage}.bias"] = torch.zeros(architecture.classes)
    return found


def check_network(checkpoint: Checkpoint) -> None:
    """Raises UserError for a network that nnU-Net cannot build or run."""
    layout_of(checkpoint.info.architecture)
    training = checkpoint.info.plan.training
    poolings = len(checkpoint.info.architecture.topology.strides)
    deepest = [n // m for n, m in zip(training.patch, checkpoint.network().multiple, strict=True)]
    if poolings and deepest != [1, 1, 1]:
        return
    raise UserError(
        checkpoint.path,
        found="a network without pooling"
        if not poolings
        else f"poolings that leave one voxel of the patch {training.patch}",
        rule="nnU-Net's networks pool at least once, and normalise over more than one voxel",
        remedy="Train with other strides or a larger patch, or export with --to onnx or --to safetensors",
    )
