"""What a training will need, told before it starts."""

import copy
import time

import torch
from torch import Tensor, nn

from ...data.volume import Shape
from .precision import Precision


def training_bytes(network: nn.Module, batch: int, channels: int, patch: Shape) -> int:
    """Bytes a training step holds: saved activations, their gradients' peak, weights and optimiser.

    The network is run on torch's meta device, which computes shapes and no values, while every tensor
    that autograd keeps for the backward pass is counted once.
    """
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        alive.append(storage)
        return tensor

    alive: list[object] = []  # a freed storage could hand its identity to the next
    copied = copy.deepcopy(network).to("meta").train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        copied(torch.empty((batch, channels, *patch), device="meta"))
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    largest = max(kept.values(), default=0)
    # weights, gradients and two moments; loss and backward pass hold about four more of the largest
    # activation; the sum was up to a fifth below the peak measured on a CPU
    return sum(kept.values()) + 4 * largest + 4 * weights


def seconds_per_step(task: nn.Module, batch: object, precision: Precision) -> float:
    """Wall-clock seconds of one forward and backward pass on a copy of the task, after one to warm up.

    The copy keeps the training itself untouched, bit for bit.
    """
    copied = copy.deepcopy(task).train()
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with precision.forward():
            loss = copied(batch, 0).loss
        loss.backward()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return seconds
