"""From a checkpoint into a network: every tensor accounted for, nothing left out in silence."""

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from ..data.errors import UserError
from ..data.hashing import file_hash
from ..data.plan import SPACING_TOLERANCE, Plan
from ..data.settings import settings
from ..data.units import factor
from .checkpoint import Checkpoint

Part = Literal["encoder", "decoder", "output"]
Choice = Literal["encoder", "decoder", "both"]
# less than this share of the wanted parameters loaded is a mistake, not a choice
EXPECTED_SHARE = 0.99
_NOT_REACHED = "the checkpoint's loss did not reach it"


class TransferError(UserError):
    """A checkpoint that does not fit the network or its data."""


@settings
class TransferredTensor:
    """What became of one tensor of the network."""

    name: str
    part: Part
    parameters: Annotated[int, Field(ge=0)]
    loaded: bool
    reason: str = ""


@settings
class TransferReport:
    """What became of every tensor of the network; `source_hash` is the SHA-256 of the weights file."""

    source: str
    source_hash: str
    choice: Choice
    tensors: tuple[TransferredTensor, ...]
    unused: tuple[str, ...]

    def share(self, part: Part, *, of_reached: bool = False) -> float:
        """Share of the part's parameters that were loaded; 1 for a part the network does not have.

        With `of_reached`, blocks that the checkpoint's loss did not reach do not count, if it reached others.
        """
        of_part = [t for t in self.tensors if t.part == part]
        if of_reached:
            of_part = [t for t in of_part if t.reason != _NOT_REACHED] or of_part
        total = sum(t.parameters for t in of_part)
        return sum(t.parameters for t in of_part if t.loaded) / total if total else 1.0

    def lines(self) -> list[str]:
        """The report as a person reads it, a line for each part and each reason."""
        lines = [f"weights from {self.source}"]
        for part in ("encoder", "decoder", "output"):
            of_part = [t for t in self.tensors if t.part == part]
            loaded = [t for t in of_part if t.loaded]
            lines.append(
                f"  {part:8} {len(loaded)}/{len(of_part)} tensors, {sum(t.parameters for t in loaded):,} of "
                f"{sum(t.parameters for t in of_part):,} parameters loaded ({self.share(part):.1%})"
            )
            reasons = Counter(t.reason for t in of_part if not t.loaded)
            lines += [f"           {count} re-initialised: {reason}" for reason, count in reasons.items()]
        if self.unused:
            lines.append(
                f"  {len(self.unused)} tensors of the checkpoint have no place: {', '.join(self.unused[:5])}"
            )
        return lines


def transfer(
    network: nn.Module, checkpoint: Checkpoint, plan: Plan, choice: Choice = "both"
) -> TransferReport:
    """Loads what fits of a checkpoint into `network` and tells what became of every tensor.

    "encoder", "decoder" or "both" choose what is loaded. The output is loaded with "both" where the
    checkpoint was trained on the same kind and values of labels; otherwise its classes mean something else.

    Raises TransferError when the preprocessing differs, or when less than 99 % of the chosen parts fit.
    """
    check_preprocessing(checkpoint, plan)
    wanted = ("encoder", "decoder") if choice == "both" else (choice,)
    same_classes = choice == "both" and _same_classes(checkpoint.info.plan, plan)
    state = network.state_dict()
    tensors = []
    for name, own in state.items():
        part: Part = name.split(".")[0]  # type: ignore[assignment]
        reason = ""
        if not _within(name, checkpoint.info.trained):
            reason = _NOT_REACHED
        elif part not in wanted and not (part == "output" and same_classes):
            reason = "its classes are others" if part == "output" and choice == "both" else "not chosen"
        elif name not in checkpoint.tensors:
            reason = "not in the checkpoint"
        elif (found := checkpoint.tensors[name]).shape != own.shape:
            reason = f"shape {tuple(found.shape)} in the checkpoint, {tuple(own.shape)} here"
        else:
            state[name] = found.to(own)
        tensors.append(
            TransferredTensor(name=name, part=part, parameters=own.numel(), loaded=not reason, reason=reason)
        )
    report = TransferReport(
        source=f"{checkpoint.info.method}, {checkpoint.info.steps} steps",
        source_hash=file_hash(checkpoint.path),
        choice=choice,
        tensors=tuple(tensors),
        unused=tuple(sorted(checkpoint.tensors.keys() - state.keys())),
    )
    for part in wanted:
        if report.share(part, of_reached=True) < EXPECTED_SHARE:  # type: ignore[arg-type]
            raise TransferError(
                checkpoint.path,
                found="\n".join(["too little of it fits this network", *report.lines()]) + "\n",
                rule=f"At least {EXPECTED_SHARE:.0%} of every chosen part is loaded",
                remedy="Fine-tune with the plan of the checkpoint (strides, channels, and --set width="
                f"{checkpoint.info.plan.training.width}), or load one part alone (--set load=encoder)",
            )
    network.load_state_dict(state, strict=True)
    return report


def _same_classes(theirs: Plan, ours: Plan) -> bool:
    return theirs.labels is not None and ours.labels is not None and theirs.labels.same_classes(ours.labels)


def _within(name: str, blocks: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{block}.") for block in blocks)


def check_preprocessing(checkpoint: Checkpoint, plan: Plan) -> None:
    """Raises TransferError unless the checkpoint saw volumes prepared as those of `plan` are."""
    theirs, ours = checkpoint.info.plan.preprocessing, plan.preprocessing
    differing = []
    if not _same_spacing(theirs.spacing, theirs.unit, ours.spacing, ours.unit):
        differing.append(f"spacing {theirs.spacing} {theirs.unit}, here {ours.spacing} {ours.unit}")
    if theirs.orientation != ours.orientation:
        differing.append(f"orientation {theirs.orientation}, here {ours.orientation}")
    if theirs.normalisation != ours.normalisation:
        differing.append(f"normalisation {theirs.normalisation}, here {ours.normalisation}")
    if len(theirs.channels) != len(ours.channels):
        differing.append(f"channels {theirs.channels}, here {ours.channels}")
    if differing:
        raise TransferError(
            checkpoint.path,
            found="it was trained with " + "; ".join(differing),
            rule="Volumes are prepared alike before and after the hand-off, or a gain turns into a loss",
            remedy="Prepare the store with the checkpoint's plan (`fewvox prepare --plan RUN/plan.yaml`)",
        )


def _same_spacing(
    a: tuple[float, ...] | None, unit_a: str | None, b: tuple[float, ...] | None, unit_b: str | None
) -> bool:
    if a is None or b is None:
        return a == b
    if (unit_a is None) != (unit_b is None):
        return False
    f = factor(unit_a, unit_b) if unit_a and unit_b else 1.0
    return all(abs(x * f - y) <= SPACING_TOLERANCE * y for x, y in zip(a, b, strict=True))
