"""Each kind of collapse is recognised by what it leaves behind, and a healthy training is left alone."""

import json
import math
from dataclasses import replace

import pytest
from fewvox.ssl.collapse import COLLAPSE_FILE, CollapseWatch, diagnose, read_collapse
from fewvox.ssl.monitors import EmbeddingMeasures

HEALTHY = EmbeddingMeasures(spread=0.8, effective_rank=9.0, retrieval=0.7, chance=0.1)
LN_K = math.log(256)


def steps(number=20, **values):
    return [values] * number


@pytest.mark.parametrize(
    ("measures", "recent", "resting", "kind"),
    [
        (HEALTHY, steps(loss=0.1), 0.2, None),
        (replace(HEALTHY, spread=0.05), [], None, "complete"),
        (replace(HEALTHY, effective_rank=1.5), [], None, "dimensional"),
        (HEALTHY, steps(loss=0.2), 0.2, "resting"),
        (replace(HEALTHY, spread=None, effective_rank=1.5), [], None, "dimensional"),
        (HEALTHY, [*steps(19, loss=0.2), {"loss": 0.19}], 0.2, None),
        (HEALTHY, steps(9, loss=0.2), 0.2, None),
        (HEALTHY, steps(loss=5.0, teacher_information=0.001, teacher_entropy=LN_K), LN_K, "centring"),
        (HEALTHY, steps(loss=5.0, teacher_information=0.001, teacher_entropy=3.0), LN_K, "centring"),
        (HEALTHY, steps(loss=0.0, teacher_information=0.001, teacher_entropy=0.01), LN_K, "sharpening"),
        (HEALTHY, steps(loss=0.0, teacher_information=1.3, teacher_entropy=0.01), LN_K, None),
        (HEALTHY, steps(9, loss=5.0, teacher_information=0.0, teacher_entropy=0.0), LN_K, None),
        (
            replace(HEALTHY, spread=0.01),
            steps(loss=0.0, teacher_information=0.0, teacher_entropy=0.0),
            LN_K,
            "sharpening",
        ),
    ],
)
def test_what_is_found(measures, recent, resting, kind):
    found = diagnose(17, measures, recent, resting, 11)
    assert (found and found.kind) == kind
    if found:
        assert found.step == 17
        assert found.found
        assert found.remedy
        assert found.line().startswith(f"collapsed ({kind}) at step 17: ")


def test_few_steps_volumes_or_dimensions_are_no_collapse():
    """Before ten steps nothing is judged; three volumes that are told apart have a rank of 2 at most."""
    assert diagnose(9, replace(HEALTHY, spread=0.01), [], None, 11) is None
    assert diagnose(99, replace(HEALTHY, effective_rank=1.99), [], None, 3) is None
    found = diagnose(99, replace(HEALTHY, effective_rank=1.99), [], None, 4)
    assert found is not None
    assert found.kind == "dimensional"


def test_features_that_are_pooled_to_be_watched_may_have_any_rank():
    pooled = replace(HEALTHY, spread=None, effective_rank=1.1)
    assert diagnose(99, pooled, steps(loss=0.1), 0.2, None) is None
    found = diagnose(99, pooled, steps(loss=0.2), 0.2, None)
    assert found is not None
    assert found.kind == "resting"


def test_a_teacher_whose_loss_is_near_ln_k_may_still_tell_views_apart():
    assert (
        diagnose(99, HEALTHY, steps(loss=LN_K, teacher_information=0.4, teacher_entropy=5.0), LN_K, 11)
        is None
    )


def test_a_teacher_within_a_sum_is_judged_by_its_own_numbers():
    of_dino = {"dino/teacher_information": 0.001, "dino/teacher_entropy": 0.01}
    of_byol = {"other/teacher_information": 1.3, "other/teacher_entropy": 2.0}
    found = diagnose(99, HEALTHY, steps(loss=1.0, **of_byol, **of_dino), None, 11)
    assert found is not None
    assert found.kind == "sharpening"
    assert "the teacher of dino says the same of every view" in found.found
    assert diagnose(99, HEALTHY, steps(loss=1.0, **of_byol), None, 11) is None


@pytest.fixture
def run(tmp_path):
    """The folder of a run whose loss was so at each step."""

    def make(losses) -> CollapseWatch:
        lines = [json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in enumerate(losses)]
        (tmp_path / "metrics.jsonl").write_text("".join(lines))
        return CollapseWatch(tmp_path, 0.2)

    return make


def test_a_look_judges_the_last_half_of_the_steps(run, tmp_path, caplog):
    assert run([0.2] * 30 + [0.1] * 10).look(HEALTHY, 11) is None
    assert read_collapse(tmp_path) is None
    found = run([0.1] * 30 + [0.2] * 30).look(HEALTHY, 11)
    assert found is not None
    assert (found.kind, found.step) == ("resting", 60)
    assert read_collapse(tmp_path) == found
    assert "collapsed (resting) at step 60" in caplog.text


def test_of_many_steps_only_the_last_ones_count(run):
    assert run([0.2] * 1000 + [0.1] * 50).look(HEALTHY, 11) is None
    assert run([0.1] * 1000 + [0.2] * 50).look(HEALTHY, 11) is not None


def test_a_run_that_has_recovered_is_marked_no_longer(run, tmp_path):
    watch = run([0.2] * 40)
    assert watch.look(HEALTHY, 11) is not None
    assert run([0.2] * 40 + [0.1] * 40).look(HEALTHY, 11) is None
    assert read_collapse(tmp_path) is None


def test_a_run_without_steps_or_looks_is_not_marked(run, tmp_path):
    assert run([]).look(HEALTHY, 11) is None
    (tmp_path / COLLAPSE_FILE).unlink()
    assert read_collapse(tmp_path) is None
