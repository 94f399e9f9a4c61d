"""One tensor of weights made to fit another network, so that what it computes changes as little as can be.

Differences are taken in turn, and compose: the channels of the image, the extents of the kernel, the number
of features.
"""

# Shapes: O, I = features out and in; C = image channels.

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor, nn

from .channels import counterparts


class Misfit(Exception):
    """Why weights cannot be taken, in words."""


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How each image channel here is made of those there, `weights` (C here, C there), and that in words."""

    weights: Tensor
    told: str = ""

    @property
    def changes(self) -> bool:
        """Whether the channels are others than those there."""
        return not torch.equal(self.weights, torch.eye(len(self.weights)))


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A tensor that fits. `details` say what was done, nothing where it was taken as it is.

    `fresh` is how many of its values keep the start they had; `features` tells whether there are fewer or
    more of them here than there (or fewer in and more out).
    """

    tensor: Tensor
    details: tuple[str, ...] = ()
    fresh: int = 0
    features: frozenset[Literal["fewer", "more"]] = frozenset()


def mixing(ours: Sequence[str], theirs: Sequence[str] | None, number: int) -> Mixing:
    """How the image channels `ours` are made of `number` others, whose names may be unknown.

    Each is its counterpart, or where there is none the mean of all of theirs, times C there / C here, so that
    channels that show the same give what they gave.
    """
    found = counterparts(ours, theirs, number)
    if found.by == "mean":
        told = f"image channels: each the mean of the {number} there, times {Fraction(number, len(ours))}"
        return Mixing(weights=torch.full((len(ours), number), 1 / len(ours)), told=told)
    weights = torch.eye(number)[[place for (place,) in found.places]]
    if number == len(ours) == 1:
        return Mixing(weights=weights)
    how = f"by name: {', '.join(ours)}" if found.by == "name" else "in their order: not all have names"
    return Mixing(weights=weights, told=f"image channels {how}")


def adapt(
    theirs: Tensor, fresh: Tensor, module: nn.Module, mix: Mixing | None = None, *, joined: bool = False
) -> Adapted:
    """Weights `theirs` in the shape of `fresh`, those that `module` began with; raises Misfit.

    Args:
        theirs: (O, I, z, y, x) of a convolution, (I, O, z, y, x) of a transposed one, (O,) of a bias or norm.
        mix: of a convolution that reads the image, how its channels answer to theirs.
        joined: whether the input is what comes from below and the skip behind each other, and each half is
            for itself.
    """
    theirs, details = theirs.to(fresh), []
    if theirs.dim() != fresh.dim() or fresh.dim() not in (1, 5):
        if theirs.shape != fresh.shape:
            raise Misfit(f"shape {tuple(theirs.shape)} in the checkpoint, {tuple(fresh.shape)} here")
        return Adapted(tensor=theirs)
    if fresh.dim() == 5:
        if mix is not None and mix.changes:
            theirs = torch.einsum("ct,ot...->oc...", mix.weights.to(theirs), theirs)
            details.append(mix.told)
        rules = _STRIDES if isinstance(module, nn.ConvTranspose3d) else _KERNELS
        theirs, told = _extents(theirs, tuple(fresh.shape[2:]), rules)
        details += told
    return _features(theirs, fresh, details, joined=joined)


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """What is done to an axis of a kernel."""

    told: str
    make: Callable[[Tensor, int], Tensor]


# by the extent there and here
_Rules = dict[tuple[int, int], _Rule]
_KERNELS: _Rules = {
    (3, 1): _Rule(
        told="kernel 3 -> 1 along {}: summed, the same where the image does not change along it",
        make=lambda kernel, dim: kernel.sum(dim, keepdim=True),
    ),
    (1, 3): _Rule(
        told="kernel 1 -> 3 along {}: in the middle, which is the same",
        make=lambda kernel, dim: torch.cat(
            [torch.zeros_like(kernel), kernel, torch.zeros_like(kernel)], dim=dim
        ),
    ),
}
# transposed convolutions, whose kernel is their stride
_STRIDES: _Rules = {
    (2, 1): _Rule(
        told="stride 2 -> 1 along {}: averaged", make=lambda kernel, dim: kernel.mean(dim, keepdim=True)
    ),
    (1, 2): _Rule(
        told="stride 1 -> 2 along {}: repeated",
        make=lambda kernel, dim: kernel.repeat_interleave(2, dim=dim),
    ),
}


def _extents(theirs: Tensor, extents: tuple[int, ...], rules: _Rules) -> tuple[Tensor, list[str]]:
    """A kernel with other extents (z, y, x), and what was done to which axes."""
    axes: dict[str, list[str]] = {}
    for dim, extent in enumerate(extents, start=2):
        if theirs.shape[dim] == extent:
            continue
        rule = rules.get((theirs.shape[dim], extent))
        if rule is None:
            raise Misfit(f"a kernel of {tuple(theirs.shape[2:])} in the checkpoint, of {extents} here")
        theirs = rule.make(theirs, dim)
        axes.setdefault(rule.told, []).append("zyx"[dim - 2])
    return theirs, [told.format(", ".join(names)) for told, names in axes.items()]


def _features(theirs: Tensor, fresh: Tensor, details: list[str], *, joined: bool) -> Adapted:
    """The first of theirs where there are fewer here; where there are more, the rest stays as it began."""
    if theirs.shape == fresh.shape:
        return Adapted(tensor=theirs, details=tuple(details))
    sizes = list(zip(theirs.shape[:2], fresh.shape[:2], strict=True))
    halves = [1, 2 if joined else 1][: len(sizes)]
    pairs = [_pairs(there, here, n) for (there, here), n in zip(sizes, halves, strict=True)]
    tensor = fresh.clone()
    tensor[_grid([here for _, here in pairs])] = theirs[_grid([there for there, _ in pairs])]
    taken = tensor[_grid([here for _, here in pairs])].numel()
    changed = {
        (there // n, here // n) for (there, here), n in zip(sizes, halves, strict=True) if there != here
    }
    return Adapted(
        tensor=tensor,
        details=(*details, *(_told(there, here) for there, here in sorted(changed))),
        fresh=tensor.numel() - taken,
        features=frozenset("fewer" if here < there else "more" for there, here in changed),
    )


def _pairs(there: int, here: int, halves: int) -> tuple[Tensor, Tensor]:
    """Which features there go to which here."""
    first = torch.arange(min(there, here) // halves)
    begin = torch.arange(halves)[:, None]
    return (begin * (there // halves) + first).flatten(), (begin * (here // halves) + first).flatten()


def _grid(indices: list[Tensor]) -> tuple[Tensor, ...]:
    return (indices[0][:, None], indices[1]) if len(indices) == 2 else (indices[0],)


def _told(there: int, here: int) -> str:
    if here < there:
        return f"the first {here} of {there} features"
    return f"{there} of {here} features, the rest fresh"
