"""Two processes find, each on half of a batch, what one finds on the whole of it."""

import runpy
import signal
from pathlib import Path

import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.seg.engine.distributed import everyone, first_to_fail, process_group, rank
from fewvox.seg.engine.launch import Launch, launched
from fewvox.seg.training import choose_device

SCRIPT = Path(__file__).with_name("two_processes.py")
one = runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def two(in_two_processes):
    """What each of two processes found; the second is killed in the end."""
    return in_two_processes(SCRIPT, statuses=(0, -signal.SIGKILL))


def test_what_a_process_has_reaches_all_and_the_first_works_for_all(two):
    for number, found in enumerate(two):
        assert found["exchanged"]["everyone"] == [("of", 0), ("of", 1)]
        assert found["exchanged"]["by_the_first"] == "made"
        assert found["exchanged"]["called"] == [0] * (number == 0)
        assert found["exchanged"]["highest"] == 10


def test_gradients_are_averaged_where_any_process_has_one(two):
    for found in two:
        both, second_alone, nobody, frozen = found["exchanged"]["gradients"]
        assert both.tolist() == [1.5, 3.0]
        assert second_alone.tolist() == [2.0, 3.0]
        assert nobody is None
        assert frozen is None


def test_a_sum_over_processes_has_the_summed_gradient_and_overwrites_none(two):
    for found in two:
        assert found["exchanged"]["total"].tolist() == [3.0, 6.0]
        assert found["exchanged"]["leaf"].tolist() == [3.0, 3.0]


@pytest.mark.parametrize("kind", ["learned", "accumulated"])
def test_a_step_of_two_is_that_of_one_on_the_union(two, kind):
    expected = one["learned"]([one["numbers"](0, 4)])
    for found in two:
        made = found[kind]
        assert made["useful"]
        assert made["cases"] == expected["cases"]
        assert made["loss"] == pytest.approx(expected["loss"], rel=1e-6)
        assert made["norm"] == pytest.approx(expected["norm"], rel=1e-6)
        torch.testing.assert_close(made["weights"]["network.weight"], expected["weights"]["network.weight"])
        # not even decayed
        unused = made["weights"]["unused.weight"]
        assert torch.equal(unused, expected["weights"]["unused.weight"])
    assert str(two[0][kind]) == str(two[1][kind])
    firsts = [one["numbers"](k, 4).inputs[0, 0] for k in (0, 2)]
    assert two[0]["learned"]["logs"] == {"first": pytest.approx(float(sum(firsts)) / 2), "number": 0}


def test_a_number_is_averaged_over_the_batches_that_have_it_in_whichever_process(two):
    """Two batches of the first process, one of the second."""
    for found in two:
        assert found["accumulated"]["logs"]["number"] == pytest.approx((0 + 1 + 3) / 3)


def test_a_batch_that_spoils_the_step_of_one_process_is_skipped_by_both(two):
    before = one["Line"]().state_dict()
    for found in two:
        assert not found["spoilt"]["useful"]
        assert not found["spoilt"]["overflow"]
        assert found["spoilt"]["cases"] == ("c2", "c3")
        assert all(torch.equal(found["spoilt"]["weights"][name], before[name]) for name in before)


def test_an_overflow_in_one_process_lowers_the_scale_of_both(two):
    for found in two:
        assert (found["overflown"]["useful"], found["overflown"]["overflow"]) == (False, True)
        assert found["overflown"]["scale"] == 2.0**15


@pytest.mark.parametrize("number", range(len(one["LOSSES"])), ids=[str(c) for c in one["LOSSES"]])
def test_the_loss_of_two_is_that_of_one_on_the_union(two, number):
    """Their items are annotated in part, one of them nowhere: a mean of means would be another."""
    loss, gradient = one["losses"](slice(0, 4))[number]
    for found in two:
        torch.testing.assert_close(found["losses"][number][0], loss)
        torch.testing.assert_close(found["losses"][number][1], gradient)


def test_distillation_of_two_is_that_of_one_on_the_union(two):
    loss, gradients = one["kept"](slice(0, 4))
    for found in two:
        torch.testing.assert_close(found["kept"][0], loss)
        torch.testing.assert_close(found["kept"][1], gradients, rtol=1e-4, atol=1e-6)


def test_each_process_draws_random_numbers_of_its_own_and_the_first_those_of_one(two):
    expected = one["drawn"]()
    assert torch.equal(two[0]["drawn"][0], expected[0])
    assert not torch.equal(two[1]["drawn"][0], expected[0])
    for found in two:
        assert torch.equal(found["drawn"][1][0], expected[1][0])
        assert torch.equal(found["drawn"][1][1], two[0]["drawn"][1][1])
        assert not torch.equal(*found["drawn"][1])


def test_a_process_that_was_killed_is_missed_at_once_and_told_of(two):
    assert two[1]["died"] is None
    assert "process 0 of 2: another one has ended" in two[0]["died"]
    assert "--resume" in two[0]["died"]
    assert two[0]["first"]


def test_one_process_needs_no_group(monkeypatch):
    # as a container may set it, for others than us
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert launched() == Launch()
    with process_group():
        assert (rank(), everyone("x")) == (0, ["x"])
    assert first_to_fail()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in {
        "TORCHELASTIC_RUN_ID": "x", "RANK": 3, "LOCAL_RANK": 1, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    assert launched() == Launch(rank=3, local_rank=1, processes=4, local_processes=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"2 processes: 1 GPUs.*--nproc-per-node 1.*device=cpu"):
        choose_device("auto")
    assert choose_device("cpu") == torch.device("cpu")
