"""Which turns an extent allows, that they are turns, and that all of them are different."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.ssl.quarter_turns import QuarterTurns, Turn, centre, possible_turns, turned, turns_of
from hypothesis import given
from hypothesis import strategies as st

ABOUT_Z = [Turn(0, 1), Turn(0, 2), Turn(0, 3)]


def numbered(extent) -> torch.Tensor:
    """An image (1, Z, Y, X) of which no two voxels are alike."""
    return torch.arange(float(math.prod(extent))).view(1, *extent)


def by_loops(image: torch.Tensor, turn: Turn) -> torch.Tensor:
    """Each quarter takes voxel (i, j) of a plane to (last - j, i)."""
    first, second = ((1, 2), (0, 2), (0, 1))[turn.axis]
    for _ in range(turn.quarters):
        old = image[0]
        shape = list(old.shape)
        shape[first], shape[second] = shape[second], shape[first]
        new = torch.empty(1, *shape)
        for voxel in product(*map(range, old.shape)):
            place = list(voxel)
            place[first], place[second] = old.shape[second] - 1 - voxel[second], voxel[first]
            new[0][tuple(place)] = old[voxel]
        image = new
    return image


small = st.integers(1, 6)


def test_a_cube_has_ten_turns():
    """Taleb et al. 2020 count the same ten."""
    found = possible_turns((8, 8, 8), (2, 2, 2))
    assert found.extent == (8, 8, 8)
    assert found.turns == (Turn(0, 0), *(Turn(axis, q) for axis in (0, 1, 2) for q in (1, 2, 3)))


def test_thick_slices_are_turned_by_quarters_in_their_plane_alone():
    found = possible_turns((8, 16, 16), (2, 4, 4))
    assert found == QuarterTurns(extent=(8, 16, 16), turns=(Turn(0, 0), *ABOUT_Z, Turn(1, 2), Turn(2, 2)))
    # of one extent, and yet of other voxels
    assert possible_turns((16, 16, 16), (2, 4, 4)).turns == found.turns


@pytest.mark.parametrize(
    ("extent", "multiple", "kept", "turns"),
    [
        # what is lost brings turns
        ((8, 48, 32), (2, 4, 4), (8, 32, 32), 6),
        ((40, 56, 40), (8, 8, 8), (40, 40, 40), 10),
        # half of the voxels is the least
        ((8, 64, 32), (2, 4, 4), (8, 32, 32), 6),
        ((8, 68, 32), (2, 4, 4), (8, 68, 32), 4),
        # a cube would be too small, a square is not
        ((16, 64, 64), (8, 8, 8), (16, 64, 64), 6),
        ((16, 64, 48), (8, 8, 8), (16, 48, 48), 6),
        # every axis of its own resolution
        ((8, 16, 32), (2, 4, 8), (8, 16, 32), 4),
        # a single slice
        ((1, 64, 64), (1, 8, 8), (1, 64, 64), 4),
        ((1, 64, 48), (1, 8, 8), (1, 48, 48), 4),
    ],
)
def test_a_plane_is_cropped_to_a_square_where_half_of_the_voxels_is_left(extent, multiple, kept, turns):
    found = possible_turns(extent, multiple)
    assert (found.extent, len(found.turns)) == (kept, turns)


@pytest.mark.parametrize(
    ("spacing", "turns"),
    [((1.0, 1.0, 1.0), 10), ((1.0, 1.05, 1.0), 10), ((2.0, 1.0, 1.0), 6), ((1.0, 1.2, 1.5), 4)],
)
def test_voxels_that_are_longer_along_one_axis_are_turned_by_halves(spacing, turns):
    """Though the network pools all axes alike."""
    assert len(possible_turns((8, 8, 8), (2, 2, 2), spacing=spacing).turns) == turns
    # nor is anything cropped where that brings no turn
    extent = (8, 8, 10)
    assert possible_turns(extent, (2, 2, 2), (0,), spacing).extent == ((8, 8, 8) if turns > 4 else extent)


def test_only_the_axes_asked_for_are_turned_about_and_cropped_for():
    assert possible_turns((40, 56, 40), (8, 8, 8), (0,)) == QuarterTurns(
        extent=(40, 40, 40), turns=(Turn(0, 0), *ABOUT_Z)
    )
    assert possible_turns((40, 56, 40), (8, 8, 8), (1,)).extent == (40, 56, 40)
    assert possible_turns((24, 40, 32), (8, 8, 8), (0,)).extent == (24, 32, 32)


def test_a_view_that_cannot_be_turned_is_refused():
    with pytest.raises(UserError, match=r"views of \(8, 1, 16\) voxels: nothing to turn about z"):
        possible_turns((8, 1, 16), (2, 1, 4), (0,))
    with pytest.raises(UserError, match="nothing to turn about z or y or x"):
        possible_turns((1, 1, 16), (1, 1, 4))


@given(
    st.tuples(small, small, small), st.tuples(*[st.sampled_from([1, 2, 4])] * 3), st.sets(st.integers(0, 2))
)
def test_turned_views_keep_their_extent_and_no_two_are_alike(counts, multiple, axes):
    extent = tuple(n * m for n, m in zip(counts, multiple, strict=True))
    try:
        found = possible_turns(extent, multiple, sorted(axes))
    except UserError:
        assert all(min(n for a, n in enumerate(extent) if a != axis) == 1 for axis in axes)
        return
    assert all(n % m == 0 for n, m in zip(found.extent, multiple, strict=True))
    assert 2 * math.prod(found.extent) >= math.prod(extent)
    image = centre(numbered(extent), found.extent)
    views = [turned(image, turn) for turn in found.turns]
    assert torch.equal(views[0], image)
    assert {view.shape for view in views} == {image.shape}
    assert len({tuple(view.flatten().tolist()) for view in views}) == len(views)
    assert {turn.axis for turn in found.turns} <= {0, *axes}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_turn_is_that_of_plain_loops(axis, quarters):
    turn, image = Turn(axis, quarters), numbered((2, 3, 4))
    assert torch.equal(turned(image, turn), by_loops(image, turn))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_four_quarters_are_a_whole_turn(axis):
    image = numbered((2, 3, 4))
    again = image
    for _ in range(4):
        again = turned(again, Turn(axis, 1))
    assert torch.equal(again, image)
    assert torch.equal(turned(turned(image, Turn(axis, 1)), Turn(axis, 3)), image)


def test_each_view_of_a_batch_is_cropped_and_turned_by_its_own_turn():
    views = torch.stack([numbered((2, 6, 4)), 100 + numbered((2, 6, 4)), 200 + numbered((2, 6, 4))])
    before, turns = views.clone(), possible_turns((2, 6, 4), (1, 2, 2), (0,))
    assert turns.extent == (2, 4, 4)
    found = turns.turned(views, torch.tensor([3, 0, 1]))
    assert torch.equal(found[0], turned(views[0][:, :, 1:5], Turn(0, 3)))
    assert torch.equal(found[1], views[1][:, :, 1:5])
    assert torch.equal(found[2], turned(views[2][:, :, 1:5], Turn(0, 1)))
    assert torch.equal(views, before)


def test_a_gradient_passes_through_a_turn():
    views = torch.randn(2, 1, 2, 4, 4, requires_grad=True)
    turns = possible_turns((2, 4, 4), (1, 2, 2), (0,))
    weights = torch.randn(2, 1, 2, 4, 4)
    loss = (turns.turned(views, torch.tensor([1, 2])) * weights).sum()
    (gradient,) = torch.autograd.grad(loss, views)
    assert torch.equal(gradient[0], turned(weights[0], Turn(0, 3)))
    assert torch.equal(gradient[1], turned(weights[1], Turn(0, 2)))


def test_turns_are_drawn_evenly_from_the_generator_alone():
    turns = possible_turns((8, 8, 8), (2, 2, 2))
    drawn = turns.draw(5000, torch.Generator().manual_seed(3))
    assert torch.bincount(drawn).tolist() == pytest.approx([500] * 10, rel=0.15)
    torch.manual_seed(9)
    assert torch.equal(turns.draw(5000, torch.Generator().manual_seed(3)), drawn)
    assert not torch.equal(turns.draw(5000, torch.Generator().manual_seed(4)), drawn)


def test_a_scope_tells_extent_and_resolution(make_scope):
    """Strides of the tests' network: 2, 4 and 2."""
    found = turns_of(make_scope(1, extent=(4, 8, 4)))
    assert found == QuarterTurns(
        extent=(4, 8, 4), turns=(Turn(0, 0), Turn(0, 2), Turn(1, 1), Turn(1, 2), Turn(1, 3), Turn(2, 2))
    )
    assert turns_of(make_scope(1, extent=(4, 8, 4)), (0,)).turns == (Turn(0, 0), Turn(0, 2))
    thick = replace(make_scope(1, extent=(4, 8, 4)), spacing=(3.0, 1.0, 1.0))
    assert turns_of(thick, (1,)).turns == (Turn(0, 0), Turn(1, 2))
