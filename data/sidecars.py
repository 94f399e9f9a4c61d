"""Voxel spacings told beside a volume: in a JSON file of its name, or in one table for all."""

import json
import math
from pathlib import Path
from typing import Any

from .csv_table import read_rows
from .errors import DatasetError
from .formats.files import strip_suffix
from .units import canonical, known
from .volume import Triple

Spacing = tuple[Triple, str | None]

_EXAMPLE = '{"spacing": {"z": 2, "y": 0.5, "x": 0.5}, "unit": "um"}'
_ORDERS = ("zyx", "xyz")


def sidecar_of(*stems: Path) -> Path | None:
    """The first of `<stem>.json` that tells a spacing; other JSON files (dcm2niix writes some) are none."""
    files = (stem.with_name(f"{stem.name}.json") for stem in stems)
    return next((file for file in files if file.is_file() and b'"spacing"' in file.read_bytes()), None)


def read_sidecar(path: Path) -> Spacing:
    """The spacing (z, y, x) that a JSON file tells, and its unit; raises DatasetError naming the file.

    It is {"spacing": {"z": 2, "y": 0.5, "x": 0.5}, "unit": "um"}, or a list with "axes": "zyx" or "xyz".
    A bare list is read as nnU-Net does, z, y, x without unit, in an nnU-Net data set and nowhere else.
    """
    told = _read_mapping(path)
    spacing, axes = told.get("spacing"), told.get("axes")
    if isinstance(spacing, dict):
        if sorted(spacing) != ["x", "y", "z"]:
            raise _not_a_spacing(path, f"the axes {', '.join(map(str, spacing)) or '(none)'}")
        return _triple(path, [spacing[axis] for axis in "zyx"]), _unit(path, told.get("unit"))
    if not isinstance(spacing, list) or len(spacing) != 3:
        raise _not_a_spacing(path, f"the spacing {json.dumps(spacing)}")
    if axes is None and _in_nnunet(path):
        unit = told.get("unit")
        return _triple(path, spacing), None if unit is None else _unit(path, unit)
    if axes is None:
        a, b, c = spacing
        raise DatasetError(
            path,
            found=f'a list [{a}, {b}, {c}] without "axes": z {a}, y {b}, x {c}, or z {c}, y {b}, x {a}?',
            rule="A list tells the order of its axes",
            remedy='Add "axes": "zyx" or "axes": "xyz"',
        )
    if axes not in _ORDERS:
        raise _not_a_spacing(path, f"the axes {axes!r}")
    return _triple(path, spacing if axes == "zyx" else spacing[::-1]), _unit(path, told.get("unit"))


def read_spacing_table(path: Path) -> dict[str, Spacing]:
    """Spacing (z, y, x) and unit by case id, from a CSV with the columns case, z, y, x and unit."""
    found: dict[str, Spacing] = {}
    for row in read_rows(path, ("case", "z", "y", "x", "unit")):
        case = strip_suffix(row["case"])
        spacing = _triple(path, [_number(row[axis]) for axis in "zyx"]), _unit(path, row["unit"])
        if found.setdefault(case, spacing) != spacing:
            raise DatasetError(
                path,
                found=f"two spacings of '{case}': {found[case]} and {spacing}",
                rule="A case has one spacing",
                remedy="Correct one of the lines",
            )
    return found


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise _not_a_spacing(path, f"not readable as JSON ({error})") from error
    if not isinstance(told, dict):
        raise _not_a_spacing(path, f"holds {type(told).__name__}")
    return told


def _in_nnunet(path: Path) -> bool:
    description = path.parent.parent / "dataset.json"
    return description.is_file() and b'"channel_names"' in description.read_bytes()


def _number(text: str) -> object:
    try:
        return float(text.replace(",", "."))  # a decimal comma, in tables of European spreadsheets
    except ValueError:
        return text


def _triple(path: Path, values: list[object]) -> Triple:
    lengths = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(lengths) != 3 or not all(math.isfinite(v) and v > 0 for v in lengths):
        raise _not_a_spacing(path, f"the lengths {values}")
    z, y, x = lengths
    return z, y, x


def _unit(path: Path, name: object) -> str:
    unit = canonical(name) if isinstance(name, str) else None
    if unit is None:
        raise DatasetError(
            path,
            found="no unit" if name in (None, "") else f"the unit {name!r}",
            rule=f"A spacing has a unit of length: {', '.join(known())}",
            remedy='Give it, such as "unit": "um"',
        )
    return unit


def _not_a_spacing(path: Path, found: str) -> DatasetError:
    return DatasetError(
        path,
        found=found,
        rule="A spacing is three lengths above 0, of the axes z, y and x",
        remedy=f"Write it as {_EXAMPLE}",
    )
