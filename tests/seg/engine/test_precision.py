"""In which numbers a step is computed."""

import pytest
import torch
from fewvox.seg.engine.precision import Precision, resolved_precision
from torch import nn

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("has_it", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_auto_is_what_the_device_is_good_at(monkeypatch, has_it, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_it)
    assert resolved_precision("auto", CPU) == "float32"
    assert resolved_precision("auto", GPU) == expected
    assert resolved_precision("float32", GPU) == "float32"


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_the_forward_pass_is_in_it_and_the_weights_are_not(name):
    layer = nn.Linear(3, 2)
    with Precision(name, CPU).forward():
        output = layer(torch.ones(1, 3))
    assert output.dtype == getattr(torch, name)
    output.float().sum().backward()
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32


def test_only_float16_has_a_scale_and_below_one_it_is_no_excuse():
    for name in ("float32", "bfloat16"):
        precision = Precision(name, CPU)
        assert (precision.scale, precision.may_overflow) == (1.0, False)
    precision = Precision("float16", CPU)
    assert (precision.scale, precision.may_overflow) == (2.0**16, True)
    precision.scaler.load_state_dict(precision.scaler.state_dict() | {"scale": 0.5})
    assert not precision.may_overflow
