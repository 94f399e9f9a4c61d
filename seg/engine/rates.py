"""The learning rate of every block of a network, step by step."""

from collections.abc import Callable

import torch
from torch import nn

from .schedules import ScheduleConfig, lr_factor
from .state import prefix


class Rates:
    """The learning rates of an optimiser's groups."""

    def __init__(
        self, optimiser: torch.optim.Optimizer, network: nn.Module, schedule: ScheduleConfig, steps: int
    ) -> None:
        self.optimiser, self.blocks, self.schedule, self.steps = (
            optimiser,
            blocks_of(network),
            schedule,
            steps,
        )
        self.peaks = [group["lr"] for group in optimiser.param_groups]

    def set(self, step: int) -> float:
        """Sets them for a step, and freezes blocks without one; gives the highest."""
        for group, peak in zip(self.optimiser.param_groups, self.peaks, strict=True):
            factor = lr_factor(step, self.steps, self.schedule, group["block"], self.blocks)
            group["lr"] = peak * factor
            for parameter in group["params"]:
                parameter.requires_grad_(factor > 0)
        return max(group["lr"] for group in self.optimiser.param_groups)


def highest_rate(peak: float, step: int, steps: int, schedule: ScheduleConfig, network: nn.Module) -> float:
    """The highest learning rate at a step (from 0) of so many; 0 after the last."""
    blocks = blocks_of(network)
    return peak * max(lr_factor(step, steps, schedule, block, blocks) for block in blocks)


def blocks_of(network: nn.Module) -> list[str]:
    """The blocks of a network from its input to its output: "encoder.0", ..., "decoder.0", ..., "output"."""
    return list(dict.fromkeys(_block(name) for name, _ in network.named_parameters()))


def _block(name: str) -> str:
    part, *rest = name.split(".")
    return ".".join([part, *rest[:1]]) if part != "output" else part


def block_namer(task: nn.Module, network: nn.Module) -> Callable[[str], str]:
    """The block of a parameter of the task; what is not of the network goes with its output."""
    own, last = prefix(task, network), blocks_of(network)[-1]
    return lambda name: _block(name.removeprefix(own)) if name.startswith(own) else last
