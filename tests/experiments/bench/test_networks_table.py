"""The table of a comparison of networks; how long a step takes is made up here."""

from dataclasses import replace

import pytest
from fewvox.data.errors import UserError
from fewvox.experiments.bench import training_steps
from fewvox.experiments.bench.networks_table import table
from fewvox.experiments.bench.training_steps import Taken, steps_of
from fewvox.experiments.compare import run_comparison
from fewvox.experiments.comparison import Arm, ComparisonConfig
from fewvox.experiments.results import write_results
from fewvox.seg.networks.registry import build

SECONDS = {"unet": 2.0, "residual_unet": 3.0}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, nifti_folder):
    """Two networks with one and two labels."""
    folder = tmp_path_factory.mktemp("networks")
    config = ComparisonConfig(
        name="tiny",
        data=str(nifti_folder(folder / "data", 8)),
        budget="cpu",
        test=2,
        label_counts=(1, 2),
        seeds=(0,),
        baseline="unet",
        compare_networks=True,
        arms={"unet": Arm(), "deep": Arm(finetune={"network": "residual_unet"})},
        width=4,
        finetune={"steps": 3, "batch": 1, "patch": [8, 16, 8], "device": "cpu", "checkpointing": True},
        pictures=0,
    )
    return run_comparison(config, folder / "out", "test")


@pytest.fixture
def measured(monkeypatch):
    """The networks whose steps were measured, in turn."""
    seen = []

    def apart(steps, trained):
        assert steps is steps_of
        assert (trained.plan.training.patch, trained.plan.training.batch) == ((8, 16, 8), 1)
        assert trained.config.checkpointing
        seen.append(trained.architecture)
        return Taken(seconds=SECONDS[trained.architecture.name], peak_bytes=1)

    monkeypatch.setattr(training_steps, "_apart", apart)
    return seen


def test_each_network_has_its_parameters_step_and_dice(finished, measured):
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table(finished.path).splitlines()[2:]]
    assert [architecture.name for architecture in measured] == ["unet", "residual_unet"] * 3
    assert [row[0] for row in rows] == [f"{a}, {n} labels" for n in (1, 2) for a in ("unet", "deep")]
    assert [row[2:4] for row in rows] == [["2.000", "1.00"], ["3.000", "1.50"]] * 2
    for row, architecture in zip(rows, measured[:2] * 2, strict=True):
        millions = sum(p.numel() for p in build(architecture).parameters()) / 1e6
        assert row[1] == f"{millions:.2f}"
    summary = next(s.dice for s in finished.results.summaries if (s.arm, s.labels) == ("deep", 2))
    assert rows[3][4] == f"{summary.mean:.3f} [{summary.low:.3f}, {summary.high:.3f}]"
    difference = next(d.dice for d in finished.results.differences if d.labels == 2)
    assert rows[3][5] == f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
    assert rows[2][5] == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"status": "failed", "error": "no memory"}, "deep: no memory"),
        ({"stage": "foreign"}, "deep: masks that were not trained"),
    ],
)
def test_what_is_no_finished_network_has_no_table(finished, measured, tmp_path, change, told):
    runs = [replace(r, **change) if r.arm == "deep" else r for r in finished.results.runs]
    write_results(replace(finished.results, runs=tuple(runs)), tmp_path)
    with pytest.raises(UserError, match=told):
        table(tmp_path)
    assert not measured


def test_a_comparison_of_something_else_has_no_such_table(finished, measured, tmp_path):
    config = {**finished.results.config, "compare_networks": False}
    write_results(replace(finished.results, config=config), tmp_path)
    with pytest.raises(UserError, match="a comparison of something else"):
        table(tmp_path)
    assert not measured
