"""The rules by which each tensor of a network gets its values from trained weights, or keeps its start.

A tensor answers to that of the same name in the level that sees structures of the same size (alignment.py).
Where their shapes differ it is adapted (adapt.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..data.plan import Plan
from .adapt import Adapted, Misfit, Mixing, adapt, mixing
from .alignment import Alignment, align
from .networks.registry import Architecture, build
from .source import Source
from .transfer_report import NOT_REACHED, TransferredTensor, block_of, part_of

NOT_CHOSEN = "not chosen"


class NoCounterpart(Misfit):
    """Why the rules give a tensor nothing to take; such tensors are not expected to arrive."""


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What becomes of a tensor, the values it gets, and whether it was expected to arrive."""

    told: TransferredTensor
    made: Adapted
    expected: bool


@dataclass(frozen=True, kw_only=True)
class Rules:
    """All that decides over a tensor.

    `shapes` are those that the source's own architecture has; a tensor of another is not what its name says.
    `image` and `their_image` name the convolution that reads the image.
    """

    network: nn.Module
    architecture: Architecture
    source: Source
    chosen: frozenset[str]
    same_classes: bool
    alignment: Alignment
    mix: Mixing
    shapes: Mapping[str, torch.Size]
    image: str
    their_image: str

    def fate(self, name: str, fresh: Tensor) -> Fate:
        """What becomes of a tensor that began as `fresh`."""
        told = TransferredTensor(
            name=name, part=part_of(name), parameters=fresh.numel(), state="re-initialised"
        )
        try:
            answering = self._counterpart(name)
            made = self._adapted(name, answering, fresh)
        except Misfit as why:
            told = replace(told, detail=str(why))
            return Fate(told=told, made=Adapted(tensor=fresh), expected=not isinstance(why, NoCounterpart))
        state = "adapted" if made.details else "loaded"
        told = replace(told, state=state, detail="; ".join(made.details), source=answering, fresh=made.fresh)
        return Fate(told=told, made=made, expected=True)

    def place(self, name: str) -> str | None:
        """The name that a tensor has in the level there that its own answers to; None where there is none."""
        block = block_of(name)
        there = self.alignment.counterpart(block)
        return None if there is None else there + name.removeprefix(block)

    def _counterpart(self, name: str) -> str:
        """The name there, where the rules let it be taken."""
        block = block_of(name)
        if not {block, part_of(name)} & self.chosen:
            raise NoCounterpart(NOT_CHOSEN)
        there = self.place(name)
        if there is None:
            raise NoCounterpart(self.alignment.missing(block))
        if not {block_of(there), part_of(there)} & {*self.source.trained}:
            raise NoCounterpart(NOT_REACHED)
        if block == "output" and not self.same_classes:
            raise NoCounterpart("its classes are others")
        image, their_image = _module(name) == self.image, _module(there) == self.their_image
        # at the same level another kind of network may begin otherwise: then the name tells
        if image != their_image and self.alignment.shift:
            reads = ("the image", "features") if image else ("features", "the image")
            raise NoCounterpart(f"it reads {reads[0]} here, {reads[1]} in the checkpoint")
        return there

    def _adapted(self, name: str, there: str, fresh: Tensor) -> Adapted:
        found = self.source.tensors.get(there)
        if found is None:
            raise Misfit("not in the checkpoint")
        if found.shape != self.shapes.get(there, found.shape):
            raise Misfit(f"shape {tuple(found.shape)}, of its own network {tuple(self.shapes[there])}")
        if block_of(name) == "output" and found.shape != fresh.shape:
            raise Misfit(f"shape {tuple(found.shape)} in the checkpoint, {tuple(fresh.shape)} here")
        module = self.network.get_submodule(_module(name))
        joined = fresh.dim() == found.dim() == 5 and self._joined(name, module, found)
        return adapt(found, fresh, module, self.mix if _module(name) == self.image else None, joined=joined)

    def _joined(self, name: str, module: nn.Module, found: Tensor) -> bool:
        """Whether a convolution reads what comes from below and the skip behind each other."""
        if part_of(name) != "decoder" or not isinstance(module, nn.Conv3d):
            return False
        level = self.alignment.level(block_of(name))
        here = self.architecture.topology.features[level]
        there = self.source.architecture.topology.features[level + self.alignment.shift]
        joined = module.in_channels == 2 * here
        if joined != (found.shape[1] == 2 * there):
            raise Misfit(f"{found.shape[1]} features into it in the checkpoint, {module.in_channels} here")
        return joined


def rules_for(
    network: nn.Module, architecture: Architecture, source: Source, plan: Plan, chosen: frozenset[str]
) -> Rules:
    """What decides over the tensors of a network that takes the `chosen` parts and blocks from a source."""
    contract, theirs = source.contract, source.architecture
    # with a seed: torch's own generator stays as it is
    shapes = _shapes(network if theirs == architecture else build(theirs, seed=0))
    known = contract.preprocessing is not None and "channels" not in contract.unknown
    return Rules(
        network=network,
        architecture=architecture,
        source=source,
        chosen=chosen,
        same_classes=bool(source.labels and plan.labels and source.labels.same_classes(plan.labels)),
        alignment=align(architecture.topology, plan.preprocessing, theirs.topology, contract),
        mix=mixing(
            plan.preprocessing.channels,
            contract.preprocessing.channels if contract.preprocessing and known else None,
            theirs.in_channels,
        ),
        shapes=shapes,
        image=_reading_the_image(_shapes(network)),
        their_image=_reading_the_image(shapes),
    )


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _reading_the_image(shapes: Mapping[str, torch.Size]) -> str:
    """The first convolution of the finest level."""
    weights = (name for name, shape in shapes.items() if block_of(name) == "encoder.0" and len(shape) == 5)
    return _module(next(weights))


def _module(name: str) -> str:
    return name.rpartition(".")[0]
