"""Each floor imports only floors below it, relatively, and no module takes a name of Python's."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ("data", "seg", "ssl", "experiments")
# `ssl` without dots is Python's own
REFUSED = {"fewvox", "data", "seg", "experiments"}


def imports(path: Path, package: tuple[str, ...]) -> list[tuple[int, str | None]]:
    """Line and floor of every import of this package in a file, in functions too; None for an absolute one.

    `package` is that of the file, below fewvox: ("data", "formats") for data/formats/tiff.py.
    """
    found: list[tuple[int, str | None]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, None) for name in node.names if name.name.split(".")[0] in REFUSED]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [(node.lineno, None)] if (node.module or "").split(".")[0] in REFUSED else []
        elif isinstance(node, ast.ImportFrom):
            inner = node.module.split(".") if node.module else []
            base = [*("fewvox", *package)[: 2 + len(package) - node.level], *inner]
            names = [name.name for name in node.names] if len(base) == 1 else [base[1] if base else "?"]
            found += [(node.lineno, name) for name in names]
        elif isinstance(node, ast.Call) and _name(node.func) in ("import_module", "__import__"):
            found += [(node.lineno, None) for a in node.args[:1] if _refused_text(a)]
    return found


def _name(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def _refused_text(argument: ast.expr) -> bool:
    text = argument.value if isinstance(argument, ast.Constant) else None
    return isinstance(text, str) and (text.startswith(".") or text.split(".")[0] in REFUSED)


def violations(root: Path) -> list[str]:
    """Imports that go up, out or around by an absolute name."""
    wrong = []
    for height, floor in enumerate(FLOORS):
        for path in sorted((root / floor).rglob("*.py")):
            name = path.relative_to(root)
            for line, target in imports(path, name.parent.parts):
                if target not in FLOORS[: height + 1]:
                    wrong.append(f"{name.as_posix()}:{line} imports {target or 'absolutely'}")
    return wrong


def pythons_names(root: Path) -> list[str]:
    """Modules and folders below the floors (not the floors) that are called like one of Python's."""
    below = [path.relative_to(root) for floor in FLOORS for path in (root / floor).rglob("*")]
    modules = [path for path in below if path.suffix == ".py" or (root / path).is_dir()]
    return sorted(path.as_posix() for path in modules if path.stem in sys.stdlib_module_names)


def plant(root: Path, name: str, text: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")


def test_every_floor_imports_only_floors_below_it():
    assert len(list((ROOT / "data").rglob("*.py"))) > 10
    assert violations(ROOT) == []


def test_no_module_is_named_like_one_of_pythons():
    assert pythons_names(ROOT) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data/a.py", "from ..seg.run import Run"),
        ("data/a.py", "from .. import seg"),
        ("data/formats/a.py", "from ...experiments.api import scan"),
        ("seg/a.py", "from ..data import plan\nfrom .. import data, ssl"),
        ("seg/a.py", "def lazy():\n    from ..ssl.method import Method"),
        ("ssl/a.py", "if True:\n    from ..experiments import api"),
        ("ssl/methods/a.py", "from ...experiments import api"),
        ("experiments/a.py", "import fewvox.data.plan"),
        ("experiments/a.py", "import os, data.plan as plan"),
        ("experiments/a.py", "from seg.run import Run"),
        ("experiments/a.py", "from fewvox import data"),
        ("experiments/a.py", "import importlib\nimportlib.import_module('fewvox.data')"),
        ("seg/a.py", "from ...elsewhere import a"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, name, text):
    plant(tmp_path, name, text)
    assert len(violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data/a.py", "import ssl, json\nfrom .plan import Plan\nfrom . import plan"),
        ("data/formats/a.py", "from ..plan import Plan\nfrom . import tiff\nfrom .tiff import read"),
        ("data/formats/a.py", "from ...data.plan import Plan"),
        ("seg/a.py", "from ..data.plan import Plan\nfrom .. import data"),
        ("ssl/methods/a.py", "from ...seg.run import Run\nfrom ..method import Method"),
        ("experiments/a.py", "from .. import data, seg, ssl\nfrom ..ssl.method import Method"),
    ],
)
def test_what_is_allowed_is_not_reported(tmp_path, name, text):
    plant(tmp_path, name, text)
    assert violations(tmp_path) == []


def test_planted_names_of_pythons_are_found(tmp_path):
    for name in ("data/statistics.py", "seg/logging/a.py", "ssl/ssl.py", "ssl/method.py", "data/json.txt"):
        plant(tmp_path, name)
    assert pythons_names(tmp_path) == ["data/statistics.py", "seg/logging", "ssl/ssl.py"]
