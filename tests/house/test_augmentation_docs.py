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
from fewvox.data.augment.torchio_transform import TorchIO
from fewvox.data.settings import parse, plain

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "augmentation.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
KINDS = get_args(get_args(AnyOperation)[0])
OPERATIONS = {kind.op: kind(**({"transform": "RandomFlip"} if kind is TorchIO else {})) for kind in KINDS}


def section(title: str) -> str:
    found = re.search(rf"#+ {title}\n(.*?)(?=\n##|\Z)", TEXT, re.DOTALL)
    assert found, f"no section on {title}"
    return found[1]


def check_settings(title: str, settings: object, *, without: tuple[str, ...] = ()) -> None:
    """Each setting stands in the section with its default, the last time that it is told."""
    names = [field.name for field in fields(settings) if field.name not in without]
    told = {name: yaml.safe_load(value) for name, value in re.findall(r"`(\w+): ([^`]+)`", section(title))}
    assert [name for name in names if name not in told] == []
    for name in names:
        assert told[name] == pytest.approx(plain(settings)[name], abs=5e-4), name


@pytest.mark.parametrize("op", OPERATIONS)
def test_every_operation_has_a_section_with_its_defaults_and_a_picture(op):
    assert f"(pictures/{op}.png)" in section(f"`{op}`")
    check_settings(f"`{op}`", OPERATIONS[op], without=("op", "transform"))


def test_spatial_settings_have_their_defaults():
    check_settings("Spatial", SpatialConfig(), without=("labels",))


def test_every_preset_is_told():
    assert [name for name in PRESETS if f"| `{name}` |" not in TEXT] == []


def test_pictures_are_there_and_they_are_small():
    pictures = {path.name: path.stat().st_size for path in (DOCS / "pictures").iterdir()}
    shown = set(re.findall(r"\(pictures/(\w+\.png)\)", TEXT))
    assert shown <= set(pictures)
    assert sum(pictures[name] for name in shown) < 1_000_000


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_configuration(example):
    said = yaml.safe_load(example)
    assert set(said) == {"augment"}
    parsed = parse(AugmentConfig, completed("nnunet")(said["augment"]), "docs/augmentation.md")
    assert parsed != parse(AugmentConfig, completed("nnunet")({}), "the default")


def test_there_are_examples():
    assert len(EXAMPLES) >= 5
