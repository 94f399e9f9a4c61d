"""What is wrong with a data set, told case by case."""

from dataclasses import dataclass
from typing import Literal

from .errors import UserError, sentences

Severity = Literal["error", "warning", "corrected", "accepted"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing found in one case.

    An error stops everything that would follow, a warning is shown. What is "corrected" is mended when the
    data are prepared, what is "accepted" the user told to overlook; both are written into the store.
    """

    severity: Severity
    case: str
    where: str
    found: str
    rule: str
    remedy: str

    @classmethod
    def from_error(cls, case: str, error: UserError) -> "Problem":
        """The problem that a raised error tells of."""
        return cls(
            severity="error",
            case=case,
            where=error.where,
            found=error.found,
            rule=error.rule,
            remedy=error.remedy,
        )

    def __str__(self) -> str:
        return sentences(self.where, self.found, self.rule, self.remedy)
