"""What holds alike for the methods that read features at places which two views share."""

from dataclasses import replace

import pytest
import torch
from fewvox.ssl import correspondence
from fewvox.ssl.methods import dense_triplet, supervoxel
from fewvox.ssl.methods.dense_triplet import DenseTriplet, DenseTripletConfig
from fewvox.ssl.methods.supervoxel import Supervoxel, SupervoxelConfig

DENSE_TRIPLET = DenseTriplet, DenseTripletConfig(points=16, hidden=16, dimension=8)
SUPERVOXEL = Supervoxel, SupervoxelConfig(supervoxels=8, points=64, dimension=8)


@pytest.fixture
def make_method(fresh_method, make_scope):
    """The method of a class and its settings on a fresh network."""
    return lambda kind, config: fresh_method(kind, config, make_scope())


@pytest.mark.parametrize(("module", "of"), [(dense_triplet, DENSE_TRIPLET), (supervoxel, SUPERVOXEL)])
def test_two_processes_are_one_with_the_batch_of_both(
    make_method, make_views, shift, two_as_one, monkeypatch, module, of
):
    """One of them leaves half of its items out: each item that is left counts as much."""
    method, batch, maps = make_method(*of), make_views(2, batch=4), shift(4, 0, 0.5, 0)
    maps[3, 0, 3] = 50
    batch = replace(batch, maps=(batch.maps[0], maps))
    monkeypatch.setattr(correspondence, "processes", lambda: 2)
    losses, together = two_as_one(module, method, batch, atol=1e-5)
    assert losses == pytest.approx([together] * 2, rel=1e-5)


@pytest.mark.parametrize("of", [DENSE_TRIPLET, SUPERVOXEL])
def test_views_of_another_extent_are_read_alike(make_method, make_views, of):
    batch = make_views(2)
    smaller = replace(batch, views=(batch.views[0], batch.views[1][:, :, :2, :4, :2]))
    result = make_method(*of)(smaller, 0)
    assert result.logs["left_out"] == 0
    assert torch.isfinite(result.loss)


@pytest.mark.parametrize(("of", "atol"), [(DENSE_TRIPLET, 0.02), (SUPERVOXEL, 0.05)])
def test_in_half_precision_the_loss_is_computed_in_whole(make_method, make_views, of, atol):
    method, batch = make_method(*of), make_views(2)
    expected = method(batch, 0).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = method(batch, 0).loss
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=atol, rtol=0.1)


@pytest.mark.parametrize("of", [DENSE_TRIPLET, SUPERVOXEL])
def test_flat_views_have_a_finite_loss_and_gradient(make_method, views_of, check_finite, of):
    check_finite(make_method(*of), views_of(torch.ones(2, 1, 4, 8, 4), torch.zeros(2, 1, 4, 8, 4)))
