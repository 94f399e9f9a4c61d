"""docs/methods.md tells of every method and each of its settings, with a picture of a batch."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from fewvox.ssl.methods.registry import METHODS

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "methods.md").read_text(encoding="utf-8")


def section(name: str) -> str:
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, f"no section on {name}"
    return found[1]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_its_page(name):
    """A page: the idea, the loss, when to use it and how it fails."""
    told = section(name)
    assert 300 < len(told.split()) < 1200
    assert [part for part in ("Idea", "When to use it", "Known failure") if f"**{part}.**" not in told] == []
    assert re.search("loss|entropy|likelihood", told)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_setting_is_told(name):
    """By its name, or as the beginning of a key within it."""
    told = section(name)
    assert [f.name for f in fields(METHODS[name].config) if not re.search(rf"`{f.name}\b", told)] == []


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_a_picture_of_a_batch(name):
    assert f"(pictures/method_{name}.png)" in section(name)
    assert (DOCS / f"pictures/method_{name}.png").is_file()


def test_there_is_no_section_on_what_is_no_method():
    told = re.findall(r"^## (\w+)$", TEXT, re.MULTILINE)
    assert sorted(name for name in told if name not in ("Collapse", "Probes")) == sorted(METHODS)
