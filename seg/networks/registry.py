"""The networks there are, by name, and how one is built from a checkpoint's description."""

from typing import Annotated, Literal

import torch
from pydantic import Field

from ...data.errors import UserError
from ...data.plan import Plan
from ...data.settings import settings
from .topology import Topology, topology
from .unet import UNet

NETWORKS = {"unet": UNet}


@settings
class Architecture:
    """All that a network is built from; stands in every checkpoint.

    `classes` is the number of output channels: without the background where classes may overlap.
    """

    name: Literal["unet"] = "unet"
    in_channels: Annotated[int, Field(ge=1)]
    classes: Annotated[int, Field(ge=1)]
    topology: Topology


def architecture_for(plan: Plan, name: str = "unet") -> Architecture:
    """What the plan asks for under a registered name; raises UserError for an unknown name."""
    if name not in NETWORKS:
        raise UserError(
            f"network {name}",
            found="no such network",
            rule=f"There are: {', '.join(NETWORKS)}",
            remedy="Choose one of them",
        )
    return Architecture(
        in_channels=len(plan.preprocessing.channels),
        classes=plan.labels.outputs if plan.labels else 1,
        topology=topology(plan.training),
    )


def build(architecture: Architecture, seed: int | None = None) -> UNet:
    """A network with fresh weights, the same for the same seed; torch's own generator is left as it was."""
    if seed is None:
        return NETWORKS[architecture.name](
            architecture.in_channels, architecture.classes, architecture.topology
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(architecture)
