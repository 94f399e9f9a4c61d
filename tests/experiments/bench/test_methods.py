"""A step of a method beside a supervised one: that both are steps, and how the costs are recorded."""

from pathlib import Path

import pytest
import torch
from fewvox.data.csv_table import read_rows
from fewvox.experiments.bench import methods as benching
from fewvox.experiments.bench.bench import PARTS
from fewvox.experiments.bench.figure import Figure
from fewvox.experiments.bench.methods import (
    COLUMNS,
    MethodSizes,
    method_figures,
    pretext_step,
    supervised_step,
    views,
    write_costs,
)
from fewvox.ssl.method import METHODS, find_method

SIZES = MethodSizes(patch=(8, 8, 8), strides=((2, 2, 2),), width=4, batch=2)


@pytest.fixture
def learned(monkeypatch):
    """What every step moved: pairs of a task and its weights before and after."""
    moved = []
    learn = benching.learn

    def watched(state, *rest):
        before = [p.detach().clone() for p in state.task.parameters()]
        found = learn(state, *rest)
        moved.append((state, before, [p.detach().clone() for p in state.task.parameters()]))
        assert found.useful
        return found

    monkeypatch.setattr(benching, "learn", watched)
    return moved


@pytest.mark.parametrize("name", ["mae", "triplet"])
def test_both_are_steps_that_move_the_same_network(learned, name):
    pretext_step(find_method(name), SIZES)(0)
    supervised_step(SIZES)(0)
    for _, before, after in learned:
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    ours, theirs = (state.network.state_dict() for state, _, _ in learned)
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}


def test_what_follows_a_step_is_part_of_it(monkeypatch):
    followed = []
    monkeypatch.setattr(METHODS["mae"].method, "after_step", lambda self, step: followed.append(step))
    step = pretext_step(find_method("mae"), SIZES)
    step(0)
    step(1)
    assert followed == [0, 1]


@pytest.mark.parametrize("name", ["mae", "triplet"])
def test_a_method_is_given_the_views_that_it_asks_for(name):
    registered = find_method(name)
    found = views(registered, SIZES)
    assert len(found.views) == registered.method.views(registered.config()).count
    assert all(view.shape == (2, 1, 8, 8, 8) for view in found.views)
    assert len({view.numpy().tobytes() for view in found.views}) == len(found.views)
    assert found.views[0].mean().abs() < 0.1


def test_figures_are_a_method_s_seconds_beside_supervised_ones():
    (figure,) = method_figures(1, ["mae"], SIZES)
    assert figure.work == "a step of mae (2 x 8 x 8 x 8, 1 poolings, width 4)"
    assert figure.peer == "a supervised step"
    assert figure.ours > 0
    assert figure.theirs is not None
    assert figure.theirs > 0
    assert PARTS["methods"] is method_figures


def figure(ours: float, theirs: float) -> Figure:
    return Figure(what="methods", work="a step", ours=ours, peer="a supervised step", theirs=theirs)


def test_costs_are_recorded_with_their_origin_and_those_of_other_methods_stay(tmp_path: Path, monkeypatch):
    file = tmp_path / "costs.csv"
    monkeypatch.setattr(benching, "_commit", lambda: "abc1234")
    write_costs(file, {"triplet": figure(3.0, 1.5), "mae": figure(1.0, 0.8)}, SIZES, "a command")
    monkeypatch.setattr(benching, "_commit", lambda: "def5678")
    write_costs(file, {"mae": figure(1.0, 0.5)}, SIZES, "another")
    rows = {row["method"]: row for row in read_rows(file, COLUMNS)}
    assert list(rows) == ["mae", "triplet"]
    assert (rows["mae"]["cost"], rows["mae"]["commit"], rows["mae"]["command"]) == (
        "2.00",
        "def5678",
        "another",
    )
    assert (rows["triplet"]["cost"], rows["triplet"]["commit"]) == ("2.00", "abc1234")
    assert (rows["mae"]["seconds"], rows["mae"]["supervised_seconds"]) == ("1.000", "0.500")
    assert "torch" in rows["mae"]["machine"]


def test_a_method_that_is_gone_is_left_out(tmp_path):
    file = tmp_path / "costs.csv"
    write_costs(file, {"mae": figure(1.0, 0.5)}, SIZES, "a command")
    file.write_text(file.read_text().replace("mae", "gone"))
    write_costs(file, {"triplet": figure(1.0, 0.5)}, SIZES, "a command")
    assert [row["method"] for row in read_rows(file, COLUMNS)] == ["triplet"]


def test_the_command_measures_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benching, "method_figures", lambda runs, names, sizes: [figure(3.0, 2.0)])
    benching.main(method=["mae"], runs=1, out=tmp_path / "costs.csv")
    assert "mae: 1.50 x a supervised step" in capsys.readouterr().out
    (row,) = read_rows(tmp_path / "costs.csv", COLUMNS)
    assert row["command"].startswith("python -m fewvox.experiments.bench.methods")


def test_the_network_is_small_and_its_size_is_told_right():
    from fewvox.seg.networks.registry import build

    network = build(MethodSizes().situation.architecture)
    assert 1.3e6 < sum(p.numel() for p in network.parameters()) < 1.5e6
