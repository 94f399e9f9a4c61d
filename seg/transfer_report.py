"""What became of every tensor at the hand-off, whether the data were prepared alike, and the proof."""

from typing import Annotated, Literal

from pydantic import Field

from ..data.settings import settings
from .source import Kind

Part = Literal["encoder", "decoder", "output"]
State = Literal["loaded", "adapted", "re-initialised"]
# parts, or blocks by name such as "decoder.0"
Choice = Literal["encoder", "decoder", "both"] | tuple[str, ...]


@settings
class TransferredTensor:
    """What became of one tensor of the network.

    `detail` tells how it was adapted, or why it was re-initialised; `source` is its name in the checkpoint,
    which is that of another level where levels were aligned.
    """

    name: str
    part: Part
    parameters: Annotated[int, Field(ge=0)]
    state: State
    detail: str = ""
    source: str | None = None


@settings
class Mismatch:
    """Something that differs between the volumes of the checkpoint and those here."""

    what: str
    theirs: str
    ours: str


@settings
class Proof:
    """How far the network's answer to the checkpoint's probe is from the stored one.

    `deviations` has the largest deviation of each block that must answer alike, in standard deviations of
    the block; `left_out` says of the others why they cannot be compared.
    """

    deviations: dict[str, Annotated[float, Field(ge=0)]]
    left_out: dict[str, str]


@settings
class Guard:
    """How unlike the inputs are on the two sides of the hand-off; `warnings` say it in words."""

    figures: dict[str, float]
    warnings: tuple[str, ...]


@settings
class TransferReport:
    """The whole hand-off; `source_hash` is the SHA-256 of the weights file."""

    source: str
    source_hash: str
    kind: Kind
    choice: Choice
    tensors: tuple[TransferredTensor, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    proof: Proof | None = None
    mismatches: tuple[Mismatch, ...] = ()
    accepted: bool = False
    guard: Guard | None = None
