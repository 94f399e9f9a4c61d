"""What a prediction takes is told beforehand, and regions get smaller until it fits."""

import resource

import numpy as np
import pytest
from fewvox.data.errors import UserError
from fewvox.seg import prediction_memory
from fewvox.seg.prediction_memory import Need, activation_bytes, regions, usable_bytes
from fewvox.seg.tiles import Tiles
from torch import nn


def need_of(shape, passing=0, patch=(8, 8, 8), classes=3):
    return Need(
        tiles=Tiles(shape=shape, patch=patch),
        shape=shape,
        channels=1,
        classes=classes,
        voxel_bytes=1,
        passing=passing,
    )


def test_a_volume_is_one_region_where_that_fits():
    need = need_of((50, 100, 20))
    assert regions([need], 0, need.of(slice(0, 100)), "a") == [slice(0, 100)]


@pytest.mark.parametrize("share", [0.9, 0.6, 0.4])
def test_less_memory_makes_more_regions_that_cover_all_rows_and_fit(share):
    need = need_of((50, 100, 20))
    limit = int(share * need.of(slice(0, 100)))
    rows = regions([need], 0, limit, "a")
    assert len(rows) > 1
    assert np.array_equal(np.concatenate([np.arange(r.start, r.stop) for r in rows]), np.arange(100))
    assert max(map(need.of, rows)) <= limit


def test_what_it_takes_does_not_depend_on_the_depth():
    assert need_of((10**5, 100, 20)).of(slice(0, 100)) == need_of((10**4, 100, 20)).of(slice(0, 100))


def test_a_volume_that_does_not_fit_is_refused_with_the_estimate_and_a_remedy():
    need = need_of((50, 100, 20), passing=2**31)
    with pytest.raises(UserError, match=r"a.tif: .*\(50, 100, 20\) voxels.* 2 GiB or more.*1 GiB.*--memory"):
        regions([need], 0, 2**30, "a.tif")


def test_several_networks_and_what_is_held_beside_them_count():
    need = need_of((50, 100, 20))
    fitting = need.of(slice(0, 100))
    assert len(regions([need, need], 0, 2 * fitting, "a")) == 1
    assert len(regions([need, need], 1, 2 * fitting, "a")) > 1


def test_a_forward_pass_takes_some_of_its_largest_activations():
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 2, 3, padding=1))
    assert activation_bytes(network, 2, 1, (8, 8, 8)) == 6 * 2 * 4 * 8**3 * 4


def test_limits_of_a_container_and_of_the_process_count(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert prediction_memory._free_in_group(tmp_path) == 600000
    (tmp_path / "memory.max").write_text("max\n")
    assert prediction_memory._free_in_group(tmp_path) == float("inf")
    assert prediction_memory._free_in_group(tmp_path / "none") == float("inf")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (0, 0))
    assert usable_bytes() == 0
