"""The networks that a file may hold, and what their tensors are called there."""

from collections.abc import Callable
from dataclasses import dataclass

from ..networks.topology import Topology
from .names import nnunet_names

Names = Callable[[Topology], dict[str, tuple[str, ...]]]


@dataclass(frozen=True, kw_only=True)
class Known:
    """A network as files name it.

    `network` is its name in our registry, `names` gives for each tensor of ours those it has in the file
    (None: the same). `first` is the first convolution, without "encoder."; `level` is the first convolution
    of encoder level {}, `up` the transposed convolution of decoder level {}.
    """

    network: str
    names: Names | None
    first: str
    level: str
    up: str
    decoder_convolutions: int = 2


OWN = Known(
    network="unet",
    names=None,
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
KNOWN = (OWN, PLAIN)
# by the names of the classes in dynamic_network_architectures
CLASSES = {"PlainConvUNet": PLAIN}
