"""Learning-rate schedules: plain functions of the step."""

from typing import Annotated

from pydantic import Field

from ...data.settings import settings


@settings
class ScheduleConfig:
    """Linear warm-up, then polynomial decay to 0 (power 0.9: Chen et al. 2017, arXiv:1606.00915; nnU-Net)."""

    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    power: Annotated[float, Field(gt=0)] = 0.9


def lr_factor(step: int, steps: int, config: ScheduleConfig) -> float:
    """What the peak learning rate is multiplied by at `step` (from 0) of `steps`."""
    warmup = round(config.warmup_share * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (1 - (step - warmup) / (steps - warmup)) ** config.power
