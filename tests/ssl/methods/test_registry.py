"""What every registered method keeps to, and that none of them computes otherwise than it did."""

import json
import os
from pathlib import Path

import pytest
from fewvox.ssl.method_checks import CHECKS, SITUATIONS, check_falling, short_training
from fewvox.ssl.methods.registry import METHODS

GOLDEN = Path(__file__).with_name("golden_curves.json")
# machines round differently, and small nets amplify it
TOLERANCE = 1e-3


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_keeps_to_the_contract(name, check, situation):
    check(METHODS[name], SITUATIONS[situation])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_short_training_goes_as_it_was_recorded_and_its_loss_falls(name):
    """FEWVOX_RECORD=1 records the curves anew, where a change is meant."""
    losses = short_training(METHODS[name], next(iter(SITUATIONS.values())))
    check_falling(losses)
    golden = json.loads(GOLDEN.read_text())
    if os.environ.get("FEWVOX_RECORD"):
        golden[name] = [float(f"{loss:.6g}") for loss in losses]
        lines = [f'"{key}": {json.dumps(golden[key])}' for key in sorted(golden)]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert losses == pytest.approx(golden[name], rel=TOLERANCE)


def test_no_curve_is_left_of_a_method_that_is_gone():
    assert sorted(json.loads(GOLDEN.read_text())) == sorted(METHODS)
