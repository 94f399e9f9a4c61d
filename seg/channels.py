"""Which image channels of the pretraining answer to those here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..data.volume import is_named


@dataclass(frozen=True, kw_only=True)
class Counterparts:
    """For each channel here the places of those there, and how they were found; "mean" is of all of them."""

    places: tuple[tuple[int, ...], ...]
    by: Literal["name", "order", "mean"]


def counterparts(ours: Sequence[str], theirs: Sequence[str] | None, number: int) -> Counterparts:
    """What the channels `ours` are made of in a transfer from `number` others, whose names may be unknown.

    The one of its name where all have names and each of ours is among theirs; the one in its place where
    names are wanting and there are as many, and one for one; all of them otherwise.
    """
    names = [name.casefold() for name in theirs or ()]
    wanted = [name.casefold() for name in ours]
    named = len(names) == number and all(map(is_named, (*names, *wanted)))
    if named and len({*names}) == number and {*wanted} <= {*names}:
        return Counterparts(places=tuple((names.index(name),) for name in wanted), by="name")
    if len(wanted) == number and (number == 1 or not named):
        return Counterparts(places=tuple((c,) for c in range(number)), by="order")
    return Counterparts(places=(tuple(range(number)),) * len(wanted), by="mean")
