"""The error of a file that weights cannot be taken from."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from ...data.errors import UserError
from ...data.settings import SettingsError, parse

T = TypeVar("T")
# values, and letters of texts; plans of nnU-Net have some ten thousand
_LONGEST = 10_000_000


class SourceError(UserError):
    """A file or folder that holds no weights for a network of this program, or none that can be trusted."""


def told(kind: type[T], values: Mapping[str, Any], where: object) -> T:
    """What a file tells, as an instance of `kind`; raises SourceError with what is missing or wrong in it."""
    if _is_longer(values, _LONGEST):
        raise SourceError(
            where,
            found=f"a description of more than {_LONGEST:,} values and letters",
            rule="A description is as long as plans and labels are",
            remedy="Give the checkpoint as its program wrote it",
        )
    try:
        return parse(kind, values, where)
    except SettingsError as error:
        raise SourceError(
            where,
            found=error.found[:500],
            rule=f"Its description ({kind.__name__.strip('_')}) is whole",
            remedy="Give the checkpoint as its program wrote it",
        ) from error


def _is_longer(value: Any, most: int) -> bool:
    """Whether writing a value out takes more than so many values and letters.

    A list that stands in a file once can be in its lists any number of times, or in itself.
    """
    waiting: list[Iterator[Any]] = [iter([value])]
    length = 0
    while waiting:
        inner = next(waiting[-1], waiting)
        if inner is waiting:
            waiting.pop()
            continue
        length += 1 + (len(inner) if isinstance(inner, str | bytes) else 0)
        if length > most:
            return True
        if isinstance(inner, Mapping):
            waiting.append(itertools.chain(inner.keys(), inner.values()))
        elif isinstance(inner, list | tuple):
            waiting.append(iter(inner))
    return False
