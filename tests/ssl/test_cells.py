"""Where cells lie, and that what is cut is what lies there."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from fewvox.seg.networks.blocks import InstanceNorm
from fewvox.seg.networks.topology import Topology
from fewvox.ssl.cells import Grid, cut_cells, lay_grid, standardised
from hypothesis import given
from hypothesis import strategies as st

NONE_FURTHER = torch.Generator()


@pytest.fixture(scope="session")
def lay(architecture, make_scope):
    """A grid in a view of some extent, for a network that pools two axes this often."""

    def make(extent, poolings=(1, 2, 1), counts=(3, 2, 1), **fields) -> Grid:
        strides = tuple(tuple(2 if level < n else 1 for n in poolings) for level in range(max(poolings)))
        levels = len(strides) + 1
        topology = Topology(features=(4,) * levels, kernels=((3, 3, 3),) * levels, strides=strides)
        scope = replace(make_scope(1, extent=extent), architecture=replace(architecture, topology=topology))
        return lay_grid(scope, (counts,) * 3, **fields)

    return make


def places(*extent: int, batch=1) -> torch.Tensor:
    """A view whose three channels hold the place (z, y, x) of each voxel."""
    axes = torch.meshgrid(*(torch.arange(float(n)) for n in extent), indexing="ij")
    return torch.stack(axes).expand(batch, 3, *extent)


def seeded(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


shares, poolings = st.floats(0, 0.75), st.tuples(*[st.integers(0, 3)] * 3)


@given(poolings, st.tuples(*[st.integers(1, 7)] * 3), st.integers(1, 4), shares, st.floats(0, 1))
def test_cells_lie_in_the_view_and_apart_from_each_other(lay, poolings, times, most, gap, jitter):
    multiple = [2**n for n in poolings]
    extent = tuple(m * t for m, t in zip(multiple, times, strict=True))
    grid = lay(extent, poolings, range(most, 0, -1), gap=gap, jitter=jitter)
    for n, m, count, size, output, starts in zip(
        extent, multiple, grid.counts, grid.size, grid.extent, grid.starts, strict=True
    ):
        assert len(starts) == count <= most
        assert starts[0][0] >= 0
        assert starts[-1][1] + size <= n
        assert all(low <= high for low, high in starts)
        assert all(this[1] + size <= after[0] for this, after in pairwise(starts))
        if jitter < 0.99 and size < n // count:
            assert all(this[1] + size < after[0] for this, after in pairwise(starts))
        assert output % m == 0
        assert count > 1 or size == n


@pytest.mark.parametrize(
    ("extent", "poolings", "count", "size", "output"),
    [
        ((40, 40, 40), (3, 3, 3), 2, (20, 20, 20), (24, 24, 24)),
        ((40, 56, 40), (2, 2, 2), 4, (10, 14, 10), (12, 16, 12)),
        ((40, 40, 40), (3, 3, 3), 4, (10, 10, 10), (8, 8, 8)),
        # 8, 16 and 8 would be nearest, with two voxels at the coarsest level
        ((40, 56, 40), (3, 3, 3), 4, (10, 14, 10), (8, 16, 16)),
        # 8, 16 and 8 too, with two voxels at the coarsest level but one
        ((32, 64, 32), (3, 4, 3), 4, (8, 16, 8), (8, 32, 16)),
        # two voxels in all
        ((2, 4, 2), (0, 0, 0), 2, (1, 2, 1), (1, 3, 1)),
    ],
)
def test_cells_are_stretched_to_the_nearest_extent_without_a_level_of_two_voxels(
    lay, extent, poolings, count, size, output
):
    grid = lay(extent, poolings, (count,))
    assert (grid.size, grid.extent) == (size, output)


def test_two_voxels_pass_no_gradient():
    """Why no level is left with so many: normalised they are +1 and -1, whatever they were."""
    for voxels, passes in ((1, True), (2, False), (3, True), (4, True)):
        features = torch.randn(1, 5, 1, 1, voxels, generator=seeded()).requires_grad_()
        normalised = InstanceNorm(5, affine=True)(features)
        weights = torch.randn(normalised.shape, generator=seeded(1))
        (gradient,) = torch.autograd.grad((normalised * weights).sum(), features)
        assert (gradient.norm() > 1e-2) == passes


@pytest.mark.parametrize(
    ("extent", "poolings", "gap", "counts"),
    [
        ((8, 16, 16), (1, 2, 2), 0.25, (3, 3, 3)),
        ((40, 56, 40), (3, 3, 3), 0.25, (3, 3, 3)),
        # a single slice
        ((1, 32, 32), (0, 3, 3), 0.25, (1, 3, 3)),
        # two slices that are not pooled: one voxel each
        ((2, 32, 32), (0, 3, 3), 0.25, (2, 3, 3)),
        # two coarsest voxels: a third of them, less the gap, would be enlarged more than twice
        ((8, 32, 32), (2, 3, 3), 0.25, (3, 3, 3)),
        ((8, 32, 32), (2, 3, 3), 0.4, (2, 3, 3)),
        ((4, 32, 32), (2, 3, 3), 0.25, (1, 3, 3)),
        ((4, 4, 4), (2, 2, 2), 0.25, (1, 1, 1)),
    ],
)
def test_thin_axes_have_fewer_cells(lay, extent, poolings, gap, counts):
    assert lay(extent, poolings, gap=gap).counts == counts


def test_only_the_allowed_numbers_of_cells_are_taken(lay):
    assert lay((8, 32, 32), (2, 3, 3), (3, 1), gap=0.4).counts == (1, 3, 3)


def test_cells_are_cut_where_they_are_said_to_lie(lay):
    """In a view whose voxels tell their place, the mean of a cell is its centre, interpolated or not."""
    grid = lay((10, 28, 14), gap=0.25, jitter=1.0)
    assert grid.size != grid.extent
    cells = cut_cells(places(10, 28, 14, batch=2), grid, seeded())
    starts = grid.draw(2, seeded())
    assert cells.shape == (2, 27, 3, *grid.extent)
    expected = starts + (torch.tensor(grid.size) - 1) / 2
    torch.testing.assert_close(cells.mean(dim=(3, 4, 5)), expected)


def test_cells_come_in_the_order_of_z_y_x(lay):
    grid = lay((12, 24, 12))
    centres = cut_cells(places(12, 24, 12), grid, NONE_FURTHER)[0].mean(dim=(2, 3, 4))
    expected = [[z, y, x] for z in (1.5, 5.5, 9.5) for y in (3.5, 11.5, 19.5) for x in (1.5, 5.5, 9.5)]
    assert centres.tolist() == expected


def test_cells_of_an_allowed_extent_are_voxels_of_the_view(lay):
    grid = lay((12, 24, 12))
    assert grid.size == grid.extent == (4, 8, 4)
    view = torch.randn(2, 1, 12, 24, 12, generator=seeded())
    cells = cut_cells(view, grid, NONE_FURTHER)
    assert torch.equal(cells[1, 5], view[1, :, :4, 8:16, 8:12])
    assert torch.equal(cells[0, 26], view[0, :, 8:, 16:, 8:])


def test_cells_are_those_cut_and_interpolated_one_by_one(lay):
    grid = lay((12, 28, 16), gap=0.3, jitter=0.5)
    view = torch.randn(2, 2, 12, 28, 16, generator=seeded(1))
    cells = cut_cells(view, grid, seeded(2))
    dz, dy, dx = grid.size
    for item, starts in enumerate(grid.draw(2, seeded(2)).tolist()):
        for i, (z, y, x) in enumerate(starts):
            cut = view[item : item + 1, :, z : z + dz, y : y + dy, x : x + dx]
            alone = F.interpolate(cut, grid.extent, mode="trilinear", align_corners=False)[0]
            torch.testing.assert_close(cells[item, i], alone)


@pytest.mark.parametrize(("jitter", "within"), [(0.0, (2, 2)), (0.5, (1, 3)), (1.0, (0, 4))])
def test_a_cell_lies_as_often_anywhere_within_its_jitter(lay, jitter, within):
    grid = lay((24, 24, 24), (2, 2, 2), gap=0.5, jitter=jitter)
    low, high = within
    assert grid.size == (4, 4, 4)
    assert grid.starts[0] == ((low, high), (8 + low, 8 + high), (16 + low, 16 + high))
    starts = grid.draw(200, seeded())
    offsets = starts % 8
    for axis in range(3):
        counts = [int((offsets[..., axis] == o).sum()) for o in range(low, high + 1)]
        assert counts == pytest.approx([27 * 200 / len(counts)] * len(counts), rel=0.15)
    if jitter:
        # every cell on its own, along every axis
        assert len({tuple(row) for row in offsets.flatten(1).T.tolist()}) == 81


def test_where_cells_lie_depends_on_the_generator_alone(lay):
    grid = lay((24, 24, 24), (2, 2, 2), gap=0.5, jitter=1.0)
    first, again, other = (grid.draw(2, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("overlap", "size", "starts", "apart"),
    [
        (0.0, 5, (0, 5, 10, 15), 1),
        (0.1, 5, (0, 4, 9, 14), 2),
        (0.5, 6, (0, 4, 8, 13), 2),
        (1.0, 8, (0, 4, 8, 12), 2),
    ],
)
def test_overlapping_cells_reach_to_the_end_of_the_view(lay, overlap, size, starts, apart):
    grid = lay((20, 20, 20), (0, 1, 1), (4,), overlap=overlap)
    assert grid.size == (size,) * 3
    assert grid.starts[1] == tuple((s, s) for s in starts)
    assert grid.apart(1) == apart


def test_a_single_layer_is_apart_from_none(lay):
    assert lay((1, 20, 20), (0, 1, 1), (4, 3, 2, 1)).apart(0) == 1


def test_standardised_cells_have_neither_brightness_nor_contrast():
    cells = torch.randn(2, 3, 2, 4, 4, 4, generator=seeded())
    found = standardised(cells * 7 + 3)
    torch.testing.assert_close(found, standardised(cells), atol=1e-4, rtol=0)
    flat = found.flatten(3)
    torch.testing.assert_close(flat.mean(dim=3), torch.zeros(2, 3, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat.std(dim=3, correction=0), torch.ones(2, 3, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e4])
def test_a_flat_cell_is_0(value):
    found = standardised(torch.full((1, 1, 1, 3, 3, 3), value))
    assert torch.isfinite(found).all()
    assert found.abs().max() < 1e-3


def test_counts_multiply(lay):
    grid = lay((1, 32, 32), (0, 3, 3))
    assert grid.number == math.prod(grid.counts) == 9
