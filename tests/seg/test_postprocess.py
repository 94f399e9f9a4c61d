"""What is done to masks: class by class, by volume in space, for every kind of label."""

import numpy as np
import pytest
from fewvox.data.errors import UserError
from fewvox.data.labels import LabelTable
from fewvox.data.settings import SettingsError, write_yaml
from fewvox.data.volume import Volume
from fewvox.seg.instances import InstancesConfig
from fewvox.seg.postprocess import (
    POSTPROCESS,
    ClassRules,
    PostprocessConfig,
    chosen_postprocess,
    clean,
    finishing,
    labels_of_masks,
    read_postprocess,
)

TABLE = LabelTable(values=(0, 10, 20))
OVERLAPPING = LabelTable(kind="overlapping", values=(0, 1, 2))
UNIT = (1.0, 1.0, 1.0)


def row(*numbers):
    return np.array(numbers, np.uint8).reshape(1, 1, -1)


def cleaned(numbers, table=TABLE, spacing=UNIT, **said):
    return clean(numbers, PostprocessConfig(**said), table, spacing).tolist()


def test_only_the_named_class_is_changed():
    before = row(1, 1, 0, 1, 0, 2, 0, 2, 2)
    assert (
        cleaned(before, classes={10: ClassRules(keep="largest")}) == row(1, 1, 0, 0, 0, 2, 0, 2, 2).tolist()
    )
    assert (
        cleaned(before, classes={20: ClassRules(keep="largest")}) == row(1, 1, 0, 1, 0, 0, 0, 2, 2).tolist()
    )
    assert before.tolist() == row(1, 1, 0, 1, 0, 2, 0, 2, 2).tolist()


def test_the_foreground_is_all_classes_as_one():
    assert cleaned(row(1, 2, 1, 0, 1, 1), foreground="largest") == row(1, 2, 1, 0, 0, 0).tolist()


def test_classes_that_overlap_are_seen_to_each_for_itself():
    both = np.stack([row(1, 1, 0, 1), row(1, 0, 1, 1)])
    left = cleaned(both, OVERLAPPING, classes={2: ClassRules(keep="largest")})
    assert left == np.stack([row(1, 1, 0, 1), row(0, 0, 1, 1)])[:, 0:1].tolist()
    apart = np.stack([row(1, 1, 0, 1), row(0, 1, 0, 0)])
    assert (
        cleaned(apart, OVERLAPPING, foreground="largest")
        == np.stack([row(1, 1, 0, 0), row(0, 1, 0, 0)]).tolist()
    )


def test_the_smallest_volume_is_one_in_space():
    before = row(1, 0, 1, 1)
    for spacing, left in (((1, 1, 1), 2), ((2, 1, 1), 3), ((0.9, 1, 1), 0)):
        rules = {10: ClassRules(smallest=2.0)}
        assert np.count_nonzero(cleaned(before, spacing=spacing, classes=rules)) == left
    assert np.count_nonzero(cleaned(before, classes={10: ClassRules(smallest_voxels=2)})) == 2


def test_a_hole_is_filled_and_another_class_in_it_stays():
    sheet = np.ones((3, 3, 4), np.uint8)
    sheet[1, 1, 1:3] = 0, 2
    filled = clean(sheet, PostprocessConfig(classes={10: ClassRules(fill_holes=True)}), TABLE, UNIT)
    assert filled[1, 1].tolist() == [1, 1, 2, 1]


def test_lengths_are_of_the_plans_unit(make_plan):
    plan = make_plan(labels=LabelTable(values=(0, 10)))
    volume = Volume(array=np.zeros((1, 1, 1, 4), np.float32), spacing=(1000.0, 1000.0, 1000.0), unit="um")
    config = PostprocessConfig(classes={10: ClassRules(smallest=1.5)})
    assert finishing(config, plan)(row(1, 0, 1, 1), volume).tolist() == row(0, 0, 10, 10).tolist()


