"""Tensors that a network can use, and those that it cannot."""

from pathlib import Path

import pytest
import torch
from fewvox.seg.neighbours.errors import SourceError
from fewvox.seg.neighbours.sound import sound

WHERE = Path("model.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32_and_are_noted(dtype):
    values = torch.tensor([0.5, -2.0])
    found, notes = sound({"a": values.to(dtype), "b": values}, WHERE)
    assert torch.equal(found["a"], values)
    assert found["a"].dtype == torch.float32
    assert notes == (f"tensors of type {str(dtype).removeprefix('torch.')} were turned into float32",)


def test_float32_is_left_as_it_is_without_a_copy():
    values = torch.nn.Parameter(torch.rand(3))
    found, notes = sound({"a": values}, WHERE)
    assert found["a"].data_ptr() == values.data_ptr()
    assert not found["a"].requires_grad
    assert notes == ()


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.tensor([0.0, float("nan")]), "NaN or infinite"),
        (torch.tensor([float("-inf")]), "NaN or infinite"),
        (torch.tensor([1e300], dtype=torch.float64), "NaN or infinite"),
        (torch.zeros(2, dtype=torch.int64), "torch.int64"),
        (torch.zeros(2, dtype=torch.complex64), "torch.complex64"),
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.zeros(2, device="meta"), "without values"),
        (torch.zeros(1).expand(10**12), r"shape \(1000000000000,\) over 4 bytes"),
    ],
)
def test_what_is_no_weight_is_refused_by_its_name(tensor, told):
    with pytest.raises(SourceError, match=rf"model\.pth: decoder\.0\.up\.weight: .*{told}"):
        sound({"fine": torch.zeros(1), "decoder.0.up.weight": tensor}, WHERE)
