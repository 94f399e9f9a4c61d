"""Voxels change places and nothing else: against plain loops."""

import numpy as np
import pytest
import torch
from fewvox.data.augment.blocks import as_slices
from fewvox.data.augment.draws import Draws
from fewvox.data.augment.shuffling import (
    LocalShuffling,
    Swap,
    draw_pairs,
    shuffled_voxels,
    swap_blocks,
    taken,
)
from fewvox.data.settings import SettingsError, checked
from hypothesis import given
from hypothesis import strategies as st

SHAPE = (6, 9, 8)
SHAPES = [SHAPE, (1, 12, 10), (2, 1, 1), (1, 1, 1)]
OPERATIONS = [LocalShuffling(windows=(300, 300), edge=(0.0, 0.4)), Swap(times=(6, 6), edge=0.3)]


def image(shape=SHAPE) -> torch.Tensor:
    """Every voxel tells its place; the second channel is the first one's negative."""
    voxels = torch.arange(float(np.prod(shape))).reshape(1, *shape) + 1
    return torch.cat([voxels, -voxels])


def shuffled_slowly(shape, windows, seed: int) -> np.ndarray:
    """Where windows overlap, the last counts, and takes from the image as it was; by SplitMix64."""
    voxels = np.arange(np.prod(shape)).reshape(shape)
    result, state, whole = voxels.copy(), seed, 2**64
    for block in as_slices(windows):
        pool, order = voxels[block].ravel().tolist(), []
        while pool:
            state = (state + 0x9E3779B97F4A7C15) % whole
            number = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % whole
            number = (number ^ (number >> 27)) * 0x94D049BB133111EB % whole
            pick = ((number ^ (number >> 31)) >> 32) * len(pool) >> 32
            order.append(pool[pick])
            pool[pick] = pool[-1]
            pool.pop()
        result[block] = np.reshape(order, result[block].shape)
    return result


@pytest.mark.parametrize("seed", [0, 1, 2**62])
def test_shuffling_is_a_plain_loop(seed):
    windows = np.array([[[0, 0, 0], [2, 3, 4]], [[1, 2, 2], [5, 1, 6]], [[5, 8, 7], [1, 1, 1]]])
    np.testing.assert_array_equal(
        shuffled_voxels(SHAPE, windows, seed), shuffled_slowly(SHAPE, windows, seed)
    )


def test_windows_apart_keep_their_own_voxels_and_nothing_else_moves():
    windows = np.array([[[0, 0, 0], [3, 4, 5]], [[3, 4, 3], [3, 5, 5]]])
    before = image()
    after = taken(before, shuffled_voxels(SHAPE, windows, 7))
    outside = torch.ones(SHAPE, dtype=torch.bool)
    for block in as_slices(windows):
        outside[block] = False
        one, other = before[:, *block].flatten(1), after[:, *block].flatten(1)
        assert not torch.equal(one, other)
        assert torch.equal(one.sort().values, other.sort().values)
    assert torch.equal(before[:, outside], after[:, outside])


def test_every_order_of_a_window_comes_as_often():
    window = np.array([[[0, 0, 0], [1, 1, 3]]])
    orders = [tuple(shuffled_voxels((1, 1, 3), window, 2**40 * i).ravel()) for i in range(1200)]
    assert len(set(orders)) == 6
    np.testing.assert_allclose([orders.count(o) for o in set(orders)], 200, atol=60)


@pytest.mark.parametrize("shape", [SHAPE, (1, 12, 10), (1, 1, 1)])
def test_no_voxel_comes_from_farther_away_than_a_windows_edge(shape):
    index = np.stack(np.indices(shape)).astype(np.float32)
    moved = LocalShuffling(windows=(500, 500), edge=(0.0, 0.34))(torch.from_numpy(index), Draws((0,))).numpy()
    limit = np.maximum(np.minimum(2, shape), np.floor(np.array(shape) * 0.34)) - 1
    np.testing.assert_array_equal(np.abs(moved - index).max(axis=(1, 2, 3)), limit)


def test_a_small_image_is_shuffled_too():
    """A tenth of its edges is less than two voxels."""
    after = LocalShuffling()(image((1, 12, 10)), Draws((0,)))
    assert (after != image((1, 12, 10))).float().mean() > 0.3


@given(
    st.tuples(*[st.integers(1, 12)] * 3).filter(lambda s: max(s) > 1),
    st.floats(0.01, 0.5),
    st.integers(0, 99),
)
def test_the_two_of_a_pair_lie_in_the_image_and_never_overlap(shape, edge, seed):
    pairs = draw_pairs(shape, 12, edge, Draws((seed,)))
    for blocks in pairs:
        assert (blocks[:, 0] >= 0).all()
        assert (blocks[:, 0] + blocks[:, 1] <= shape).all()
        assert (blocks[:, 1] == np.maximum(1, np.floor(np.array(shape) * edge + 1e-6))).all()
    distance, size = np.abs(pairs[0][:, 0] - pairs[1][:, 0]), pairs[0][:, 1]
    assert (distance >= size).any(axis=1).all()


def test_pairs_that_just_fit_and_pairs_with_room_are_all_drawn():
    for room in (0, 2):
        first, second = draw_pairs((1, 1, 6 + room), 600, 3 / (6 + room), Draws((0,)))
        drawn = [(int(a), int(b)) for a, b in zip(first[:, 0, 2], second[:, 0, 2], strict=True)]
        expected = {(a, b) for a in range(4 + room) for b in range(4 + room) if abs(a - b) >= 3}
        assert set(drawn) == expected
        often = 600 / len(expected)
        np.testing.assert_allclose([drawn.count(pair) for pair in expected], often, atol=5 * often**0.5)


def test_a_swap_is_a_plain_loop():
    pairs = [
        ((slice(0, 2), slice(0, 3), slice(0, 2)), (slice(2, 4), slice(1, 4), slice(1, 3))),
        ((slice(1, 3), slice(0, 3), slice(0, 2)), (slice(4, 6), slice(6, 9), slice(6, 8))),
    ]
    expected = image().numpy()
    for one, other in pairs:
        for dz, dy, dx in np.ndindex(2, 3, 2):
            a = (slice(None), one[0].start + dz, one[1].start + dy, one[2].start + dx)
            b = (slice(None), other[0].start + dz, other[1].start + dy, other[2].start + dx)
            expected[a], expected[b] = expected[b].copy(), expected[a].copy()
    np.testing.assert_array_equal(swap_blocks(image(), pairs), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_swap_keeps_every_voxel_of_the_image(shape):
    """Two voxels are where they were after an even number of swaps, and one has nowhere to go."""
    before, after = image(shape), OPERATIONS[1](image(shape), Draws((0,)))
    assert torch.equal(before.flatten(1).sort().values, after.flatten(1).sort().values)
    assert torch.equal(before, after) == (max(shape) <= 2)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.op)
def test_all_channels_move_alike(operation):
    one, other = operation(image(), Draws((0,)))
    assert torch.equal(one, -other)
    assert not torch.equal(one, image()[0])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.op)
def test_the_same_draws_give_the_same_image_whatever_the_global_state(operation):
    np.random.seed(1)
    one = operation(image(), Draws((1, 2)))
    np.random.seed(2)
    assert torch.equal(one, operation(image(), Draws((1, 2))))
    assert not torch.equal(one, operation(image(), Draws((1, 3))))


def test_a_swapped_patch_is_at_most_half_the_image():
    with pytest.raises(SettingsError, match="edge"):
        checked(Swap(edge=0.6), "swap")
