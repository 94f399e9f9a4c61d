"""The tensors of a network by our names, every one of them accounted for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..networks.registry import Architecture, build
from .errors import SourceError
from .known import Known
from .prefixes import listed
from .sound import sound

_PARTS = ("encoder", "decoder", "output")
# outputs of coarser levels, for deep supervision, which there is none of here
_DEEP_SUPERVISION = "decoder.seg_layers."


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """Tensors by our names, the parts of the network that are there whole, and what was done."""

    tensors: dict[str, Tensor]
    parts: tuple[str, ...]
    notes: tuple[str, ...]


def arrived(known: Known, architecture: Architecture, tensors: Mapping[str, Tensor], where: Path) -> Arrived:
    """The tensors of a file's network as those of `architecture`; decoder and output may not be there.

    Raises SourceError where a tensor is missing, has another shape, no place here, or useless values.
    """
    expected = shapes(architecture)
    theirs = {name: name for name in expected}
    theirs |= {name: others[0] for name, others in known.names(architecture.topology).items()}
    there = {name: tensors[theirs[name]] for name in expected if theirs[name] in tensors}
    parts = tuple(part for part in _PARTS if any(name.startswith(f"{part}.") for name in there))
    wanted = {name: shape for name, shape in expected.items() if name.split(".")[0] in (*parts, "encoder")}
    without_bias = [name for name in wanted.keys() - there.keys() if _is_convolution_bias(name, expected)]
    mistakes = [
        *_missing([theirs[name] for name in wanted if name not in there and name not in without_bias]),
        *(
            f"{theirs[name]} has the shape {tuple(tensor.shape)}, not {tuple(expected[name])}"
            for name, tensor in there.items()
            if tensor.shape != expected[name]
        ),
        *_without_place([n for n in tensors if n.split(".")[0] in _PARTS], {*theirs.values()}),
    ]
    if mistakes:
        raise SourceError(
            where,
            found="; ".join(mistakes[:5]) + (f"; {len(mistakes) - 5} more" if len(mistakes) > 5 else ""),
            rule=f"It is the {architecture.name} of {architecture.topology}, tensor by tensor",
            remedy="Give the checkpoint of such a network, whole and unedited",
        )
    weights, notes = sound(there, where)
    if without_bias:
        notes += (f"{len(without_bias)} convolutions have no bias: it is 0 here, which is the same",)
    # in the order of the network
    filled = {name: weights.get(name, torch.zeros(shape)) for name, shape in wanted.items()}
    return Arrived(tensors=filled, parts=parts, notes=notes)


def shapes(architecture: Architecture) -> dict[str, torch.Size]:
    """The shape of every tensor of a network, which is not built for it."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in build(architecture).state_dict().items()}


def _is_convolution_bias(name: str, expected: Mapping[str, torch.Size]) -> bool:
    weight = name.removesuffix("bias") + "weight"
    return name.endswith(".bias") and len(expected[weight]) == 5


def _missing(names: list[str]) -> list[str]:
    return [f"without {listed(names)}"] if names else []


def _without_place(names: list[str], places: set[str]) -> list[str]:
    left = [name for name in names if name not in places and not name.startswith(_DEEP_SUPERVISION)]
    return [f"tensors that such a network does not have: {listed(left)}"] if left else []
