"""What a comparison may be, read from YAML."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from fewvox.data.errors import UserError
from fewvox.data.settings import read_yaml, write_yaml
from fewvox.data.subjects import is_table
from fewvox.experiments.comparison import (
    CONFIGS,
    Arm,
    Cell,
    ComparisonConfig,
    cells,
    check_same,
    finetune_config,
    pretrain_config,
    read_config,
    weights_of,
)
from fewvox.seg.finetune import FinetuneConfig

GOOD = {
    "name": "tiny",
    "data": "volumes",
    "test": 2,
    "label_counts": [1, 2],
    "seeds": [0, 1],
    "arms": {
        "scratch": {},
        "mae": {"pretrain": {"method": "mae", "steps": 7}, "finetune": {"optimizer": {"lr": 0.5}}},
        "other_tool-2": {"predictions": "masks/{labels}/{seed}"},
    },
    "width": 4,
    "finetune": {"steps": 3, "optimizer": {"name": "sgd", "lr": 0.1}},
}


@pytest.fixture
def write(tmp_path):
    """Writes a comparison, `changes` over the good one; gives its file."""

    def make(**changes) -> Path:
        file = tmp_path / "here/tiny.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(GOOD | changes, sort_keys=False))
        return file

    return make


def with_arm(**arm) -> dict[str, dict]:
    return {"scratch": {}, "mine": arm}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"armz": {}}, "unknown key 'armz'"),
        ({"arms": with_arm(pretrian={})}, "unknown key 'arms.mine.pretrian'"),
        ({"arms": {"scratch": {}, "../x": {}}}, "letters, digits, - and _"),
        ({"arms": {"scratch": {}, "a/b": {}}}, "letters, digits, - and _"),
        ({"arms": {"scratch": {}, "a.b": {}}}, "letters, digits, - and _"),
        ({"arms": {"scratch": {}, "--": {}}}, "letters, digits, - and _"),
        ({"arms": {"scratch": {}, "": {}}}, "letters, digits, - and _"),
        ({"arms": {}}, "'arms' is"),
        ({"baseline": "nothing"}, "baseline nothing. It is one of the arms: scratch, mae, other_tool-2"),
        ({"baseline": "mae"}, "The baseline is trained here, from scratch"),
        ({"arms": {"scratch": {"pretrained": "run"}}}, "The baseline is trained here, from scratch"),
        (
            {"arms": with_arm(pretrained="run", pretrain={"method": "mae"})},
            "arm mine has pretrain and pretrained. An arm is pretrained here, or starts from weights",
        ),
        ({"arms": with_arm(predictions="masks", pretrained="run")}, "arm mine has two of predictions"),
        (
            {"arms": with_arm(pretrained="run", finetune={"steps": 90000})},
            "The baseline is trained on labels as long as any pretrained arm",
        ),
        ({"finetune": {"seed": 3}}, "Seeds are those of the comparison"),
        (
            {"arms": {"scratch": {}, "mae": {"pretrain": {"method": "mae"}, "finetune": {"steps": 90000}}}},
            "The baseline is trained on labels as long as any pretrained arm",
        ),
        ({"test": 0}, "test 0 and test_data None"),
        ({"test_data": "more"}, "test 2 and test_data .*more. The test cases are so many"),
        ({"seeds": [0, 1, 0]}, r"\(0, 1, 0\). Every number of labels and every seed stands once"),
        ({"label_counts": [2, 2]}, r"\(2, 2\). Every number of labels and every seed stands once"),
        ({"seeds": []}, "'seeds' is"),
        ({"label_counts": [0]}, "'label_counts.0' is 0"),
        ({"seeds": [-1]}, "'seeds.0' is -1"),
        ({"confidence": 1}, "'confidence' is 1"),
        ({"arms": with_arm(predictions="masks", pretrain={"method": "mae"})}, "mine has two of predictions"),
        ({"arms": with_arm(predictions="masks", finetune={"steps": 1})}, "arm mine has two of predictions"),
        ({"arms": with_arm(predictions="masks", otsu={})}, "arm mine has two of predictions"),
        ({"arms": with_arm(otsu={}, finetune={"steps": 1})}, "arm mine has two of predictions"),
        ({"arms": with_arm(otsu={"smooth": 1})}, "unknown key 'arms.mine.otsu.smooth'"),
        ({"arms": {"scratch": {"otsu": {}}}}, "The baseline is trained here, from scratch"),
        ({"tolerance": -1}, "'tolerance' is -1"),
        ({"arms": with_arm(pretrain={"method": "mae", "stepps": 1})}, "pretrain: unknown key 'stepps'"),
        ({"arms": with_arm(pretrain={})}, "arms.mine.pretrain: 'method' is missing"),
        ({"arms": with_arm(pretrain={"method": "maee"})}, "There are: .*mae.*triplet"),
        (
            {"arms": with_arm(pretrain={"method": "mae", "options": {"ratio": 0.5}})},
            "arms.mine.pretrain.options: unknown key 'ratio'",
        ),
        (
            {"arms": with_arm(pretrain={"method": "mae", "options": {"mask_ratio": 2}})},
            "arms.mine.pretrain.options: 'mask_ratio' is 2",
        ),
        ({"arms": with_arm(finetune={"optimizer": {"rate": 1}})}, "arm mine: unknown key 'optimizer.rate'"),
        ({"finetune": {"stepz": 1}}, "unknown key 'stepz'"),
        ({"finetune": {"keep": {"l2sp": 0.1}}}, "finetune.keep for arm scratch"),
        ({"arms": with_arm(finetune={"load": "encoder"})}, "finetune.load for arm mine, which is trained"),
        ({"width": 0}, "'width' is 0"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_anything_is_written(write, changes, told):
    file = write(**changes)
    with pytest.raises(UserError, match=told):
        read_config(file)
    assert list(file.parent.iterdir()) == [file]


def test_a_good_comparison_is_read_whole(write):
    found = read_config(write())
    assert (found.name, found.label_counts, found.seeds) == ("tiny", (1, 2), (0, 1))
    assert list(found.arms) == ["scratch", "mae", "other_tool-2"]
    assert found.arms["scratch"] == Arm()


def test_paths_in_the_file_are_relative_to_it_and_those_given_beside_it_are_not(write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file = write(labels="../masks", subjects="/else/subjects.csv")
    given = read_config("here/tiny.yaml", ["test_data=apart", "test=0"])
    assert Path(given.data).resolve() == file.parent / "volumes"
    assert Path(given.labels).resolve() == tmp_path / "masks"
    assert given.subjects == "/else/subjects.csv"
    assert Path(given.test_data).resolve() == tmp_path / "apart"
    assert Path(read_config(file, ["data=volumes"]).data).resolve() == tmp_path / "volumes"


def test_subjects_are_a_table_beside_the_file_or_a_pattern_left_as_it_is(write):
    file = write(subjects="subjects.csv")
    assert Path(read_config(file).subjects) == file.parent / "subjects.csv"
    assert read_config(write(subjects="mouse(\\d+)_")).subjects == "mouse(\\d+)_"


def test_masks_of_another_tool_are_found_from_the_file_too(write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write()
    pattern = read_config("here/tiny.yaml").arms["other_tool-2"].predictions
    assert Path(pattern).resolve() == tmp_path / "here/masks/{labels}/{seed}"


def test_weights_that_are_there_are_found_from_the_file_too(write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write(arms=with_arm(pretrained="../runs/mae"))
    found = read_config("here/tiny.yaml", ["arms.scratch.finetune.clip_norm=5"])
    assert Path(found.arms["mine"].pretrained).resolve() == tmp_path / "runs/mae"
    assert [cell.labels for cell in cells(found) if cell.arm == "mine"] == [1, 2] * 2
    elsewhere = read_config("here/tiny.yaml", ["arms.mine.pretrained=runs/mae"])
    assert elsewhere.arms["mine"] == found.arms["mine"]


def test_a_comparison_is_the_same_from_wherever_it_is_called(write, monkeypatch, tmp_path):
    write()
    monkeypatch.chdir(tmp_path)
    before = read_config("here/tiny.yaml")
    monkeypatch.chdir(tmp_path / "here")
    check_same(before, read_config("tiny.yaml"), tmp_path)


def test_what_a_comparison_keeps_of_its_settings_can_be_given_again(write, monkeypatch, tmp_path):
    """As the message of a refusal says."""
    write()
    monkeypatch.chdir(tmp_path)
    config = read_config("here/tiny.yaml")
    (tmp_path / "out").mkdir()
    write_yaml(tmp_path / "out/comparison.yaml", config)
    check_same(config, read_config("out/comparison.yaml"), tmp_path)


def test_an_assignment_wins_over_the_file(write):
    given = read_config(write(), ["finetune.steps=9", "arms.mae.pretrain.steps=8", "seeds=[5]"])
    assert finetune_config(given, "scratch", 5).steps == 9
    assert pretrain_config(given, "mae", 5).steps == 8
    assert given.seeds == (5,)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_comparison_of_fewvox_s_own_is_found_by_its_name(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    needed = ["data=volumes"]
    if "pretrained: true" in file.read_text():
        needed.append("pretrained=run")
    if "test" not in yaml.safe_load(file.read_text()):
        needed.append("test_data=more")
    found = read_config(file.stem, needed)
    assert found.name == file.stem
    assert Path(found.data).resolve() == tmp_path / "volumes"
    # a table, or a pattern
    assert found.subjects is None or not is_table(found.subjects) or Path(found.subjects).is_file()
    assert found.baseline in found.arms


def test_the_names_that_were_promised_are_there():
    assert {file.stem for file in CONFIGS.glob("*.yaml")} >= {"demo", "hippocampus"}


def test_a_file_wins_over_a_name(write, monkeypatch, tmp_path):
    (tmp_path / "demo").write_bytes(write().read_bytes())
    monkeypatch.chdir(tmp_path)
    assert read_config("demo").name == "tiny"


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"hipocampus: no such file.*frozen_nuclei, hippocampus"):
        read_config("hipocampus")


def test_an_arm_overrides_what_it_names_and_nothing_else(write):
    config = read_config(write())
    shared, own = finetune_config(config, "scratch", 3), finetune_config(config, "mae", 3)
    assert (shared.optimizer.name, shared.optimizer.lr) == ("sgd", 0.1)
    assert (own.optimizer.name, own.optimizer.lr) == ("sgd", 0.5)
    assert replace(own, optimizer=shared.optimizer) == shared
    assert (own.steps, own.width, own.seed) == (3, 4, 3)
    assert config.finetune == GOOD["finetune"], "the shared settings stay as they were"


def test_pretraining_and_fine_tuning_have_one_width_and_seed(write):
    config = read_config(write())
    before = pretrain_config(config, "mae", 1)
    assert (before.method, before.steps, before.width, before.seed) == ("mae", 7, 4, 1)


def test_cells_go_seed_by_seed_and_pretraining_comes_first(write):
    found = [str(cell) for cell in cells(read_config(write()))]
    of_seed = [
        "mae, pretraining, seed {}",
        *(f"{arm}, {n} labels, seed {{}}" for n in (1, 2) for arm in ("scratch", "mae", "other_tool-2")),
    ]
    assert found == [told.format(seed) for seed in (0, 1) for told in of_seed]


def test_every_cell_has_a_folder_of_its_own(write):
    paths = [cell.path for cell in cells(read_config(write()))]
    assert len(set(paths)) == len(paths)
    assert Cell(arm="mae", labels=None, seed=1).path == Path("mae/seed_1")
    assert Cell(arm="mae", labels=2, seed=1).path == Path("mae/labels_2/seed_1")


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": [0, 1, 2]},
        {"seeds": [1]},
        {"label_counts": [4, 1, 2]},
        {"arms": GOOD["arms"] | {"triplet": {"pretrain": {"method": "triplet"}}}},
        {"arms": {"scratch": {}}},
        {"confidence": 0.9},
        {"pictures": 0},
        {"tolerance": 2.0},
    ],
)
def test_a_comparison_can_grow(write, tmp_path, changes):
    check_same(read_config(write()), read_config(write(**changes)), tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "other"}, "name"),
        ({"data": "elsewhere"}, "data"),
        ({"labels": "elsewhere"}, "labels"),
        ({"subjects": "subjects.csv"}, "subjects"),
        ({"spacing": [1, 1, 1]}, "spacing"),
        ({"unit": "um"}, "unit"),
        ({"label_kind": "instances"}, "label_kind"),
        ({"budget": "cpu"}, "budget"),
        ({"test": 3}, "test"),
        ({"test": 0, "test_data": "more"}, "test, test_data"),
        ({"split_seed": 1}, "split_seed"),
        ({"width": 8}, "width"),
        ({"finetune": {"steps": 4}}, "finetune"),
        ({"arms": GOOD["arms"] | {"mae": {"pretrain": {"method": "mae", "steps": 8}}}}, "arms.mae"),
        ({"arms": {"scratch": {"finetune": {"steps": 1}}}}, "arms.scratch"),
    ],
)
def test_what_was_run_is_never_mixed_with_something_else(write, tmp_path, changes, told):
    before = read_config(write())
    with pytest.raises(UserError, match=f"another comparison: {re.escape(told)} differ"):
        check_same(before, read_config(write(**changes)), tmp_path)


def test_settings_survive_their_file(write, tmp_path):
    config = read_config(write())
    write_yaml(tmp_path / "comparison.yaml", config)
    assert read_yaml(tmp_path / "comparison.yaml", ComparisonConfig) == config


def test_the_arms_of_the_study_of_schedules_share_the_weights_that_are_given(tmp_path):
    config = read_config("schedules", [f"data={tmp_path}", f"pretrained={tmp_path / 'run'}"])
    weights = {name: weights_of(config, name) for name in config.arms}
    scratch = {"scratch", "scratch-sawtooth", "scratch-half-rate"}
    assert {name for name, path in weights.items() if path is None} == scratch
    assert {path for path in weights.values() if path} == {str(tmp_path / "run")}
    with pytest.raises(UserError, match="the weights of the comparison, which names none"):
        read_config("schedules", [f"data={tmp_path}"])


def test_what_all_arms_share_of_loading_weights_is_for_those_that_have_some(write):
    shared = {"load": "encoder", "accept_mismatch": True, "expected_share": 0.5, "steps": 3}
    config = read_config(write(finetune=shared))
    assert finetune_config(config, "scratch", 0) == FinetuneConfig(steps=3, width=4)
    mae = finetune_config(config, "mae", 0)
    assert (mae.load, mae.accept_mismatch, mae.expected_share, mae.steps) == ("encoder", True, 0.5, 3)


def test_keep_is_shared_where_the_arm_from_scratch_takes_it_back(write):
    arms = GOOD["arms"] | {"scratch": {"finetune": {"keep": {"l2sp": 0}}}}
    config = read_config(write(finetune={"keep": {"l2sp": 0.1}}, arms=arms))
    assert finetune_config(config, "mae", 0).keep.l2sp == 0.1


def test_the_study_of_networks_trains_them_alike(tmp_path):
    config = read_config("networks", [f"data={tmp_path}"])
    trained = {name: finetune_config(config, name, 0) for name in config.arms}
    assert config.compare_networks
    assert len({c.network for c in trained.values()}) == len(config.arms)
    alike = [replace(c, network=None) for c in trained.values()]
    assert all(c == alike[0] for c in alike)


@pytest.mark.parametrize("name", ["frozen_hippocampus", "frozen_nuclei"])
def test_the_studies_of_frozen_encoders_train_them_alike(name, tmp_path, monkeypatch):
    """But for the weights and what may follow them; the network from scratch is no frozen one."""
    monkeypatch.chdir(tmp_path)
    config = read_config(name, [f"data={tmp_path}", "arms.mae-frozen.pretrained=runs/mae"])
    frozen = {name for name in config.arms if name != "scratch"}
    assert {name.removesuffix("-frozen") for name in frozen} == {"random", "triplet", "dino", "mae"}
    trained = {name: finetune_config(config, name, 0) for name in config.arms}
    assert {name for name, c in trained.items() if c.schedule.name == "frozen"} == frozen
    assert {name for name, c in trained.items() if c.load == "encoder"} == frozen - {config.baseline}
    alike = [replace(c, schedule=trained["scratch"].schedule, load="both") for c in trained.values()]
    assert all(c == alike[0] for c in alike)
    weights = {weights_of(config, arm) for arm in frozen - {config.baseline}}
    assert len(weights) == 3
    assert weights_of(config, "mae-frozen") == str(tmp_path / "runs" / "mae")
