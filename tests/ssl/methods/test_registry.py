"""What every registered method keeps to, and that none of them computes otherwise than it did."""

import json
import os
from pathlib import Path

import pytest
import torch
from fewvox.ssl.method_checks import (
    CHECKS,
    SITUATIONS,
    check_falling,
    short_training,
)
from fewvox.ssl.methods.registry import METHODS

GOLDEN = Path(__file__).with_name("golden_curves.json")
TOLERANCE = 1e-3
# another set of instructions adds in another order; twenty steps can make a third of the loss of that
INSTRUCTIONS = torch.backends.cpu.get_cpu_capability()


@pytest.fixture
def one_thread():
    """Threads add in an order of their own too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_keeps_to_the_contract(name, check, situation):
    check(METHODS[name], SITUATIONS[situation])


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_short_training_goes_as_it_was_recorded_and_its_loss_falls(name):
    """FEWVOX_RECORD=1 records the curves anew, where a change is meant."""
    losses = short_training(METHODS[name], next(iter(SITUATIONS.values())))
    check_falling(losses)
    curves = json.loads(GOLDEN.read_text())
    if os.environ.get("FEWVOX_RECORD"):
        curves.setdefault(INSTRUCTIONS, {})[name] = [float(f"{loss:.6g}") for loss in losses]
        GOLDEN.write_text(written(curves))
    if INSTRUCTIONS not in curves:
        pytest.skip(f"no curves were recorded with {INSTRUCTIONS}")
    # of a loss that nears 0, the size that it had counts
    size = max(map(abs, losses))
    assert losses == pytest.approx(curves[INSTRUCTIONS][name], rel=TOLERANCE, abs=TOLERANCE * size)


def test_every_method_has_its_curve_and_no_other():
    for curves in json.loads(GOLDEN.read_text()).values():
        assert sorted(curves) == sorted(METHODS)


def written(curves: dict[str, dict[str, list[float]]]) -> str:
    """A line for each curve."""
    parts = []
    for instructions in sorted(curves):
        lines = [
            f'  "{name}": {json.dumps(curves[instructions][name])}' for name in sorted(curves[instructions])
        ]
        parts.append(f'"{instructions}": {{\n' + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