@pytest.mark.parametrize("count", [300, 70_000])
def test_objects_are_numbered_beyond_a_byte(make_plan, count):
    plan = make_plan(labels=LabelTable(kind="instances"))
    numbers = np.zeros((1, 2, 2 * count), np.uint8)
    numbers[0, 0, ::2] = 1
    config = PostprocessConfig(instances=InstancesConfig(method="watershed"))
    written = finishing(config, plan)(numbers, Volume(array=numbers[None]))
    assert len(np.unique(written)) == count + 1
    assert written.dtype == (np.uint16 if count == 300 else np.uint32)


def write(folder, **said):
    folder.mkdir(exist_ok=True)
    write_yaml(folder / POSTPROCESS, PostprocessConfig(**said))
    return folder


def test_masks_of_numbered_objects_are_told_to_be_that():
    table, config = LabelTable(values=(0, 255), ignore=7), InstancesConfig(method="watershed")
    assert labels_of_masks(PostprocessConfig(), table) == table
    of_objects = labels_of_masks(PostprocessConfig(instances=config), table)
    assert (of_objects.kind, of_objects.ignore) == ("instances", 7)


@pytest.mark.parametrize(
    ("table", "chosen", "background", "aliases"),
    [
        (LabelTable(values=(1, 2), ignore=0), None, 1, {}),
        (LabelTable(kind="instances", background=5), None, 5, {}),
        (LabelTable(values=(0, 1), aliases={255: 1}), None, 0, {255: 1}),
        (LabelTable(values=(1, 2, 4, 9), ignore=0), 4, 1, {2: 1, 9: 1}),
    ],
)
def test_what_is_no_object_is_told_beside_numbered_objects(table, chosen, background, aliases):
    config = PostprocessConfig(instances=InstancesConfig(method="watershed", value=chosen))
    told = labels_of_masks(config, table)
    assert (told.background, told.aliases, told.classes) == (background, aliases, 2)


LARGEST = {10: ClassRules(keep="largest")}


def test_a_run_is_asked_what_it_chose_unless_a_file_or_none_is_given(tmp_path):
    run, other = write(tmp_path / "run", classes=LARGEST), write(tmp_path / "other", foreground="otsu")
    chosen, told = chosen_postprocess([run], None, TABLE)
    assert chosen.classes == LARGEST
    assert str(run / POSTPROCESS) in told
    assert chosen_postprocess([run], "none", TABLE) == (PostprocessConfig(), "")
    asked, told = chosen_postprocess([run], other / POSTPROCESS, TABLE)
    assert (asked.foreground, asked.classes) == ("otsu", {})
    assert str(other) in told


def test_several_runs_are_followed_only_where_they_agree(tmp_path):
    one, two = write(tmp_path / "one", classes=LARGEST), write(tmp_path / "two", classes=LARGEST)
    other, bare = write(tmp_path / "other"), tmp_path / "bare"
    assert chosen_postprocess([one, two], None, TABLE)[0].classes == LARGEST
    for runs in ([one, other], [one, bare], [bare, two]):
        chosen, told = chosen_postprocess(runs, None, TABLE)
        assert chosen == PostprocessConfig()
        assert "chose differently" in told
    assert chosen_postprocess([bare, bare], None, TABLE) == (PostprocessConfig(), "")


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("classes: {1: {keep: largest}}", UserError, "the class 1.*The model's classes are 10, 20"),
        ("classes: {10: {keep: biggest}}", SettingsError, "biggest"),
        ("keep: largest", SettingsError, "unknown key 'keep'"),
        ("instances: {method: watershed}", UserError, "Objects are of one class"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path, text, error, told):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(error, match=rf"own\.yaml.*{told}"):
        read_postprocess(tmp_path / "own.yaml", TABLE)
    with pytest.raises(UserError, match="no such file"):
        read_postprocess(tmp_path / "other.yaml", TABLE)
