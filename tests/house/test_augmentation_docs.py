"""docs/augmentation.md tells of every operation, preset and setting, and its examples work."""

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
import yaml
from fewvox.data.augment.chain import AnyOperation, AugmentConfig, completed
from fewvox.data.augment.presets import PRESETS
from fewvox.data.augment.spatial import SpatialConfig
from fewvox.data.settings import parse

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "augmentation.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
OPERATIONS = {kind.op: kind for kind in get_args(get_args(AnyOperation)[0])}


def section(op: str) -> str:
    found = re.search(rf"### `{op}`\n(.*?)(?=\n##|\Z)", TEXT, re.DOTALL)
    assert found, f"no section of {op}"
    return found[1]


@pytest.mark.parametrize("op", OPERATIONS)
def test_every_operation_has_a_section_with_its_settings_and_a_picture(op):
    assert f"(pictures/{op}.png)" in section(op)
    for setting in fields(OPERATIONS[op]):
        assert setting.name == "op" or f"`{setting.name}" in section(op), setting.name


@pytest.mark.parametrize("op", sorted(set(OPERATIONS) - {"torchio"}))
def test_defaults_are_those_of_the_code(op):
    told = yaml.safe_load(
        "\n".join(re.findall(r"`(\w+: [^`]+)`", section(op).split("probability`")[-1])) or "{}"
    )
    told |= {"probability": yaml.safe_load(re.findall(r"`probability: ([^`]+)`", section(op))[0])}
    for name, value in told.items():
        default = getattr(OPERATIONS[op](), name)
        expected = list(default) if isinstance(default, tuple) else default
        assert (
            value == pytest.approx(expected, abs=5e-4)
            if not isinstance(value, str | bool)
            else value == expected
        )


def test_spatial_settings_and_presets_are_told():
    assert [f.name for f in fields(SpatialConfig) if f"`{f.name}: " not in TEXT] == []
    assert [name for name in PRESETS if f"| `{name}` |" not in TEXT] == []


def test_every_picture_is_there_and_they_are_small():
    shown = re.findall(r"\(pictures/(\w+\.png)\)", TEXT)
    assert sorted(shown) == sorted(
        path.name for path in (DOCS / "pictures").glob("*.png") if path.name in shown
    )
    assert sum((DOCS / "pictures" / name).stat().st_size for name in shown) < 1_000_000


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_configuration(example):
    said = yaml.safe_load(example)
    assert set(said) == {"augment"}
    parsed = parse(AugmentConfig, completed("nnunet")(said["augment"]), "docs/augmentation.md")
    assert parsed != parse(AugmentConfig, completed("nnunet")({}), "the default")


def test_there_are_examples():
    assert len(EXAMPLES) >= 5
