"""What a pickle would call: the few functions that weights need, with arguments as weights have them."""

import pickle
from collections import Counter, OrderedDict, defaultdict
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from fewvox.seg.neighbours import calls
from fewvox.seg.neighbours.calls import check_calls
from fewvox.seg.neighbours.errors import SourceError
from fewvox.seg.neighbours.pickles import read_torch
from torch import nn


class Call:
    """An object whose unpickling calls a function."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def encode(text, codec):
    return Call(__import__("_codecs").encode, text, codec)


@pytest.mark.parametrize(
    "call",
    [
        Call(bytearray, 2**40),
        Call(OrderedDict, [(1, 2)] * 9),
        Call(Counter, [1] * 9),
        Call(set, [1] * 9),
        Call(torch.Size, (1,) * 1000),
        Call(torch.Tensor, 10**12),
        Call(torch.storage.UntypedStorage, 10**12),
        encode("a" * 9, "latin1"),
        encode("a", "punycode"),
        encode("a", "zip"),
        Call(torch._utils._rebuild_device_tensor_from_numpy, 1, 2, 3, False),
        defaultdict(list),
    ],
)
def test_what_no_weights_need_is_refused_by_its_name(saved, call):
    with pytest.raises(SourceError, match=r"a pickle that calls \S+; it was not run"):
        read_torch(saved({"a": call}))


def test_what_trainings_save_is_read(saved):
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))
    network(torch.zeros(1, 1, 3, 4, 4)).sum().backward()
    optimiser = torch.optim.AdamW(network.parameters(), amsgrad=True)
    optimiser.step()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 3)
    state = {
        "state_dict": network.state_dict(),
        "parameter": nn.Parameter(torch.ones(2)),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "size": torch.Size((1, 2)),
        "dtypes": [torch.float32, torch.bfloat16, torch.int64],
        "tensors": [torch.arange(3, dtype=t) for t in (torch.bfloat16, torch.uint8, torch.int64, torch.half)],
        "bool": torch.tensor([True]),
        "device": torch.device("cpu"),
        "best": np.float64(0.1),
        "nested": [None, 1.5, -(2**70), (1, "a"), [True, {"a": {1: []}}]],
    }
    read = read_torch(saved(state))
    assert read.keys() == state.keys()
    assert read["nested"] == state["nested"]
    assert read["optimiser"]["param_groups"] == state["optimiser"]["param_groups"]
    assert torch.equal(read["state_dict"]["0.weight"], network[0].weight)


def test_keys_that_nest_are_refused_before_they_are_hashed():
    nested = ()
    for _ in range(200):
        nested = (nested, nested)
    body = pickle.dumps(nested, 2)[2:-1]
    with pytest.raises(UnpicklingError, match="a key that is a tuple"):
        check_calls(b"\x80\x02}" + body + b"K\x01s.")


def test_a_function_that_came_from_the_memo_is_checked_too(saved):
    with pytest.raises(SourceError, match=r"calls _codecs\.encode"):
        read_torch(saved([encode("a", "latin1"), encode("b", "punycode")]))


@pytest.mark.parametrize(("limit", "value"), [("_LARGEST", 100), ("_MOST_STEPS", 100), ("_MOST_STATES", 0)])
def test_a_pickle_larger_than_weights_have_is_refused(saved, monkeypatch, limit, value):
    path = saved({"state": nn.Conv3d(1, 1, 1).state_dict(), "more": [*range(200)]})
    assert read_torch(path)["more"][-1] == 199
    monkeypatch.setattr(calls, limit, value)
    with pytest.raises(SourceError, match="more than"):
        read_torch(path)
