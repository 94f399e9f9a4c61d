"""The networks there are, by name, and how one is built from a checkpoint's description."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field

from ...data.plan import Plan, Training
from ...data.plugins import Plugins
from ...data.settings import settings
from .efficientnet import SCALINGS, EfficientNetUNet, efficientnet_topology
from .hrnet import HRNet
from .network import Network
from .residual_unet import BLOCKS, ResidualUNet
from .swin_unetr import SwinUNETR, swin_topology
from .topology import Topology, topology
from .unet import UNet

DEFAULT = "unet"


@dataclass(frozen=True, kw_only=True)
class Registered:
    """How a network is made, what it is and where it is from in a line, and the levels a plan asks for.

    `network` is called with the numbers of channels and classes and the levels. `blocks` tells whether its
    levels have residual blocks that are counted in their description.
    """

    network: Callable[[int, int, Topology], Network]
    summary: str
    levels: Callable[[Training], Topology] = topology
    blocks: bool = False


def _efficientnet(name: str, summary: str) -> Registered:
    scaling = SCALINGS[name]
    return Registered(
        network=partial(EfficientNetUNet, scaling=scaling),
        summary=summary,
        levels=partial(efficientnet_topology, scaling=scaling),
    )


NETWORKS: dict[str, Registered] = {
    "unet": Registered(
        network=UNet,
        summary="nnU-Net's U-Net: two convolutions per level (Isensee et al. 2021, "
        "doi:10.1038/s41592-020-01008-z).",
    ),
    "residual_unet": Registered(
        network=ResidualUNet,
        summary="nnU-Net's ResEnc: residual blocks in the encoder (Isensee et al. 2024, arXiv:2404.09556).",
        levels=partial(topology, blocks=BLOCKS),
        blocks=True,
    ),
    "efficientnet_b0": _efficientnet(
        "efficientnet_b0", "A U-Net whose encoder is EfficientNet (Tan & Le 2019, arXiv:1905.11946)."
    ),
    "efficientnet_b1": _efficientnet("efficientnet_b1", "The same, 1.1 times as deep."),
    "efficientnet_b2": _efficientnet("efficientnet_b2", "The same, 1.2 times as deep and 1.1 as wide."),
    "efficientnet_b3": _efficientnet("efficientnet_b3", "The same, 1.4 times as deep and 1.2 as wide."),
    "efficientnet_b4": _efficientnet("efficientnet_b4", "The same, 1.8 times as deep and 1.4 as wide."),
    "hrnet": Registered(
        network=HRNet,
        summary="HRNet: levels side by side that exchange features (Wang et al. 2020, arXiv:1908.07919).",
    ),
    "swin_unetr": Registered(
        network=SwinUNETR,
        summary="Swin UNETR: attention in shifted windows (Hatamizadeh et al. 2022, arXiv:2201.01266).",
        levels=swin_topology,
    ),
}


def _accepted(name: str, offered: Any) -> Registered:  # noqa: ARG001 (its own table names it)
    if not isinstance(offered, Registered):
        raise TypeError(f"it is {type(offered).__name__}")
    return offered


PLUGINS = Plugins("network", NETWORKS, _accepted, "a Registered (fewvox.seg.networks.registry)")
# in settings and checkpoints: one of ours, or one that an installed package offers
NetworkName = Annotated[str, AfterValidator(PLUGINS.known)]


@settings
class Architecture:
    """All that a network is built from; stands in every checkpoint.

    `classes` is the number of output channels: without the background where classes may overlap.
    """

    name: NetworkName = DEFAULT
    in_channels: Annotated[int, Field(ge=1)]
    classes: Annotated[int, Field(ge=1)]
    topology: Topology

    def __post_init__(self) -> None:
        """Raises ValueError for residual blocks where the network has none, or none where it has some."""
        if bool(self.topology.blocks) != find_network(self.name).blocks:
            raise ValueError(f"a {self.name} with residual blocks {self.topology.blocks}")


def find_network(name: str) -> Registered:
    """The network of that name, ours or one that an installed package offers.

    Raises UserError with the known names.
    """
    return PLUGINS.find(name)


def architecture_for(plan: Plan, name: str | None = None) -> Architecture:
    """What the plan asks for under a registered name (None: the plain U-Net).

    Raises UserError for an unknown name, and for a plan that the network cannot follow.
    """
    name = DEFAULT if name is None else name
    return Architecture(
        name=name,
        in_channels=len(plan.preprocessing.channels),
        classes=plan.labels.outputs if plan.labels else 1,
        topology=find_network(name).levels(plan.training),
    )


def build(architecture: Architecture, seed: int | None = None) -> Network:
    """A network with fresh weights, the same for the same seed; torch's own generator is left as it was."""
    if seed is None:
        registered = find_network(architecture.name)
        return registered.network(architecture.in_channels, architecture.classes, architecture.topology)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(architecture)
