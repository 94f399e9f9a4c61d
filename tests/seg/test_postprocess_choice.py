"""Post-processing is chosen by validation cases: what helps one class and harms none."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fewvox.data.labels import IGNORED, LabelTable
from fewvox.data.settings import read_yaml
from fewvox.seg.postprocess import POSTPROCESS, ClassRules, PostprocessConfig
from fewvox.seg.postprocess_choice import choose_postprocess, write_choice

TABLE = LabelTable(values=(0, 10, 20))


def choose(pairs, table=TABLE):
    """What is chosen for pairs of a predicted and a true row of class numbers."""
    arrays = [[np.array(r, np.int8).reshape(*np.shape(r)[:-1], 1, 1, -1) for r in pair] for pair in pairs]
    store = SimpleNamespace(
        plan=SimpleNamespace(labels=table), image=lambda n: arrays[n][0], label=lambda n: arrays[n][1]
    )
    predictor = SimpleNamespace(classes=lambda image: image)
    return choose_postprocess(cast(Any, store), cast(Any, range(len(pairs))), cast(Any, predictor))


def test_noise_of_one_class_is_removed_and_two_objects_of_another_stay():
    pair = ([1, 1, 1, 0, 1, 0, 2, 2, 0, 2], [1, 1, 1, 0, 0, 0, 2, 2, 0, 2])
    chosen, evidence = choose([pair])
    assert chosen == PostprocessConfig(classes={10: ClassRules(keep="largest")})
    assert any("foreground all, class largest: 1.0000 0.8000" in line for line in evidence)


def test_the_foreground_goes_first_where_it_helps_and_harms_no_class():
    pair = ([1, 1, 2, 0, 1, 0, 2], [1, 1, 2, 0, 0, 0, 0])
    chosen, _ = choose([pair])
    assert chosen == PostprocessConfig(foreground="largest")


def test_what_raises_the_mean_but_lowers_a_class_is_not_done():
    pair = ([1, 1, 1, 0, 1, 1, 0, 2], [1, 1, 1, 0, 0, 0, 0, 2])
    assert choose([pair])[0].foreground == "all"


def test_nothing_is_chosen_where_nothing_gets_better():
    same = [1, 1, 0, 1, 0, 2]
    assert choose([(same, same)])[0] == PostprocessConfig()


def test_the_mean_over_cases_decides():
    helped = ([1, 1, 1, 0, 1], [1, 1, 1, 0, 0])
    harmed = ([1, 1, 0, 1, 1, 1], [1, 1, 0, 1, 1, 1])
    table = LabelTable()
    assert choose([helped], table)[0] == PostprocessConfig(foreground="largest")
    assert choose([helped, harmed], table)[0] == PostprocessConfig()


def test_voxels_that_nobody_annotated_are_no_evidence():
    pair = ([1, 1, 1, 0, 1, 0, 2], [1, 1, 1, 0, IGNORED, IGNORED, 2])
    assert choose([pair])[0] == PostprocessConfig()


def test_a_class_that_only_noise_has_is_right_once_it_is_gone():
    pair = ([1, 1, 1, 1, 0, 2], [1, 1, 1, 1, 0, 0])
    assert choose([pair])[0] == PostprocessConfig(foreground="largest")


def test_classes_that_overlap_are_chosen_each_for_itself():
    predicted = [[1, 1, 1, 0, 1], [0, 1, 0, 0, 1]]
    true = [[1, 1, 1, 0, 0], [0, 1, 0, 0, 1]]
    chosen, _ = choose([(predicted, true)], LabelTable(kind="overlapping", values=(0, 1, 2)))
    assert chosen == PostprocessConfig(classes={1: ClassRules(keep="largest")})


def test_a_fine_tuning_writes_its_choice_where_cases_validate(tmp_path, make_run, make_plan):
    plan = make_plan(labels=LabelTable())
    run = make_run(plan=plan)
    rng = np.random.default_rng(0)
    store = SimpleNamespace(
        plan=plan,
        image=lambda _: rng.normal(size=(1, 6, 8, 8)).astype(np.float32),
        label=lambda _: rng.integers(0, 2, (6, 8, 8)).astype(np.int8),
    )
    chosen = write_choice(run, cast(Any, store), ["a"], "cpu")
    assert read_yaml(run / POSTPROCESS, PostprocessConfig) == chosen
    assert "Chosen on the 1 validation cases" in (run / POSTPROCESS).read_text()
    assert pytest.importorskip("yaml").safe_load((run / POSTPROCESS).read_text()).keys() == {
        "foreground",
        "classes",
        "instances",
    }
