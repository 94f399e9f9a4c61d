"""How fast the network is trained."""

from functools import partial

import torch

from ...seg.losses import segmentation_loss
from ...seg.networks.registry import Architecture, architecture_for, build
from .figure import Figure, measured
from .nuclei import nuclei_store, patch_sampler
from .training_steps import step_figures


def train_figures(runs: int) -> list[Figure]:
    """Our network beside MONAI's of the same topology, and a step of a training beside nnU-Net's."""
    with nuclei_store() as store:
        architecture, batch = architecture_for(store.plan), patch_sampler(store).batch(0)

    def step(network: torch.nn.Module, _: int) -> None:
        loss, _logs = segmentation_loss(network(batch.images), batch.labels)
        loss.backward()

    ours, theirs = build(architecture, seed=0), _dynunet(architecture)
    work = "forward and backward pass of a batch"
    of_network = measured("train", work, partial(step, ours), "MONAI DynUNet", partial(step, theirs), runs)
    return [of_network, *step_figures(min(runs, 3))]


def _dynunet(architecture: Architecture) -> torch.nn.Module:
    from monai.networks.nets.dynunet import DynUNet

    topology = architecture.topology
    return DynUNet(
        spatial_dims=3,
        in_channels=architecture.in_channels,
        out_channels=architecture.classes,
        kernel_size=topology.kernels,
        strides=[(1, 1, 1), *topology.strides],
        upsample_kernel_size=topology.strides,
        filters=topology.features,
        norm_name=("instance", {"affine": True}),
    )
