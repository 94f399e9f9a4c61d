"""Whose volume a case is: by a table, or by a pattern that finds the subject in the name."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .cases import Case
from .csv_table import read_rows
from .errors import DatasetError
from .formats.files import strip_suffix


def is_table(subjects: str | Path) -> bool:
    """Whether `subjects` names a table (a file, or a name ending in .csv); a pattern otherwise."""
    return str(subjects).lower().endswith(".csv") or Path(subjects).is_file()


def with_subjects(cases: Sequence[Case], subjects: str | Path) -> tuple[Case, ...]:
    """The cases, each with its subject.

    Args:
        cases: the cases.
        subjects: a CSV table with the columns `case` and `subject`, or a regular expression with one group:
            what the group matches in the id of a case is its subject.

    Raises:
        DatasetError: the table or pattern cannot be used, or does not tell the subject of every case.
    """
    whose = _from_table(Path(subjects)) if is_table(subjects) else _from_pattern(str(subjects), cases)
    missing = [case.id for case in cases if not whose.get(case.id)]
    if missing:
        raise DatasetError(
            subjects,
            found=f"{len(missing)} cases have no subject: {', '.join(missing[:5])}",
            rule="Where subjects are given every case has one, or its split would leak",
            remedy="Add a line for each to the table, named as the volume is, or widen the pattern",
        )
    return tuple(replace(case, subject=whose[case.id]) for case in cases)


def _from_table(table: Path) -> dict[str, str]:
    subject: dict[str, str] = {}
    for row in read_rows(table, ("case", "subject")):
        case, whose = strip_suffix(row["case"]), row["subject"]
        if subject.setdefault(case, whose) != whose:
            raise DatasetError(
                table,
                found=f"'{case}' belongs to '{subject[case]}' and to '{whose}'",
                rule="A case is of one subject, or its split would leak",
                remedy="Correct one of the lines",
            )
    return subject


def _from_pattern(pattern: str, cases: Sequence[Case]) -> dict[str, str]:
    rule = "Subjects are a CSV table, or a regular expression with one group, such as 'mouse(\\d+)_'"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DatasetError(
            pattern,
            found=f"neither a table nor a regular expression ({error})",
            rule=rule,
            remedy="Correct it, and quote it for the shell",
        ) from error
    if compiled.groups != 1:
        raise DatasetError(
            pattern,
            found=f"no such table, and as a pattern it has {compiled.groups} groups",
            rule=rule,
            remedy="Put the part that names the subject into parentheses, (?:...) around others",
        )
    matches = {case.id: compiled.search(case.id) for case in cases}
    return {case: match[1] or "" for case, match in matches.items() if match is not None}
