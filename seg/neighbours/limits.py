"""The levels that networks here can have."""

from collections.abc import Sequence
from pathlib import Path

from ..networks.topology import MOST_BLOCKS, MOST_FEATURES, MOST_LEVELS, Topology, Triple
from .errors import SourceError


def levels(
    features: Sequence[int],
    kernels: Sequence[Triple],
    strides: Sequence[Triple],
    blocks: Sequence[int],
    where: Path,
) -> Topology:
    """A topology; raises SourceError for one that networks here cannot have."""
    count = len(features)
    if not 1 <= count <= MOST_LEVELS or len(strides) != count - 1:
        raise refused(where, f"{count} levels with {len(strides)} strides between them")
    if len(kernels) != count or any(k < 1 or k % 2 == 0 for kernel in kernels for k in kernel):
        raise refused(where, f"kernels of {[*kernels]}")
    if any(s not in (1, 2) for stride in strides for s in stride):
        raise refused(where, f"strides of {[*strides]}")
    if not all(1 <= number <= MOST_FEATURES for number in features):
        raise refused(where, f"features of {[*features]}")
    if blocks and (len(blocks) != count or not all(1 <= number <= MOST_BLOCKS for number in blocks)):
        raise refused(where, f"residual blocks {[*blocks]} at {count} levels")
    return Topology(
        features=tuple(features), kernels=tuple(kernels), strides=tuple(strides), blocks=tuple(blocks)
    )


def refused(where: Path, found: str) -> SourceError:
    """The error for a network that cannot be one of ours."""
    return SourceError(
        where,
        found=found,
        rule="Networks here are in 3D, with kernels of odd width, strides of 1 or 2, instance normalisation, "
        "leaky ReLU (0.01) and no dropout; with two convolutions a level, or residual blocks in the encoder "
        "and one convolution at each level of the decoder",
        remedy="Give a checkpoint of such a network",
    )
