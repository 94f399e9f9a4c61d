"""The networks there are, by name, and how one is built from a checkpoint's description."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field

from ...data.errors import UserError
from ...data.plan import Plan
from ...data.settings import settings
from .network import Network
from .residual_unet import BLOCKS, ResidualUNet
from .topology import Topology, topology
from .unet import UNet

NetworkName = Literal["unet", "residual_unet"]
DEFAULT: NetworkName = "unet"


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A network's class, what it is and where it is from in a line, and its residual blocks, if it has any.

    `blocks` are those of each level from the finest, the last number for all that are deeper.
    """

    network: type[Network]
    summary: str
    blocks: tuple[int, ...] = ()


NETWORKS: dict[NetworkName, Registered] = {
    "unet": Registered(
        network=UNet,
        summary="nnU-Net's U-Net: two convolutions per level (Isensee et al. 2021, "
        "doi:10.1038/s41592-020-01008-z).",
    ),
    "residual_unet": Registered(
        network=ResidualUNet,
        summary="nnU-Net's ResEnc: residual blocks in the encoder (Isensee et al. 2024, arXiv:2404.09556).",
        blocks=BLOCKS,
    ),
}


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
        if bool(self.topology.blocks) != bool(NETWORKS[self.name].blocks):
            raise ValueError(f"a {self.name} with residual blocks {self.topology.blocks}")


def architecture_for(plan: Plan, name: NetworkName | None = None) -> Architecture:
    """What the plan asks for under a registered name (None: the plain U-Net).

    Raises UserError for an unknown name.
    """
    name = DEFAULT if name is None else name
    if name not in NETWORKS:
        raise UserError(
            f"network {name}",
            found="no such network",
            rule=f"There are: {', '.join(NETWORKS)}",
            remedy="Choose one of them",
        )
    return Architecture(
        name=name,
        in_channels=len(plan.preprocessing.channels),
        classes=plan.labels.outputs if plan.labels else 1,
        topology=topology(plan.training, NETWORKS[name].blocks),
    )


def build(architecture: Architecture, seed: int | None = None) -> Network:
    """A network with fresh weights, the same for the same seed; torch's own generator is left as it was."""
    if seed is None:
        return NETWORKS[architecture.name].network(
            architecture.in_channels, architecture.classes, architecture.topology
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(architecture)
