"""Where in a file a network lies: the prefixes that wrappers and methods put before its names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .errors import SourceError
from .known import KNOWN, Known
from .sound import check_values

# what torch.compile and parallel training put into names, also between them
_WRAPPERS = ("_orig_mod", "module")
# nnU-Net lists a convolution and its normalisation twice, and the encoder again in the decoder
_AGAIN = (
    (re.compile(r"\.all_modules\.0\."), ".conv."),
    (re.compile(r"\.all_modules\.[12]\."), ".norm."),
    (re.compile(r"(^|\.)decoder\.encoder\."), r"\1encoder."),
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A network in a file: which one, what stands before its names, and if it is the encoder alone."""

    known: Known
    prefix: str
    encoder_alone: bool

    @property
    def encoder(self) -> str:
        """What stands before the names of the encoder."""
        return self.prefix if self.encoder_alone else f"{self.prefix}encoder."

    def inside(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the network by its own names."""
        lead = "encoder." if self.encoder_alone else ""
        return {
            lead + name.removeprefix(self.prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(self.prefix)
        }

    def notes(self, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
        """What was done to the names, and which tensors lie elsewhere."""
        outside = [name for name in tensors if not name.startswith(self.prefix)]
        told = (f"taken off the names: '{self.prefix}'",) if self.prefix else ()
        return told + ((f"not of the network: {listed(outside)}",) if outside else ())


def plain_names(tensors: Mapping[str, Tensor], where: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors, each under one name and without "module." and "_orig_mod.", and a note of these.

    Raises SourceError where two tensors that differ, or cannot be compared, would have one name.
    """
    found: dict[str, Tensor] = {}
    taken_off = set[str]()
    for name, tensor in tensors.items():
        parts = name.split(".")
        taken_off |= {part for part in parts if part in _WRAPPERS}
        plain = ".".join(part for part in parts if part not in _WRAPPERS)
        for again, once in _AGAIN:
            plain = again.sub(once, plain)
        other = found.setdefault(plain, tensor)
        if other is tensor:
            continue
        check_values(plain, other, where)
        check_values(name, tensor, where)
        if not _same(other, tensor):
            raise SourceError(
                where,
                found=f"{name}: other values than another tensor that is {plain}",
                rule="A tensor that is listed twice has the same values",
                remedy="Tell which is meant with --mapping",
            )
    note = " and ".join(f"'{part}.'" for part in sorted(taken_off))
    return found, (f"taken off the names: {note}",) if taken_off else ()


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def place_of(tensors: Mapping[str, Tensor], where: Path, encoder: str = "") -> Place:
    """The one network in a file, found by its first convolution.

    `encoder` is what the names of its encoder begin with, as the file says, prefixes of wrappers aside.

    Raises SourceError where there is none, naming what was found, or several.
    """
    places = [p for p in _places(tensors) if f".{p.encoder}".endswith(f".{encoder}") or not encoder]
    if len(places) == 1:
        return places[0]
    if places:
        raise SourceError(
            where,
            found=f"{len(places)} networks, under {' and '.join(repr(p.encoder) for p in places)}",
            rule="Weights are taken from one network",
            remedy=f"Tell which one with --mapping, a file with the line {places[0].encoder!r}: 'encoder.'",
        )
    raise SourceError(
        where,
        found=f"{len(tensors)} tensors, and none is the first convolution of a 3D network that is known here "
        f"({listed([*tensors])})",
        rule="Tensors are named as here or as in nnU-Net: "
        + " or ".join(f"...encoder.{known.first}" for known in KNOWN),
        remedy="Give a file with --mapping that tells how its names become ours",
    )


def _places(tensors: Mapping[str, Tensor]) -> list[Place]:
    found = []
    for name, tensor in tensors.items():
        for known in KNOWN:
            if tensor.ndim == 5 and f".{name}".endswith(f".{known.first}"):
                before = name.removesuffix(known.first)
                whole = f".{before}".endswith(".encoder.")
                prefix = before.removesuffix("encoder.") if whole else before
                found.append(Place(known=known, prefix=prefix, encoder_alone=not whole))
    return found


def listed(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(name[:80] for name in names[:5]) + more
