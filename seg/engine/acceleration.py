"""Ways to compute the same in less time or memory."""

from importlib.util import find_spec

import torch
from torch import nn

from ..networks.network import Network


def has_compiler(device: torch.device) -> bool:
    """Whether torch can compile for a GPU here: it needs Triton. On a CPU it is not done by default."""
    return device.type == "cuda" and find_spec("triton") is not None


def accelerate(
    task: nn.Module, network: Network, *, checkpointing: bool, compiled: bool, channels_last: bool
) -> None:
    """Changes how a task and its network compute, in place; the names of their tensors stay.

    Args:
        task: what is called in training; validation and prediction use the network, which is not compiled.
        network: part of it.
        checkpointing: activations are computed again in the backward pass (Chen et al. 2016,
            arXiv:1604.06174); the network says of which blocks.
        compiled: by `torch.compile`; the first steps take longer.
        channels_last: the layout of features in memory.
    """
    network.checkpointing = checkpointing
    if channels_last:
        # torch's own stubs know no module in such a format
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if compiled:
        task.compile()
