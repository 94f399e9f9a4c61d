"""What is kept of every volume, and that the index finds what a plain search does."""

import copy

import pytest
import torch
import torch.nn.functional as F
from fewvox.ssl.memory import Memory

VOLUMES, VIEWS, SIZE = 6, 2, 4


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture
def filled() -> Memory:
    """Knows every volume but the last."""
    memory = Memory(VOLUMES, VIEWS, SIZE)
    memory.keep(unit(VIEWS, VOLUMES - 1, SIZE), torch.arange(VOLUMES - 1))
    memory.refresh()
    return memory


def by_loops(memory: Memory, anchor: torch.Tensor, volume: int, count: int) -> list[list[float]]:
    rows = [
        row
        for number, views in enumerate(memory.indexed.tolist())
        for row in views
        if number != volume and any(row)
    ]
    return sorted(rows, key=lambda row: sum((a - b) ** 2 for a, b in zip(anchor.tolist(), row, strict=True)))[
        :count
    ]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_nearest_are_those_of_a_plain_search(filled, count):
    """Of other volumes: each anchor here is in the index itself."""
    anchors, volumes = filled.latest[:5].flatten(0, 1), torch.arange(5).repeat_interleave(VIEWS)
    found, there = filled.nearest(anchors, volumes, count)
    assert found.shape == (10, count, SIZE)
    assert there.all()
    for anchor, volume, rows in zip(anchors, volumes.tolist(), found, strict=True):
        assert rows.tolist() == by_loops(filled, anchor, volume, count)


def test_where_there_are_fewer_the_rest_is_told_to_be_missing(filled):
    """8 rows are of other volumes where the anchor's own is known, 10 where it is not."""
    found, there = filled.nearest(unit(2, SIZE, seed=1), torch.tensor([0, 5]), 12)
    assert found.shape[:2] == there.shape
    assert there.sum(dim=1).tolist() == [8, 10]
    assert there[0, :8].all()


def test_only_what_was_there_at_the_last_refresh_is_found(filled):
    before = filled.nearest(unit(1, SIZE, seed=1), torch.tensor([5]), 3)[0]
    filled.keep(unit(VIEWS, 6, SIZE, seed=2), torch.arange(6))
    assert torch.equal(filled.nearest(unit(1, SIZE, seed=1), torch.tensor([5]), 3)[0], before)
    assert filled.volumes == 5
    filled.refresh()
    assert not torch.equal(filled.nearest(unit(1, SIZE, seed=1), torch.tensor([5]), 3)[0], before)
    assert filled.volumes == 6


def test_a_volume_s_latest_embeddings_take_the_place_of_its_earlier_ones():
    memory = Memory(3, VIEWS, SIZE)
    first, second = unit(VIEWS, 2, SIZE), unit(VIEWS, 2, SIZE, seed=1)
    memory.keep(first, torch.tensor([2, 0]))
    memory.keep(second, torch.tensor([2, 1]))
    assert torch.equal(memory.latest, torch.stack([first[:, 1], second[:, 1], second[:, 0]]))
    assert memory.volumes == 0


def test_no_gradient_is_kept():
    memory = Memory(2, 1, SIZE)
    memory.keep(unit(1, 2, SIZE).requires_grad_(), torch.arange(2))
    assert not memory.latest.requires_grad


def test_the_state_tells_all_of_it(filled):
    other = Memory(VOLUMES, VIEWS, SIZE)
    other.load_state_dict(filled.state_dict())
    for memory in (other, copy.deepcopy(filled)):
        found = memory.nearest(unit(3, SIZE, seed=3), torch.arange(3), 4)
        expected = filled.nearest(unit(3, SIZE, seed=3), torch.arange(3), 4)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
