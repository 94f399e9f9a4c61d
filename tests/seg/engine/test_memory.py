"""Lack of memory, told with what would fit."""

import pytest
import torch
from fewvox.seg.engine import memory
from fewvox.seg.engine.estimate import training_bytes
from fewvox.seg.engine.memory import OutOfMemory, fitting, told_out_of_memory
from fewvox.seg.networks.registry import architecture_for, build
from hypothesis import given, settings
from hypothesis import strategies as st

PATCH = (8, 32, 32)
LACKS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
    MemoryError("Unable to allocate 9 TiB"),
]


@pytest.fixture
def network(make_plan):
    return build(architecture_for(make_plan(strides=((2, 2, 2), (1, 2, 2)))), 0)


@pytest.mark.parametrize("error", LACKS, ids=lambda error: type(error).__name__)
def test_what_was_tried_and_what_would_fit_is_told(network, monkeypatch, error):
    monkeypatch.setattr(memory, "free_bytes", lambda device: training_bytes(network, 2, 1, PATCH))
    with pytest.raises(OutOfMemory) as told, told_out_of_memory(network, 8, PATCH):
        raise error
    assert "batch 8, patch (8, 32, 32)" in str(told.value)
    assert "set batch=2 and patch=[8, 32, 32]" in str(told.value)
    assert told.value.__cause__ is error


def test_another_error_stays_what_it_is(network):
    with pytest.raises(RuntimeError, match="shapes"), told_out_of_memory(network, 8, PATCH):
        raise RuntimeError("shapes do not fit")


def test_where_nothing_fits_no_patch_is_offered(network, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1)
    with pytest.raises(OutOfMemory, match="no patch fits"), told_out_of_memory(network, 8, PATCH):
        raise MemoryError


@settings(max_examples=8, deadline=None)
@given(batch=st.integers(1, 9), least=st.integers(1, 3), share=st.floats(0.02, 1.5))
def test_what_is_offered_is_smaller_fits_and_can_be_trained(batch, least, share):
    from fewvox.data.plan import Training
    from fewvox.seg.networks.topology import topology
    from fewvox.seg.networks.unet import UNet

    training = Training(patch=PATCH, strides=((2, 2, 2), (1, 2, 2)), width=2)
    unet = UNet(1, 2, topology(training, ()))
    free = int(share * training_bytes(unet, batch, 1, PATCH))
    offered = fitting(unet, batch, PATCH, free, least=least)
    if offered is None:
        return
    fewer, patch, taken = offered
    assert min(batch, least) <= fewer <= batch
    assert (fewer, patch) != (batch, PATCH)
    assert taken == training_bytes(unet, fewer, 1, patch) <= free
    assert all(n % m == 0 and n <= p for n, m, p in zip(patch, unet.multiple, PATCH, strict=True))
