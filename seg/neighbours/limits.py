"""The levels that networks here can have."""

from pathlib import Path

from ..networks.topology import Topology
from .errors import SourceError

MOST_LEVELS = 12
_MOST_FEATURES = 4096


def checked_topology(topology: Topology, where: Path) -> Topology:
    """The levels as they are; raises SourceError for such as our networks cannot have."""
    levels = len(topology.features)
    if not 1 <= levels <= MOST_LEVELS or len(topology.strides) != levels - 1:
        raise refused(where, f"{levels} levels with {len(topology.strides)} strides between them")
    if len(topology.kernels) != levels or any(k < 1 or k % 2 == 0 for ks in topology.kernels for k in ks):
        raise refused(where, f"kernels of {topology.kernels}")
    if any(s not in (1, 2) for stride in topology.strides for s in stride):
        raise refused(where, f"strides of {topology.strides}")
    if not all(1 <= f <= _MOST_FEATURES for f in topology.features):
        raise refused(where, f"features of {topology.features}")
    return topology


def refused(where: Path, found: str) -> SourceError:
    """The error for a network that cannot be one of ours."""
    return SourceError(
        where,
        found=found,
        rule="Networks here are in 3D, of kernels of odd width and strides of 1 or 2, with two convolutions "
        "a level, each with instance normalisation and leaky ReLU (0.01), and without dropout",
        remedy="Give a checkpoint of such a network",
    )
