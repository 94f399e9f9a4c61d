"""Sums of windows are the same by compiled passes, by torch as on an accelerator, and in several threads."""

from functools import partial

import pytest
import torch
from fewvox.seg.sliding_window import held, swept
from fewvox.seg.sums import DeviceSums, HostSums
from fewvox.seg.tiles import Tiles


def averaged(sums, rows=slice(0, 20)):
    image = torch.randn(2, 11, 20, 9, generator=torch.Generator().manual_seed(0))
    tiles = Tiles(shape=(11, 20, 9), patch=(4, 6, 5))
    first = tiles.touching(rows)[0]

    def slices(start):
        return held(image, tiles)(start)[:, :, first:]

    # a window's values depend on its place
    found = swept(lambda w: w * torch.arange(4.0)[:, None, None], slices, tiles, sums, rows, 3)
    return torch.cat([means for _, means in found], dim=1)


@pytest.mark.parametrize("rows", [slice(0, 20), slice(7, 12), slice(19, 20)])
def test_sums_of_an_accelerator_are_those_of_the_processor(rows):
    on_device = partial(DeviceSums, device=torch.device("cpu"))
    torch.testing.assert_close(averaged(on_device, rows), averaged(HostSums, rows), rtol=0, atol=1e-5)


def test_threads_change_nothing(monkeypatch):
    one = averaged(HostSums)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(averaged(HostSums), one)
