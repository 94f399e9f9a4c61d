"""A moving average of weights, which is steadier than the weights of any one step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of a network's weights and buffers.

    Source: Polyak and Juditsky 1992 (doi:10.1137/0330046); over the tail of a training Izmailov et al. 2018
    (arXiv:1803.05407). The decay rises to its value as min(decay, (1 + t) / (10 + t)) over the updates t, as
    TensorFlow's has it, so that where the training began is soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay, self.updates = network, decay, 0
        self.tensors = self._copied()

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, tensor in self.network.state_dict().items():
            mean = self.tensors[name]
            if mean.is_floating_point():
                mean.lerp_(tensor, 1 - decay)
            else:  # a counter
                mean.copy_(tensor)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[dict[str, Any]]:
        """Within the block the network has the averaged weights; after it its own, to the bit.

        Gives what `restore` needs beside the averaged weights.
        """
        raw = self._copied()
        self._fill(self.tensors)
        try:
            yield {"updates": self.updates, "weights": raw}
        finally:
            self._fill(raw)

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state; the network has the averaged weights and is given its own."""
        self.tensors, self.updates = self._copied(), state["updates"]
        self._fill(state["weights"])

    def _copied(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    @torch.no_grad()
    def _fill(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self.network.state_dict().items():
            tensor.copy_(tensors[name])
