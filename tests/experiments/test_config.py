"""Configuration files, overrides and lists of cases."""

import json
import re

import pytest
from fewvox.data.errors import UserError
from fewvox.data.settings import SettingsError
from fewvox.experiments.config import configuration, read_cases, read_split
from fewvox.seg.finetune import FinetuneConfig


def test_an_override_wins_over_the_file_and_a_given_value_over_both(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("steps: 10\nseed: 1\noptimizer: {lr: 0.1, momentum: 0.5}\n")
    found = configuration(FinetuneConfig, file, ["optimizer.lr=0.2"], seed=3)
    assert (found.steps, found.seed, found.optimizer.lr, found.optimizer.momentum) == (10, 3, 0.2, 0.5)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(SettingsError) as error:
        configuration(FinetuneConfig, None, ["stepps=3", "optimizer.lr=-1", "patches.foreground_share=2"])
    for key in ("stepps", "optimizer.lr", "patches.foreground_share"):
        assert key in str(error.value)


def test_a_resolved_configuration_can_be_given_again(tmp_path):
    from fewvox.data.settings import write_yaml

    config = FinetuneConfig(steps=7)
    write_yaml(tmp_path / "config.yaml", config)
    assert configuration(FinetuneConfig, tmp_path / "config.yaml", []) == config


def test_a_split_file_gives_its_three_lists(tmp_path):
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"train": ["a"], "validation": ["b"], "test": ["c"]}))
    split = read_split(file)
    assert (split.train, split.validation, split.test) == (("a",), ("b",), ("c",))
    assert read_cases(file) == ("c",)


@pytest.mark.parametrize(
    ("lists", "found"),
    [
        ({"train": ["a"], "test": ["a"]}, "'a' stands in two lists"),
        ({"train": ["a"], "validation": ["a"]}, "'a' stands in two lists"),
        ({"test": ["a"]}, "no training case"),
    ],
)
def test_a_split_that_leaks_or_trains_on_nothing_is_refused(tmp_path, lists, found):
    file = tmp_path / "split.json"
    file.write_text(json.dumps(lists))
    with pytest.raises(UserError, match=found):
        read_split(file)


def test_cases_stand_one_a_line(tmp_path):
    file = tmp_path / "cases.txt"
    file.write_text("a\n\n b/c \n")
    assert read_cases(file) == ("a", "b/c")


@pytest.mark.parametrize(("name", "text"), [("x.json", "{"), ("x.json", '{"test": []}'), ("x.txt", "\n")])
def test_a_useless_list_is_refused_by_name(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=re.escape(name)):
        read_cases(tmp_path / name)


def test_an_absent_list_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"gone\.txt"):
        read_cases(tmp_path / "gone.txt")
