"""Learning-rate schedules: plain functions of the step and of the block of the network.

The names for fine-tuning are those of Wald et al. 2025 ("Revisiting MAE pre-training for 3D medical image
segmentation", arXiv:2410.23132, the ablation of fine-tuning schedules), who give the first phases 5 % of
1,000 epochs each; ours are shares of trainings that may have a few hundred steps, and wider.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from ...data.settings import settings

ScheduleName = Literal["standard", "warmup", "sawtooth", "valley", "frozen", "progressive", "layerwise"]
# of the steps; what the rate rises over to its peak, by the name of the schedule
_WARMUP: dict[ScheduleName, float] = {"warmup": 0.2, "sawtooth": 0.1, "valley": 0.1}
# a warm-up shorter than this shakes AdamW's first moments; its share is bounded in short trainings
_WARMUP_STEPS, _LEAST_WARMUP, _MOST_WARMUP = 25, 0.05, 0.2


@settings
class ScheduleConfig:
    """How the learning rate goes, for each block of the network.

    - "standard": a linear warm-up, then polynomial decay to 0 (power 0.9: Chen et al. 2017,
      arXiv:1606.00915; nnU-Net, which has no warm-up).
    - "warmup": the same with a long warm-up.
    - "sawtooth": in the first `decoder_share` of the steps the encoder is frozen and the rate of the rest
      rises; then a warm-up of the whole network, and decay.
    - "valley": the same, but that the rate of the rest falls while the encoder is frozen.
    - "frozen": the encoder is frozen for good.
    - "progressive": blocks are released one by one, the output first, until `unfreeze_share` of the steps
      (gradual unfreezing: Howard and Ruder 2018, arXiv:1801.06146, section 3.3).
    - "layerwise": each block learns `layer_decay` times as fast as the one after it (discriminative rates:
      Howard and Ruder 2018; Clark et al. 2020, arXiv:2003.10555).

    A frozen block gets no gradient at all. `warmup_share` None: 0.2 for "warmup", 0.1 for "sawtooth" and
    "valley", else 25 steps, at least 0.05 and at most 0.2.
    """

    name: Literal[
        "auto", "standard", "warmup", "sawtooth", "valley", "frozen", "progressive", "layerwise"
    ] = "auto"
    warmup_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    decoder_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    unfreeze_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.8
    power: Annotated[float, Field(gt=0)] = 0.9


def resolved_schedule(config: ScheduleConfig, steps: int, auto: ScheduleName = "standard") -> ScheduleConfig:
    """The same without None, and with `auto` where no name was chosen, for a training of so many steps."""
    name = auto if config.name == "auto" else config.name
    share = config.warmup_share
    if share is None:
        share = _WARMUP.get(name, min(max(_WARMUP_STEPS / steps, _LEAST_WARMUP), _MOST_WARMUP))
    return replace(config, name=name, warmup_share=share)


def lr_factor(step: int, steps: int, config: ScheduleConfig, block: str, blocks: Sequence[str]) -> float:
    """What the peak learning rate of a block is multiplied by at `step` (from 0) of `steps`; 0 is frozen.

    `config` is resolved. `blocks` are those of the network from its input to its output, such as
    "encoder.0", ..., "decoder.0", ..., "output".
    """
    encoder = block.startswith("encoder.")
    if config.name in ("sawtooth", "valley"):
        alone = max(1, round(config.decoder_share * steps))
        if step < alone:
            return 0.0 if encoder else _alone(step, alone, rising=config.name == "sawtooth")
        return _rise_and_decay(step - alone, steps - alone, config, config.decoder_share)
    factor = _rise_and_decay(step, steps, config)
    if config.name == "frozen" and encoder:
        return 0.0
    from_output = len(blocks) - 1 - blocks.index(block)
    if config.name == "progressive":
        released = from_output / max(1, len(blocks) - 1) * config.unfreeze_share * steps
        return factor if step >= released else 0.0
    if config.name == "layerwise":
        return factor * config.layer_decay**from_output
    return factor


def _alone(step: int, steps: int, *, rising: bool) -> float:
    """The rate of the decoder while the encoder is frozen: it begins and ends above 0."""
    return (step + 1) / steps if rising else 1 - step / steps


def _rise_and_decay(step: int, steps: int, config: ScheduleConfig, before: float = 0.0) -> float:
    """Linear warm-up, then polynomial decay; `before` is the share of the whole training that has passed."""
    if config.warmup_share is None:
        raise ValueError("resolve the configuration first")
    warmup = round(min(config.warmup_share / (1 - before), 0.99) * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (1 - (step - warmup) / (steps - warmup)) ** config.power
