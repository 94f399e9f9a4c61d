"""The figures of a bench: what is chosen, and what is written of them."""

import json
import time

import pytest
from fewvox.data.errors import UserError
from fewvox.experiments import api
from fewvox.experiments.bench import bench as benching
from fewvox.experiments.bench.figure import Figure, measured
from fewvox.experiments.tables import bench_table
from rich.console import Console

FASTER = Figure(what="store", work="reading", ours=0.002, peer="theirs", theirs=0.006, key="read_vs_theirs")
SMALLER = Figure(what="store", work="all", ours=5, peer="theirs", theirs=10, unit="bytes", key="bytes_vs")
ABSENT = Figure(what="store", work="x", ours=1, peer="absent", key="x_vs_absent", missing="pip install it[x]")


def test_ratios_are_times_as_fast_and_our_share_of_the_bytes():
    assert FASTER.ratio == pytest.approx(3)
    assert SMALLER.ratio == 0.5
    assert ABSENT.ratio is None


def test_ratios_are_written_by_their_keys(monkeypatch, tmp_path):
    monkeypatch.setattr(benching, "PARTS", {"store": lambda runs: [FASTER, SMALLER, ABSENT]})
    assert api.bench("store", json=tmp_path / "out.json") == (FASTER, SMALLER, ABSENT)
    written = json.loads((tmp_path / "out.json").read_text())
    figures = written.pop("figures")
    assert written == {"read_vs_theirs": pytest.approx(3), "bytes_vs": 0.5, "x_vs_absent": None}
    assert [f["work"] for f in figures] == ["reading", "all", "x"]


def test_all_parts_are_measured_in_turn_and_another_name_is_refused(monkeypatch):
    monkeypatch.setattr(benching, "PARTS", {"a": lambda runs: [FASTER], "b": lambda runs: [SMALLER]})
    assert benching.bench("all") == (FASTER, SMALLER)
    assert benching.bench("b") == (SMALLER,)
    with pytest.raises(UserError, match="There are: a, b, all"):
        benching.bench("stores")


def test_the_table_tells_how_to_have_a_missing_peer():
    console = Console(width=200)
    with console.capture() as shown:
        console.print(bench_table([FASTER, SMALLER, ABSENT]))
    text = shown.get()
    assert "2.0 ms" in text
    assert "3.00" in text
    assert "pip install it[x]" in text


def test_a_run_that_makes_several_items_is_divided_among_them():
    ran = []

    def ours(k: int) -> None:
        ran.append(("ours", k))
        time.sleep(0.02)

    def theirs(k: int) -> None:
        ran.append(("theirs", k))
        time.sleep(0.02)

    figure = measured("what", "work", ours, "peer", theirs, 2, items=4)
    assert ran == [(name, k) for k in range(3) for name in ("ours", "theirs")]
    assert figure.ratio == pytest.approx(4, rel=0.5)
