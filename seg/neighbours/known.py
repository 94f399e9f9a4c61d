"""The networks that a file may hold, and what their tensors are called there."""

from collections.abc import Callable
from dataclasses import dataclass

from ..networks.registry import NetworkName
from ..networks.topology import Topology
from .names import nnunet_names, nnunet_residual_names

Names = Callable[[Topology], dict[str, tuple[str, ...]]]


@dataclass(frozen=True, kw_only=True)
class Known:
    """A network as files name it.

    `network` is its name in our registry, `names` gives for each tensor of ours those it has in the file
    where they are others. `first` is the first convolution, without "encoder."; `level` is the first
    convolution of encoder level {}, `up` the transposed convolution of decoder level {}. `block` is the first
    convolution of residual block {1} of level {0} where there are such blocks.
    """

    network: NetworkName
    names: Names
    first: str
    level: str
    up: str
    block: str | None = None


OWN = Known(
    network="unet",
    names=lambda _: {},
    first="0.0.0.weight",
    level="encoder.{}.0.0.weight",
    up="decoder.{}.up.weight",
)
PLAIN = Known(
    network="unet",
    names=nnunet_names,
    first="stages.0.0.convs.0.conv.weight",
    level="encoder.stages.{}.0.convs.0.conv.weight",
    up="decoder.transpconvs.{}.weight",
)
OWN_RESIDUAL = Known(
    network="residual_unet",
    names=lambda _: {},
    first="0.stem.0.weight",
    level="encoder.{}.blocks.0.first.0.weight",
    up="decoder.{}.up.weight",
    block="encoder.{}.blocks.{}.first.0.weight",
)
RESIDUAL = Known(
    network="residual_unet",
    names=nnunet_residual_names,
    first="stem.convs.0.conv.weight",
    level="encoder.stages.{}.blocks.0.conv1.conv.weight",
    up="decoder.transpconvs.{}.weight",
    block="encoder.stages.{}.blocks.{}.conv1.conv.weight",
)
KNOWN = (OWN, PLAIN, OWN_RESIDUAL, RESIDUAL)
# by the names of the classes in dynamic_network_architectures
CLASSES = {"PlainConvUNet": PLAIN, "ResidualEncoderUNet": RESIDUAL}
