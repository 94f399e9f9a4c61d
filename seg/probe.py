"""What a network gives for a fixed input: the proof that weights arrived as they left."""

from dataclasses import field
from typing import Annotated

from pydantic import Field

from ..data.settings import settings


@settings
class BlockProbe:
    """Mean and standard deviation of what a block gives for the probe, and some of the values themselves."""

    mean: float
    std: Annotated[float, Field(ge=0)]
    values: tuple[float, ...]


@settings
class Probe:
    """What every block of a network gives for the probe input of `shape` (C, Z, Y, X), by the block's name.

    Blocks are "encoder.0" (the finest), ..., "decoder.0" (the coarsest), ..., "output".
    """

    shape: tuple[int, int, int, int]
    blocks: dict[str, BlockProbe] = field(default_factory=dict)
