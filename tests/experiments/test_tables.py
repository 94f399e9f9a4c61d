"""Tables tell a person what was found."""

from io import StringIO

import pytest
from fewvox.data.fingerprint import Fingerprint
from fewvox.data.scan import Scan
from fewvox.experiments.tables import scan_table
from rich.console import Console


@pytest.fixture
def shown(make_facts):
    """The lines of the table of a scan of these cases, each given by its fields."""

    def show(*cases: dict) -> list[str]:
        facts = [make_facts(**{"id": f"n{n}", **fields}) for n, fields in enumerate(cases)]
        console = Console(width=250, file=StringIO())
        console.print(scan_table(Scan(cases=(), fingerprint=Fingerprint.of(facts), problems=())))
        return [line.strip() for line in console.file.getvalue().splitlines()]

    return show


def row(lines: list[str], case: str) -> list[str]:
    (found,) = (line for line in lines if line.startswith(f"│ {case} "))
    return [cell.strip() for cell in found.strip("│").split("│")]


def test_a_row_is_a_case(shown):
    lines = shown(
        {
            "id": "a[red]",
            "channels": ("t1", "[b]t2"),
            "label_voxels": {0: 3000, 2: 1000},
            "annotated_voxels": 4000,
        },
        {"spacing": None, "unit": None},
        {"unit": None},
    )
    assert "3 readable cases, 1 with labels" in lines[0]
    assert row(lines, "a[red]") == [
        "a[red]",
        "10 x 20 x 20",
        "2 x 1 x 1 um",
        "t1, [b]t2",
        "uint8",
        "0 to 99; 0 to 99",
        "2: 1000 (25.0% foreground)",
    ]
    assert (row(lines, "n1")[2], row(lines, "n1")[6]) == ("unknown", "-")
    assert row(lines, "n2")[2] == "2 x 1 x 1 (no unit)"


@pytest.mark.parametrize(
    ("voxels", "annotated", "told"),
    [
        ({0: 500, 1: 300, 2: 200}, 1000, "1: 300, 2: 200 (50.0% foreground, 25.0% annotated)"),
        ({0: 3000, 1: 900, 2: 900}, 4000, "1: 900, 2: 900 (25.0% foreground)"),
        (
            {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 0: 3995},
            4000,
            "1: 1, 2: 1, 3: 1, 4: 1 and 1 more (0.1% foreground)",
        ),
    ],
    ids=["partial", "overlapping", "many"],
)
def test_labels_are_told_by_their_voxels_and_shares(shown, voxels, annotated, told):
    assert row(shown({"label_voxels": voxels, "annotated_voxels": annotated}), "n0")[6] == told


def test_what_differs_is_summed_up(shown):
    kinds = ["uint8", "uint8", "int16", "uint16", "float32", "float64"]
    lines = shown(
        *(
            {"dtype": kind, "subject": "s", "label_dtype": "uint8" if n < 2 else None}
            for n, kind in enumerate(kinds)
        )
    )
    assert "subjects: 1" in lines
    assert "types: 2 x uint8, 1 x int16, 1 x uint16, 1 x float32 and 1 more" in lines
    assert "spacings (z, y, x): 6 x 2 x 1 x 1 um" in lines
    assert "label types: 2 x uint8" in lines


def test_only_forty_rows_are_shown_and_how_many_are_not(shown):
    lines = shown(*[{}] * 43)
    assert sum(line.startswith("│ n") for line in lines) == 40
    assert "and 3 more cases; --json FILE writes them all" in lines
    few = shown(*[{}] * 40)
    assert not any(line.startswith(("and ", "subjects", "label types")) for line in few)
