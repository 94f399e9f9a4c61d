"""The error of a file that weights cannot be taken from."""

from collections.abc import Mapping
from typing import Any, TypeVar

from ...data.errors import UserError
from ...data.settings import SettingsError, parse

T = TypeVar("T")


class SourceError(UserError):
    """A file or folder that holds no weights for a network of this program, or none that can be trusted."""


def told(kind: type[T], values: Mapping[str, Any], where: object) -> T:
    """What a file tells, as an instance of `kind`; raises SourceError with what is missing or wrong in it."""
    try:
        return parse(kind, values, where)
    except SettingsError as error:
        raise SourceError(
            where,
            found=error.found[:500],
            rule=f"Its description ({kind.__name__.strip('_')}) is whole",
            remedy="Give the checkpoint as its program wrote it",
        ) from error
