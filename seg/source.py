"""Weights to start from, wherever they come from, by the names of this program's networks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from ..data.labels import LabelTable
from ..data.plan import Preprocessing
from ..data.settings import settings
from ..data.volume import Shape
from .checkpoint import Checkpoint
from .inputs import InputStatistics
from .networks.registry import Architecture
from .probe import Probe

Kind = Literal["fewvox", "nnunet", "nnssl", "state_dict"]
# what of the preprocessing a source can leave open
Open = Literal["spacing", "orientation", "channels", "normalisation", "patch"]


@settings
class Contract:
    """How the volumes were prepared that a network was trained on.

    `unknown` names what the source does not tell; what stands there then means nothing. A source that tells
    nothing at all has no `preprocessing`.
    """

    preprocessing: Preprocessing | None
    patch: Shape | None
    unknown: tuple[Open, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """Trained weights and what is known of them.

    `tensors` have the names that a network of `architecture` has here. `trained` is as in CheckpointInfo.
    `seen` are hashes of the volumes they were trained or chosen on, as far as is known (None: nothing is);
    `seen_all` is whether these are all.
    `told` says in a line what they are; `notes` what was done to read them (prefixes taken off, tensors that
    have no place here).
    """

    path: Path
    kind: Kind
    tensors: dict[str, Tensor]
    architecture: Architecture
    contract: Contract
    labels: LabelTable | None
    trained: tuple[str, ...]
    seen: tuple[str, ...] | None
    told: str
    seen_all: bool = False
    notes: tuple[str, ...] = ()
    probe: Probe | None = None
    inputs: InputStatistics | None = None


def source_of(checkpoint: Checkpoint) -> Source:
    """A checkpoint of this program as a source."""
    info = checkpoint.info
    return Source(
        path=checkpoint.path,
        kind="fewvox",
        tensors=checkpoint.tensors,
        architecture=info.architecture,
        contract=Contract(preprocessing=info.plan.preprocessing, patch=info.plan.training.patch),
        labels=info.plan.labels,
        trained=info.trained,
        seen=tuple(sorted({*info.trained_on, *info.validated_on, *info.inherited})),
        seen_all=info.inherited_all,
        told=f"{info.method}, {info.steps} steps",
        notes=checkpoint.notes,
        probe=info.probe,
        inputs=info.inputs,
    )
