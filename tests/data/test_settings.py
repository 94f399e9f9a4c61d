"""Settings are checked whole, read without executing anything, and come back as they were written."""

from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from fewvox.data.settings import (
    SettingsError,
    checked,
    load_mapping,
    merged,
    over,
    override,
    parse,
    plain,
    read_yaml,
    settings,
    write_yaml,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BeforeValidator, Field


@settings
class Optimizer:
    lr: Annotated[float, Field(gt=0)] = 0.1
    steps: int = 3


@settings
class Config:
    name: str
    optimizer: Optimizer = Optimizer()
    spacing: tuple[float, float, float] | None = None
    counts: dict[int, int] = field(default_factory=dict)


def no_value(value: int) -> int:
    raise ValueError("TorchIO has none")


def test_an_unknown_key_is_a_mistake_that_lists_the_known_ones():
    with pytest.raises(SettingsError, match="unknown key 'nmae'") as caught:
        parse(Config, {"name": "a", "nmae": "b"}, "here.yaml")
    assert str(caught.value).startswith("here.yaml: ")
    assert "name, optimizer, spacing, counts" in caught.value.rule


def test_all_mistakes_are_told_together_with_their_keys():
    values = {"optimizer": {"lr": -1, "momentum": 0.9}, "spacing": [1, 2], "typo": 0}
    with pytest.raises(SettingsError) as caught:
        parse(Config, values, "here.yaml")
    for told in ("'name' is missing", "'optimizer.lr' is -1", "'optimizer.momentum'", "'spacing", "'typo'"):
        assert told in caught.value.found


@pytest.mark.parametrize("lr", [float("nan"), float("inf"), 0, "fast", None])
def test_a_number_is_finite_and_within_its_limits(lr):
    with pytest.raises(SettingsError, match=r"optimizer\.lr"):
        parse(Config, {"name": "a", "optimizer": {"lr": lr}}, "here")


def test_settings_built_in_python_are_checked_alike():
    good = Config(name="a")
    assert checked(good, "here") == good
    with pytest.raises(SettingsError, match=r"'optimizer\.lr' is -1"):
        checked(replace(good, optimizer=Optimizer(lr=-1.0)), "here")
    with pytest.raises(SettingsError, match="'optimizer' is 'adam'"):
        checked(Config(name="a", optimizer="adam"), "here")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["name: !!python/object/apply:os.mkdir [{}]", "name: !!python/name:os.mkdir", "!!python/tuple [1]"],
)
def test_a_yaml_tag_is_refused_and_nothing_is_executed(tmp_path, text):
    canary = tmp_path / "canary"
    path = tmp_path / "evil.yaml"
    path.write_text(text.format(canary.as_posix()))
    with pytest.raises(SettingsError, match="no tags"):
        read_yaml(path, Config)
    assert not canary.exists()


def test_the_canary_would_sing_with_an_unsafe_reader(tmp_path):
    yaml.unsafe_load(f"!!python/object/apply:os.mkdir [{(tmp_path / 'canary').as_posix()}]")
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "NoneType"), (b"- 1", "list"), (b"a: [1", "YAML"), (b"\xff\xfe\xfa", "YAML"), (None, "YAML")],
)
def test_what_is_no_mapping_is_refused_by_its_name(tmp_path, content, told):
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=told) as caught:
        load_mapping(path)
    assert caught.value.where == str(path)


@settings
class Low:
    value: Annotated[int, AfterValidator(no_value)]


def test_a_rule_of_our_own_is_told_in_its_words():
    with pytest.raises(SettingsError, match="'value' is 3: TorchIO has none"):
        parse(Low, {"value": 3}, "here")


@given(
    name=st.text(st.characters(exclude_categories=["C", "Zl", "Zp"])),
    lr=st.floats(min_value=1e-300, allow_infinity=False),
    counts=st.dictionaries(st.integers(0, 2**63), st.integers()),
)
def test_what_is_written_is_read_again(tmp_path_factory, name, lr, counts):
    config = Config(name=name, optimizer=Optimizer(lr=lr), spacing=(1.0, 0.1, 3e-9), counts=counts)
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    write_yaml(path, config, "two lines\nof comment")
    assert read_yaml(path, Config) == config


