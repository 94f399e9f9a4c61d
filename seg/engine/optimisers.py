"""Optimisers by name, and which one a number of steps asks for."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from ...data.settings import settings
from .lars import LARS

# nnU-Net's SGD takes thousands of steps to leave the all-background solution; below this AdamW learns sooner
SHORT_TRAINING = 10_000


@settings
class OptimiserConfig:
    """`auto` is AdamW below 10,000 steps and SGD with Nesterov momentum from there on.

    Learning rate `None`: 3e-3 for AdamW (with instance normalisation it stays stable, and a few hundred
    steps get further than with 1e-3); 1e-2 for SGD, as nnU-Net; 0.3 for LARS (SimCLR's for a batch of 256:
    Chen et al. 2020, arXiv:2002.05709, section 2.2, which scales it with the batch). Weight decay `None`:
    1e-2 for AdamW (torch's default), 3e-5 for SGD (nnU-Net's), 1e-6 for LARS (SimCLR's). Momentum `None`:
    0.99 for SGD (nnU-Net's), 0.9 for LARS (SimCLR's) and AdamW (its first beta; torch's default).
    """

    name: Literal["auto", "adamw", "sgd", "lars"] = "auto"
    lr: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None


# learning rate, weight decay, momentum
_DEFAULTS = {"adamw": (3e-3, 1e-2, 0.9), "sgd": (1e-2, 3e-5, 0.99), "lars": (0.3, 1e-6, 0.9)}


def resolved(config: OptimiserConfig, steps: int) -> OptimiserConfig:
    """The same without `auto` and None."""
    name = config.name if config.name != "auto" else ("adamw" if steps < SHORT_TRAINING else "sgd")
    lr, decay, momentum = _DEFAULTS[name]
    return OptimiserConfig(
        name=name,
        lr=config.lr if config.lr is not None else lr,
        weight_decay=config.weight_decay if config.weight_decay is not None else decay,
        momentum=config.momentum if config.momentum is not None else momentum,
    )


def build_optimiser(
    module: nn.Module, config: OptimiserConfig, block_of: Callable[[str], str]
) -> torch.optim.Optimizer:
    """The optimiser of a resolved configuration over all trainable parameters, in groups of one `block` each.

    `block_of` gives the block of a parameter by its name. Normalisation weights and biases are not decayed.
    """
    lr = config.lr
    if config.name == "auto" or lr is None or config.weight_decay is None:
        raise ValueError("resolve the configuration first")
    found: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            found.setdefault((block_of(name), parameter.ndim > 1), []).append(parameter)
    groups = [
        {
            "params": parameters,
            "block": block,
            "weight_decay": config.weight_decay if decayed else 0.0,
            # of LARS alone
            **({"adapted": decayed} if config.name == "lars" else {}),
        }
        for (block, decayed), parameters in found.items()
    ]
    momentum = _DEFAULTS[config.name][2] if config.momentum is None else config.momentum
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999))
    if config.name == "lars":
        return LARS(groups, lr, momentum=momentum)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
