"""The folder of a training: what it holds, and when it is neither started over nor continued."""

import json

import pytest
from fewvox.data.plan import Plan
from fewvox.data.settings import parse, read_yaml
from fewvox.seg import run
from fewvox.seg.engine.loop import LoopConfig
from fewvox.seg.engine.optimisers import OptimiserConfig
from fewvox.seg.finetune import FinetuneConfig
from fewvox.seg.run import RunError
from fewvox.seg.training import TrainingConfig

CONFIG = LoopConfig(steps=20, optimizer=OptimiserConfig(name="sgd", lr=1e-5))
SPLIT = {"train": ["a", "b"], "validation": [], "test": ["c"]}


@pytest.fixture
def started(tmp_path, make_plan):
    run.start(tmp_path / "run", CONFIG, make_plan(), SPLIT)
    return tmp_path / "run"


def test_a_run_holds_what_it_was_given(started, make_plan):
    assert read_yaml(started / "plan.yaml", Plan) == make_plan()
    assert read_yaml(started / "config.yaml", LoopConfig) == CONFIG
    assert json.loads((started / "split.json").read_text()) == SPLIT
    environment = json.loads((started / "environment.json").read_text())
    assert {"python", "platform", "torch", "numpy", "fewvox", "device", "threads"} <= environment.keys()


def test_a_run_is_never_written_over(started, make_plan):
    before = {path.name: path.read_bytes() for path in started.iterdir()}
    with pytest.raises(RunError, match=r"not empty.*--resume"):
        run.start(started, LoopConfig(), make_plan(), SPLIT)
    assert {path.name: path.read_bytes() for path in started.iterdir()} == before


def test_an_empty_folder_may_become_a_run(tmp_path, make_plan):
    (tmp_path / "run").mkdir()
    run.start(tmp_path / "run", CONFIG, make_plan(), SPLIT)
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_the_same_settings_continue_a_run(started):
    run.check_resumable(started, CONFIG, SPLIT)


def test_another_number_of_workers_continues_a_run(tmp_path, make_plan):
    """A batch does not depend on who makes it."""
    run.start(tmp_path / "run", TrainingConfig(workers=0), make_plan(), SPLIT)
    run.check_resumable(tmp_path / "run", TrainingConfig(workers=2), SPLIT)


def test_pictures_may_be_left_out_of_a_run_that_is_continued(tmp_path, make_plan):
    run.start(tmp_path / "run", FinetuneConfig(), make_plan(), SPLIT)
    run.check_resumable(tmp_path / "run", FinetuneConfig(pictures=False, validate_patches_every=5), SPLIT)


def test_a_run_of_an_earlier_version_is_told_as_such(started):
    with pytest.raises(RunError, match=r"earlier version, without the setting batch.*Finish it with that"):
        run.check_resumable(started, TrainingConfig(), SPLIT)


def test_changed_settings_and_cases_are_all_named(started):
    changed = LoopConfig(steps=40, optimizer=OptimiserConfig(name="sgd", lr=0.5), clip_norm=1.0)
    with pytest.raises(RunError) as error:
        run.check_resumable(started, changed, SPLIT | {"train": ["a"]})
    for part in (
        "steps was 20, is 40",
        "optimizer was",
        "clip_norm was 12.0, is 1.0",
        "the cases are others",
    ):
        assert part in error.value.found


def test_another_order_of_operations_is_another_training(tmp_path, make_plan):
    def config(*names: str) -> FinetuneConfig:
        chain = {name: {"op": name} for name in names}
        return parse(FinetuneConfig, {"patches": {"augment": {"preset": "none", "chain": chain}}}, "here")

    run.start(tmp_path / "run", config("blur", "noise"), make_plan(), SPLIT)
    run.check_resumable(tmp_path / "run", config("blur", "noise"), SPLIT)
    with pytest.raises(RunError, match="patches was"):
        run.check_resumable(tmp_path / "run", config("noise", "blur"), SPLIT)


@pytest.mark.parametrize("folder", [True, False])
def test_there_must_be_a_run_to_continue(tmp_path, folder):
    if folder:
        (tmp_path / "run").mkdir()
    with pytest.raises(RunError, match="no run to continue"):
        run.check_resumable(tmp_path / "run", CONFIG, SPLIT)


def test_a_run_without_a_checkpoint_says_so(started):
    assert not run.has_checkpoint(started)


def test_a_run_killed_at_its_very_start_can_be_started_again(tmp_path, make_plan, monkeypatch):
    def die():
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "environment", die)
    with pytest.raises(KeyboardInterrupt):
        run.start(tmp_path / "run", CONFIG, make_plan(), SPLIT)
    monkeypatch.undo()
    run.start(tmp_path / "run", CONFIG, make_plan(), SPLIT)


def test_what_was_accepted_in_the_data_stands_in_the_run(tmp_path, make_plan):
    run.start(tmp_path / "run", CONFIG, make_plan(), SPLIT, records=("accepted: a",))
    assert json.loads((tmp_path / "run/data.json").read_text()) == ["accepted: a"]
    run.start(tmp_path / "none", CONFIG, make_plan(), SPLIT)
    assert not (tmp_path / "none/data.json").exists()
