"""What became of every tensor at the hand-off, whether the data were prepared alike, and the proof."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from ..data.settings import settings
from .source import Kind

Part = Literal["encoder", "decoder", "output"]
State = Literal["loaded", "adapted", "re-initialised"]


def _listed(choice: object) -> object:
    """A single block as a list of one."""
    return (choice,) if isinstance(choice, str) and choice not in ("encoder", "decoder", "both") else choice


# parts, or blocks by name such as "decoder.0"
Choice = Annotated[Literal["encoder", "decoder", "both"] | tuple[str, ...], BeforeValidator(_listed)]
NOT_REACHED = "the checkpoint's loss did not reach it"
PARTS: tuple[Part, ...] = get_args(Part)
# characters of a table's last column, and names in a list
_WIDTH, _NAMES = 100, 6


def part_of(name: str) -> Part:
    """The part that a tensor or block belongs to."""
    return name.split(".")[0]  # type: ignore[return-value]


def block_of(name: str) -> str:
    """The block that a tensor belongs to: "encoder.0", "decoder.0" or "output"."""
    part, index, *_ = name.split(".")
    return part if part == "output" else f"{part}.{index}"


@settings
class TransferredTensor:
    """What became of one tensor of the network.

    `detail` tells how it was adapted, or why it was re-initialised; `source` is its name in the checkpoint,
    which is that of another level where levels were aligned. `fresh` are those parameters of an adapted
    tensor that begin at random, as the checkpoint has fewer features.
    """

    name: str
    part: Part
    parameters: Annotated[int, Field(ge=0)]
    state: State
    detail: str = ""
    source: str | None = None
    fresh: Annotated[int, Field(ge=0)] = 0

    @property
    def arrived(self) -> int:
        """Parameters that come from the checkpoint."""
        return 0 if self.state == "re-initialised" else self.parameters - self.fresh


@dataclass(frozen=True, kw_only=True)
class BlockSummary:
    """What became of the tensors of a block, in few words: all the same, or "mixed"."""

    name: str
    state: State | Literal["mixed"]
    parameters: int
    arrived: int
    detail: str


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

    def share(self, part: Part) -> float:
        """Share of the part's parameters that come from the checkpoint; 1 for a part the network has not."""
        of_part = [t for t in self.tensors if t.part == part]
        total = sum(t.parameters for t in of_part)
        return sum(t.arrived for t in of_part) / total if total else 1.0

    def blocks(self) -> tuple[BlockSummary, ...]:
        """The blocks in the network's order."""
        grouped = groupby(self.tensors, key=lambda tensor: block_of(tensor.name))
        return tuple(_summary(name, list(tensors)) for name, tensors in grouped)

    def lines(self) -> list[str]:
        """The report as a person reads it before the first step."""
        return [
            f"weights from {self.source}",
            *(self._part(part) for part in PARTS if any(t.part == part for t in self.tensors)),
            *_table(self.blocks()),
            *([_without_place(self.unused)] if self.unused else []),
            *(f"  {note}" for note in self.notes),
            *(
                f"  {'accepted: ' if self.accepted else ''}{m.what} {m.theirs} there, {m.ours} here"
                for m in self.mismatches
            ),
            *(f"  warning: {w}" for w in (*self.warnings, *(self.guard.warnings if self.guard else ()))),
            *(_proof(self.proof) if self.proof else []),
        ]

    def _part(self, part: Part) -> str:
        of_part = [t for t in self.tensors if t.part == part]
        states = Counter(t.state for t in of_part)
        told = ", ".join(f"{states[state]} {state}" for state in get_args(State) if states[state])
        arrived, total = sum(t.arrived for t in of_part), sum(t.parameters for t in of_part)
        return f"  {part:8} {told}; {arrived:,} of {total:,} parameters arrive ({self.share(part):.1%})"


def ranges(blocks: Iterable[str]) -> str:
    """Blocks told briefly: "encoder.0-4, decoder.0"."""
    told = []
    for part, of_part in groupby(blocks, key=lambda block: block.partition(".")[0]):
        numbers = [int(block.partition(".")[2] or 0) for block in of_part]
        # in a run of numbers, number and place differ by the same
        for _, found in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
            run = [number for _, number in found]
            last = f"-{run[-1]}" if len(run) > 1 else ""
            told.append(part if part == "output" else f"{part}.{run[0]}{last}")
    return ", ".join(told)


def _summary(name: str, tensors: Sequence[TransferredTensor]) -> BlockSummary:
    states = Counter(t.state for t in tensors)
    adapted = dict.fromkeys(d for t in tensors if t.state == "adapted" for d in t.detail.split("; "))
    lost = Counter(t.detail for t in tensors if t.state == "re-initialised")
    mixed = len(states) > 1 and bool(lost)
    reasons = (f"{n} of {len(tensors)} re-initialised: {why}" if mixed else why for why, n in lost.items())
    return BlockSummary(
        name=name,
        state="mixed" if mixed else "adapted" if adapted else tensors[0].state,
        parameters=sum(t.parameters for t in tensors),
        arrived=sum(t.arrived for t in tensors),
        detail="; ".join([*reasons, *adapted]),
    )


def _table(blocks: Sequence[BlockSummary]) -> list[str]:
    """A line for each block that is not as in the checkpoint; several that became alike share one."""
    rows = []
    for (state, share, detail), same in groupby(
        blocks, key=lambda b: (b.state, f"{b.arrived / max(1, b.parameters):.1%}", b.detail)
    ):
        if state != "loaded":
            detail = detail if len(detail) <= _WIDTH else f"{detail[: _WIDTH - 3]}..."
            rows.append((ranges(block.name for block in same), state, share, detail))
    width = max((len(row[0]) for row in rows), default=0)
    return [f"    {name:{width}}  {state:14}  {share:>6}  {detail}" for name, state, share, detail in rows]


def _without_place(names: Sequence[str]) -> str:
    groups = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
    more = ", ..." if len(groups) > _NAMES else ""
    told = f"{', '.join(groups[:_NAMES])}{more}"
    return f"  {len(names)} tensors of the checkpoint have no place here: {told}"


def _proof(proof: Proof) -> list[str]:
    """How many blocks answer as the stored ones, and why others cannot be compared."""
    found, blocks = proof.deviations, len(proof.deviations) + len(proof.left_out)
    largest = (
        f"the network gives what the checkpoint stored: {len(found)} of {blocks} blocks, largest deviation"
    )
    lines = [f"  {largest} {max(found.values()):.1g}"] if found else []
    for why in dict.fromkeys(proof.left_out.values()):
        of_reason = ranges(block for block, reason in proof.left_out.items() if reason == why)
        lines.append(f"  not compared on the probe: {of_reason} ({why})")
    return lines
