"""LARS: stochastic gradient descent whose steps have the size of the weights they move.

Source: You et al. 2017, "Large batch training of convolutional networks", arXiv:1708.03888, algorithm 1. We
differ from it as SimCLR's code and lightly do: the learning rate is outside of the momentum, which is the
same where it does not change; and normalisation weights and biases can be left out of it.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling; a group with `adapted` False is moved by SGD with momentum.

    The step of a tensor w of gradient g is `trust` x |w| / (|g| + `weight_decay` x |w|) times as long as
    SGD's; as long where one of the two is 0.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        adapted: bool = True,
    ) -> None:
        if lr < 0 or not 0 <= momentum < 1 or weight_decay < 0 or trust <= 0:
            raise ValueError(f"lr {lr}, momentum {momentum}, weight_decay {weight_decay}, trust {trust}")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, {**defaults, "adapted": adapted})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Moves every weight that has a gradient; gives what `closure` does, which is called before."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)
        return loss

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        update, decay = weight.grad, group["weight_decay"]
        if update is None:
            return
        if group["adapted"]:
            size, slope = weight.norm(), update.norm()
            trusted = group["trust"] * size / (slope + decay * size).clamp_min(1e-30)
            trusted = torch.where((size > 0) & (slope > 0), trusted, torch.ones_like(trusted))
            update = trusted * update.add(weight, alpha=decay)
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(update)
        weight.sub_(velocity, alpha=group["lr"])
