"""Batches that cannot be made: which case it was, and what to do."""

import traceback
from collections.abc import Sequence
from types import TracebackType

import torch

from .errors import UserError


class BatchError(UserError):
    """A batch that could not be made."""


class OperationError(UserError):
    """An operation that failed on a patch, and does not know of which case that is."""


class making:
    """A block that makes something of some cases: whatever goes wrong in it becomes a BatchError naming them.

    An OperationError keeps its parts. Any other UserError stays what it is: it tells of its file, or of a
    case already.
    """

    def __init__(self, cases: Sequence[str]) -> None:
        self.cases = cases

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if isinstance(error, OperationError):
            where = f"{named(self.cases)}, {error.where}"
            raise BatchError(where, found=error.found, rule=error.rule, remedy=error.remedy) from error
        if isinstance(error, Exception) and not isinstance(error, UserError):
            raise _failed(self.cases, error) from error


def named(cases: Sequence[str]) -> str:
    """Cases as a message begins with them."""
    return f"{'case' if len(cases) == 1 else 'cases'} {', '.join(dict.fromkeys(cases))}"


def _failed(cases: Sequence[str], error: Exception) -> BatchError:
    reason = " ".join(traceback.format_exception_only(error)[-1].split())
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in reason:
        rule = "What is read for a batch, and the batches of all workers, fit into memory"
        remedy = "Set fewer workers, a smaller batch or a smaller patch"
    else:
        rule = "Of every case that is trained on patches can be read and augmented"
        remedy = "Look at this case, or leave it out; with workers=0 a debugger sees where it happens"
    return BatchError(
        named(cases), found=f"no batch could be made of it ({reason})", rule=rule, remedy=remedy
    )
