"""Tables that users write: CSV with a header line."""

import csv
import unicodedata
from collections.abc import Collection
from pathlib import Path

from .errors import DatasetError


def read_rows(path: Path, columns: Collection[str]) -> list[dict[str, str]]:
    """The rows of a CSV table, each with (at least) `columns`, spaces at the ends taken off.

    Commas or semicolons part the columns. Raises DatasetError when it cannot be read or a column is absent.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            # Excel writes semicolons where the comma is the decimal sign
            delimiter = ";" if ";" in file.readline() else ","
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter)
            rows, found = list(reader), list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            path,
            found=f"not readable ({error})",
            rule="The table is a CSV file in UTF-8",
            remedy="Check the path and the file",
        ) from error
    if not set(columns) <= set(found):
        raise DatasetError(
            path,
            found=f"the columns {', '.join(found) or '(none)'}",
            rule=f"The table has the columns {', '.join(columns)}",
            remedy=f"Give it the header line '{','.join(columns)}'",
        )
    # as cases are named, whichever program wrote the accents
    return [{name: unicodedata.normalize("NFC", row[name] or "").strip() for name in columns} for row in rows]
