"""Plain state dicts: the one network in them, its architecture read off its tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...data.settings import checked
from ..networks.registry import Architecture
from ..networks.topology import Topology, Triple
from ..source import Contract, Source
from .arrival import arrived
from .errors import SourceError
from .known import Known
from .limits import levels
from .mapping import NameMapping
from .prefixes import listed, place_of, plain_names

# characters of a name
_LONGEST = 1000
ALL_UNKNOWN = Contract(
    preprocessing=None,
    patch=None,
    unknown=("spacing", "orientation", "channels", "normalisation", "patch"),
)


def of_state_dict(path: Path, content: Mapping[Any, Any], mapping: NameMapping | None = None) -> Source:
    """The network in a mapping of tensors, which may lie in mappings of mappings.

    Raises SourceError where there is none, or more than one.
    """
    tensors = tensors_in(content)
    if not tensors:
        raise SourceError(
            path,
            found=f"no tensors, but the keys {listed([str(key) for key in content]) or '(none)'}",
            rule="Weights are a mapping of names to tensors (a state dict), or one in another",
            remedy="Save `network.state_dict()`",
        )
    notes: tuple[str, ...] = ()
    if mapping is not None:
        tensors, notes = mapping.renamed(tensors)
    if any(".all_modules.2." in name for name in tensors):
        raise SourceError(
            path,
            found="names of nnU-Net with a layer between convolution and normalisation (all_modules.2)",
            rule="The rectifier comes last",
            remedy="Give nnU-Net's own checkpoint, which tells its architecture",
        )
    tensors, wrappers = plain_names(tensors, path)
    place = place_of(tensors, path)
    inside = place.inside(tensors)
    architecture = architecture_of(place.known, inside, path, mapping.strides if mapping else None)
    found = arrived(place.known, architecture, inside, path)
    return Source(
        path=path,
        kind="state_dict",
        tensors=found.tensors,
        architecture=architecture,
        contract=ALL_UNKNOWN,
        labels=None,
        trained=found.parts,
        seen=None,
        told=f"a plain state dict ({', '.join(found.parts)})",
        notes=(
            *notes,
            *wrappers,
            *place.notes(tensors),
            *found.notes,
            "it does not tell its rectifier and normalisation: taken as leaky ReLU (0.01) and per instance",
        ),
    )


def tensors_in(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Every tensor in a mapping of mappings, its keys joined by dots; each mapping is entered once."""
    found: dict[str, Tensor] = {}
    entered = set[int]()
    waiting: list[tuple[str, Mapping[Any, Any]]] = [("", content)]
    while waiting:
        prefix, values = waiting.pop()
        if id(values) in entered:
            continue
        entered.add(id(values))
        for key, value in values.items():
            name = f"{prefix}{key}"
            if isinstance(value, Tensor):
                found[name] = value
            elif isinstance(value, Mapping) and len(name) < _LONGEST:
                waiting.append((f"{name}.", value))
    return found


def network_weights(content: Mapping[Any, Any], where: Path) -> dict[str, Tensor]:
    """The tensors that nnU-Net and nnssl save; raises SourceError where there is something else."""
    weights = content["network_weights"]
    if not isinstance(weights, Mapping):
        raise SourceError(
            where,
            found=f"network_weights that are {type(weights).__name__}",
            rule="Weights are a mapping of names to tensors (a state dict)",
            remedy="Give the checkpoint as its program wrote it",
        )
    return tensors_in(weights)


def architecture_of(
    known: Known, tensors: Mapping[str, Tensor], where: Path, strides: tuple[Triple, ...] | None = None
) -> Architecture:
    """The architecture that tensors by the names of `known` are of; classes 1 without an output.

    Strides are those of the decoder, or else as given.

    Raises SourceError where they cannot be told.
    """
    firsts = _following(tensors, known.level)
    ups = [tensors.get(known.up.format(level)) for level in range(len(firsts) - 1)]
    blocks = (
        [len(_following(tensors, known.block, level)) for level in range(len(firsts))] if known.block else ()
    )
    topology = levels(
        features=[weight.shape[0] for weight in firsts],
        kernels=[_extent(weight, where) for weight in firsts],
        strides=[_extent(up, where) for up in ups[::-1]] if strides is None else strides,
        blocks=blocks,
        where=where,
    )
    first = tensors[f"encoder.{known.first}"]
    return checked(
        Architecture(
            name=known.network,
            in_channels=first.shape[1],
            classes=_classes(known, topology, tensors),
            topology=topology,
        ),
        where,
    )


def _following(tensors: Mapping[str, Tensor], name: str, *before: int) -> list[Tensor]:
    """The tensors of a name with 0, 1, ... behind the numbers `before`, as far as they go."""
    found: list[Tensor] = []
    while (weight := tensors.get(name.format(*before, len(found)))) is not None and weight.ndim == 5:
        found.append(weight)
    return found


def _extent(weight: Tensor | None, where: Path) -> Triple:
    if weight is None or weight.ndim != 5:
        raise SourceError(
            where,
            found="an encoder without the transposed convolutions of its decoder",
            rule="Their kernels tell the strides, which an encoder alone does not show",
            remedy="Name them in the file given with --mapping, such as strides: [[1, 2, 2], [2, 2, 2]]",
        )
    z, y, x = weight.shape[2:]
    return z, y, x


def _classes(known: Known, topology: Topology, tensors: Mapping[str, Tensor]) -> int:
    name, *_ = known.names(topology).get("output.weight", ("output.weight",))
    return tensors[name].shape[0] if name in tensors else 1
