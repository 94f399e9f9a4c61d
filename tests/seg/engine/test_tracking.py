"""Metrics of a run that is stopped and continued."""

import json

import pytest
from fewvox.seg.engine.tracking import METRICS_FILE, Tracker, read_metrics
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def record(run, first, last, resume_at=0, value=0.5):
    tracker = Tracker(run, resume_at)
    for step in range(first, last):
        tracker.log(step, {"loss": value})
    tracker.close()


def test_what_is_recorded_is_read_back(tmp_path):
    record(tmp_path, 0, 3)
    assert read_metrics(tmp_path) == [{"step": i, "loss": 0.5} for i in range(3)]


def test_a_resumed_run_drops_the_steps_it_makes_again(tmp_path):
    record(tmp_path, 0, 8)
    record(tmp_path, 5, 7, resume_at=5, value=0.25)
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in lines] == [0.5] * 5 + [0.25] * 2


def test_a_run_that_starts_again_from_the_first_step_has_no_old_lines(tmp_path):
    record(tmp_path, 0, 3)
    record(tmp_path, 0, 1)
    assert [line["step"] for line in read_metrics(tmp_path)] == [0]


def test_a_last_line_that_a_killed_run_left_incomplete_is_passed_over(tmp_path):
    record(tmp_path, 0, 3)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 3, "lo')
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2]
    record(tmp_path, 3, 5, resume_at=3)
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2, 3, 4]


def test_every_line_is_on_disk_before_the_next_step(tmp_path):
    tracker = Tracker(tmp_path, 0)
    tracker.log(0, {"loss": 1.0})
    assert json.loads((tmp_path / METRICS_FILE).read_text()) == {"step": 0, "loss": 1.0}
    tracker.close()


def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path):
    record(tmp_path, 0, 8)
    record(tmp_path, 5, 7, resume_at=5, value=0.25)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(e.step, e.value) for e in events] == [(i, 0.5) for i in range(5)] + [(5, 0.25), (6, 0.25)]


def test_tensorboard_forgets_the_steps_of_a_run_that_died_before_its_first_checkpoint(tmp_path):
    record(tmp_path, 0, 3)
    record(tmp_path, 0, 1, value=0.25)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [0]


@pytest.mark.parametrize("last", [1, 3, 2000, 5000])
def test_the_last_lines_are_those_at_the_end_of_all(tmp_path, last):
    lines = [json.dumps({"step": step, "name": "é" * (step % 90)}) + "\n" for step in range(3000)]
    (tmp_path / METRICS_FILE).write_text("".join(lines) + '{"step": 30', encoding="utf-8")
    assert read_metrics(tmp_path, last) == read_metrics(tmp_path)[-last:]
    assert read_metrics(tmp_path, last)[-1]["step"] == 2999