def test_keys_are_written_in_the_order_of_the_class_below_the_comment(tmp_path):
    write_yaml(tmp_path / "a.yaml", Config(name="é"), "what\nit is")
    lines = (tmp_path / "a.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[:4] == ["# what", "# it is", "name: é", "optimizer:"]


def test_an_override_sets_an_inner_key_and_leaves_its_input_alone():
    values = {"name": "a", "optimizer": {"lr": 0.1, "steps": 3}}
    changed = override(values, ["optimizer.lr=0.5", "spacing=[1, 2, 3]", "name = b", "optimizer.lr=0.7"])
    assert changed == {"name": "b", "optimizer": {"lr": 0.7, "steps": 3}, "spacing": [1, 2, 3]}
    assert values == {"name": "a", "optimizer": {"lr": 0.1, "steps": 3}}


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0e-3"])
def test_an_override_takes_numbers_as_people_write_them(text):
    assert parse(Config, override({"name": "a"}, [f"optimizer.lr={text}"]), "--set").optimizer.lr == 0.001


def test_an_override_reads_null_and_keeps_further_equal_signs():
    assert override({"spacing": [1]}, ["spacing=null", "name=a=b"]) == {"spacing": None, "name": "a=b"}


@pytest.mark.parametrize(
    "text", ["optimizer", "=3", "name.first=a", "name=[1", "name=!!python/object/apply:os.getpid []"]
)
def test_an_override_that_fits_nowhere_is_refused(text):
    with pytest.raises(SettingsError, match="--set"):
        override({"name": "a"}, [text])


def test_what_is_said_stands_over_the_base_and_leaves_it_alone():
    base = {"a": {"b": 1, "c": {"d": 2, "e": 3}}, "f": 4}
    assert merged(base, {"a": {"c": {"d": 5}}, "g": 6}) == {
        "a": {"b": 1, "c": {"d": 5, "e": 3}},
        "f": 4,
        "g": 6,
    }
    assert merged(base, {"a": 7, "f": {"x": 8}}) == {"a": 7, "f": {"x": 8}}
    assert base == {"a": {"b": 1, "c": {"d": 2, "e": 3}}, "f": 4}


def test_of_another_kind_nothing_of_the_base_stays():
    base = {"a": {"op": "x", "b": 1}}
    assert merged(base, {"a": {"c": 2}}, tag="op") == {"a": {"op": "x", "b": 1, "c": 2}}
    assert merged(base, {"a": {"op": "y", "c": 2}}, tag="op") == {"a": {"op": "y", "c": 2}}


@settings
class Filled:
    slow: Annotated[Optimizer, BeforeValidator(over(Optimizer(steps=9)))] = Optimizer(steps=9)


def test_a_group_said_in_part_has_the_rest_of_the_default_of_its_place():
    assert parse(Filled, {"slow": {"lr": 0.5}}, "here").slow == Optimizer(lr=0.5, steps=9)
    for said in (3, None):
        with pytest.raises(SettingsError, match="'slow"):
            parse(Filled, {"slow": said}, "here")


def test_plain_settings_are_made_of_what_json_knows():
    assert plain(Config(name="a", counts={1: 2})) == {
        "name": "a",
        "optimizer": {"lr": 0.1, "steps": 3},
        "spacing": None,
        "counts": {"1": 2},
    }


def test_a_settings_object_cannot_be_changed():
    with pytest.raises(AttributeError):
        Config(name="a").name = "b"  # type: ignore[misc]


def test_a_path_is_told_in_full(tmp_path):
    with pytest.raises(SettingsError, match="absent"):
        read_yaml(Path(tmp_path / "absent.yaml"), Config)


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "x:\n  a: 1\n  b: 2\n  a: 3\n", "x: [{a: 1, a: 2}]\n"])
def test_a_key_that_stands_twice_is_refused(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(SettingsError, match="'a' stands twice"):
        load_mapping(tmp_path / "c.yaml")


def test_an_inner_key_of_a_single_value_is_refused_with_the_way_to_say_it():
    with pytest.raises(SettingsError, match=r"'a\.b' is a single value, 'weak'.*write a\.b\.preset=weak\.$"):
        override({}, ["a.b=weak", "a.b.c.d=1"])
    with pytest.raises(SettingsError, match=r"'a' is a single value, 3\..* Set a itself\.$"):
        override({"a": 3}, ["a.b=1"])


def test_an_override_that_is_no_yaml_is_refused_in_words():
    with pytest.raises(SettingsError, match="a value that is not YAML"):
        override({}, ["a=[1, 2"])


def test_a_value_of_none_of_its_kinds_is_told_once_by_the_key_that_was_typed():
    @settings
    class Chosen:
        load: Literal["all", "none"] | tuple[int, ...] = "all"

    with pytest.raises(SettingsError) as told:
        parse(Chosen, {"load": "some"}, "--set load=some")
    assert "'load' is 'some': input should be 'all' or 'none', or input should be a valid tuple." in str(
        told.value
    )
