"""Two processes learn, each from half of a batch, what one learns from the whole of it."""

import runpy
from pathlib import Path

import pytest
import torch
from fewvox.seg import checkpoint
from fewvox.seg.engine.tracking import read_metrics
from fewvox.ssl.method_checks import fresh, tiny_batch
from fewvox.ssl.methods.registry import METHODS
from torch import nn

SCRIPT = Path(__file__).with_name("two_processes.py")
one = runpy.run_path(str(SCRIPT))
TRAININGS = (*one["SMALL"], "finetuned")


def draws(name) -> bool:
    """Whether the method draws random numbers: those of two batches are others than those of one."""
    batch, other = (tiny_batch(METHODS[name], one["SITUATION"], 0) for _ in range(2))
    object.__setattr__(other, "seed", batch.seed + 1)
    with torch.no_grad():
        losses = [fresh(METHODS[name], one["SITUATION"]).train()(views, 0).loss for views in (batch, other)]
    return not torch.equal(*losses)


@pytest.fixture(scope="module")
def two(in_two_processes, tiny_store, tmp_path_factory):
    """What each of two processes found, and the folder of their runs."""
    out = tmp_path_factory.mktemp("two")
    return in_two_processes(SCRIPT, tiny_store.path, out), out


@pytest.fixture(scope="module")
def alone(tiny_store, tmp_path_factory):
    """The same trainings by one process, and the folder of their runs."""
    out = tmp_path_factory.mktemp("one")
    return one["trainings"](tiny_store.path, out, 4, continued=False), out


def apart(found, expected) -> float:
    """How far tensors by name are apart, as a share of the expected ones."""
    assert found.keys() == expected.keys()
    difference = nn.utils.get_total_norm([found[name] - expected[name] for name in expected])
    return float(difference / nn.utils.get_total_norm(expected.values()))


def learned_by(run) -> dict[str, torch.Tensor]:
    """All weights of a run's last checkpoint: of the network, and of what the task has beside it."""
    last, state = checkpoint.load_training(run)
    beside = {f"beside.{name}": value for name, value in state["task"].items() if value.is_floating_point()}
    return last.tensors | beside


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_mean_gradient_of_two_processes_is_that_of_their_mean_loss(two, name):
    """Along it the loss rises as steeply as the gradient says: what was gathered has come back rightly."""
    first, second = (found["learned"] for found in two[0])
    assert apart(first[name]["gradients"], second[name]["gradients"]) == 0
    norm = float(nn.utils.get_total_norm(first[name]["gradients"].values()))
    assert first[name]["slope"] == pytest.approx(norm, rel=0.05)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_two_processes_learn_what_one_does_from_the_union_of_their_batches(two, name):
    if draws(name):
        pytest.skip("it draws other numbers for two batches than for one")
    expected = one["learned"](METHODS[name])
    found = two[0][0]["learned"][name]
    assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-4)
    assert apart(found["gradients"], expected["gradients"]) < 1e-3
    assert found["held"].keys() == expected["held"].keys()
    for held, tensor in expected["held"].items():
        torch.testing.assert_close(found["held"][held], tensor, rtol=1e-3, atol=1e-5)


def test_triplets_are_compared_with_one_process():
    """Or the test above could skip all."""
    assert not draws("triplet")


@pytest.mark.parametrize("kind", TRAININGS)
def test_a_training_of_two_processes_is_one_of_one_with_a_batch_twice_as_large(two, alone, kind):
    (first, second), out = two
    expected, reference = alone
    assert first[kind] == second[kind]
    if kind in METHODS and draws(kind):
        pytest.skip("it draws other numbers for two batches than for one")
    assert first[kind] == pytest.approx(expected[kind], rel=1e-3, abs=1e-3)
    found, told = (learned_by(folder / kind) for folder in (out, reference))
    # what the second half of the training has changed
    way = apart(learned_by(one["killed"](reference / kind)), told)
    assert apart(found, told) < 0.01 * way
    for found, line in zip(read_metrics(out / kind), read_metrics(reference / kind), strict=True):
        assert found == pytest.approx(line, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("kind", TRAININGS)
def test_two_processes_continue_a_killed_training_bit_for_bit(two, kind, state_differences):
    (first, second), out = two
    whole, continued = out / kind, one["killed"](out / kind)
    assert first[continued.name] == second[continued.name] == first[kind]
    assert first["told"][continued.name].count("step 4") == 1
    assert "step 2" not in first["told"][continued.name]
    assert not state_differences(*(checkpoint.load(run, "last").tensors for run in (continued, whole)))
    assert not state_differences(*(checkpoint.load_state(run) for run in (continued, whole)))
    assert read_metrics(continued) == read_metrics(whole)


@pytest.mark.parametrize("kind", TRAININGS)
def test_the_first_process_alone_writes_and_tells(two, alone, kind):
    (first, second), out = two
    assert second["told"][kind] == []
    told, expected = (
        [line for line in found["told"][kind] if not line.startswith("estimate")]
        for found in (first, alone[0])
    )
    assert told == expected
    files = [
        {path.relative_to(folder) for path in folder.rglob("*") if "events" not in path.name}
        for folder in (out / kind, alone[1] / kind)
    ]
    assert files[0] == files[1]
