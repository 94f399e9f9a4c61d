"""The pretext methods there are, each with where it is from, what it trains, and what a step of it costs."""

from dataclasses import dataclass
from pathlib import Path

from ..data.csv_table import read_rows
from ..ssl.method import PLUGINS
from ..ssl.methods.registry import METHODS
from .comparison import CONFIGS

# written by experiments/bench/methods.py
COSTS = CONFIGS / "method_costs.csv"


@dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """What `fewvox methods` tells of a method.

    `trains` is what of the network its loss reaches with the default settings. `cost` is the time of a
    training step relative to supervised training, None where it was not measured; `package` the one that
    offers the method, None for ours.
    """

    name: str
    summary: str
    source: str
    trains: tuple[str, ...]
    cost: float | None
    package: str | None


def method_facts() -> tuple[MethodFacts, ...]:
    """All methods in the table, by name; packages' own are in it once they are loaded."""
    measured = costs()
    return tuple(
        MethodFacts(
            name=name,
            summary=registered.summary,
            source=registered.method.source,
            trains=registered.method.trains,
            cost=measured.get(name) if PLUGINS.package(name) is None else None,
            package=PLUGINS.package(name),
        )
        for name, registered in sorted(METHODS.items())
    )


def costs(file: Path = COSTS) -> dict[str, float]:
    """The time of a step of each method that was measured, relative to a supervised one."""
    return {row["method"]: float(row["cost"]) for row in read_rows(file, ("method", "cost"))}
