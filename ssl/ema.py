"""A teacher: a copy of a network that follows it as a moving average, and how closely over a training.

Source: Tarvainen and Valpola 2017 (arXiv:1703.01780); its momentum rises to 1 along a cosine as in Grill et
al. 2020 (BYOL, arXiv:2006.07733, section 3.2) and Caron et al. 2021 (DINO, arXiv:2104.14294, section 3.1).
"""

import copy
import math
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def teacher_of(student: M) -> M:
    """A copy that learns by no gradient."""
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Moves the teacher's weights to `momentum` x its own + (1 - `momentum`) x the student's.

    Buffers (running means) are taken over as they are; in BYOL's and DINO's code a teacher gathers its own.
    """
    for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        mine.lerp_(theirs, 1 - momentum)
    for mine, theirs in zip(teacher.buffers(), student.buffers(), strict=True):
        mine.copy_(theirs)


def momentum_at(step: int, steps: int, base: float) -> float:
    """The momentum after a step (from 0) of so many: from `base` at the first to 1 at the last."""
    return 1 - (1 - base) * (math.cos(math.pi * step / max(1, steps - 1)) + 1) / 2


def base_momentum(steps: int, of_paper: float, steps_of_paper: int) -> float:
    """The paper's momentum for a training of another length.

    A teacher remembers about 1 / (1 - momentum) steps. In a training that is shorter that is scaled by the
    square root of the ratio, but not below 10 steps, or it would be where it began to the end.
    """
    remembered = 1 / (1 - of_paper) * min(1.0, (steps / steps_of_paper) ** 0.5)
    return 1 - 1 / max(10.0, remembered)
