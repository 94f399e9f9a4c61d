"""What is told of the methods, and that what they cost is told of methods that there are."""

import re
from dataclasses import replace

import pytest
from fewvox.data.csv_table import read_rows
from fewvox.experiments.bench.methods import COLUMNS
from fewvox.experiments.method_list import COSTS, costs, method_facts
from fewvox.experiments.tables import methods_table
from fewvox.ssl.methods.registry import METHODS
from rich.console import Console


def test_every_recorded_cost_is_of_a_method_that_there_is_and_says_where_it_is_from():
    rows = read_rows(COSTS, COLUMNS)
    names = [row["method"] for row in rows]
    assert set(names) <= set(METHODS)
    assert names == sorted(set(names))
    for row in rows:
        ratio = float(row["seconds"]) / float(row["supervised_seconds"])
        assert float(row["cost"]) == pytest.approx(ratio, abs=0.02)
        assert "-m fewvox.experiments.bench.methods" in row["command"]
        assert all(row[column] for column in COLUMNS)


def test_costs_are_read_from_the_table(tmp_path):
    (tmp_path / "costs.csv").write_text("method,cost,machine\nmae,1.25,here\n")
    assert costs(tmp_path / "costs.csv") == {"mae": 1.25}


def test_the_facts_are_those_of_the_table_of_methods():
    facts = method_facts()
    assert [fact.name for fact in facts] == sorted(METHODS)
    for fact in facts:
        method = METHODS[fact.name].method
        assert (fact.source, fact.trains, fact.package) == (method.source, method.trains, None)
        assert fact.summary.endswith(".")


def test_a_cost_that_was_not_measured_is_a_dash():
    mae = next(fact for fact in method_facts() if fact.name == "mae")
    console = Console(width=160)
    with console.capture() as shown:
        console.print(methods_table([replace(mae, cost=None), replace(mae, name="other", cost=1.26)]))
    lines = [" ".join(line.split()) for line in shown.get().splitlines()]
    assert lines[1] == f"mae {mae.summary} encoder, decoder -"
    assert lines[2] == mae.source
    assert re.fullmatch(r"other .* 1\.3", lines[3])
