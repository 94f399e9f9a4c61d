"""What is watched for collapse, on embeddings whose measures are known."""

import math

import numpy as np
import pytest
import torch
from fewvox.ssl.monitors import effective_rank, measure


def normal(views: int, size: int, seed=0) -> torch.Tensor:
    return torch.randn(views, size, generator=torch.Generator().manual_seed(seed))


def unit(embeddings: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(embeddings, dim=1)


def by_loops(embeddings: np.ndarray, volumes: list[str]) -> tuple[float, float, float, float]:
    """Spread, effective rank, retrieval and chance, as their descriptions have them."""
    views, size = embeddings.shape
    spread = np.mean([np.std(embeddings[:, d]) for d in range(size)]) * math.sqrt(size)
    centred = embeddings - embeddings.mean(axis=0)
    shares = np.linalg.svd(centred, compute_uv=False)
    shares = shares[shares > 1e-12] / shares.sum()
    rank = math.exp(-sum(p * math.log(p) for p in shares))
    hits, chances = [], []
    for i in range(views):
        others = [j for j in range(views) if j != i]
        partners = [j for j in others if volumes[j] == volumes[i]]
        if not partners:
            continue
        norm = np.linalg.norm
        likeness = {j: centred[i] @ centred[j] / norm(centred[i]) / norm(centred[j]) for j in others}
        hits.append(max(others, key=lambda j: likeness[j]) in partners)
        chances.append(len(partners) / len(others))
    return float(spread), rank, float(np.mean(hits)), float(np.mean(chances))


@pytest.mark.parametrize(
    "volumes", [list("aabbccdd"), list("abcdabcd"), list("aaabbcde"), list("aaaaaaab"), list("zayxzayx")]
)
@pytest.mark.parametrize("size", [3, 12])
def test_measures_are_those_of_plain_loops(volumes, size):
    z = unit(normal(8, size) + normal(26, size, 1)[[ord(v) - ord("a") for v in volumes]])
    found = measure(z, volumes)
    expected = by_loops(z.double().numpy(), volumes)
    assert (found.spread, found.effective_rank, found.retrieval, found.chance) == pytest.approx(expected)


def test_collapsed_embeddings_have_neither_spread_nor_rank():
    found = measure(unit(normal(1, 16)).expand(20, 16), [f"v{i // 2}" for i in range(20)])
    assert found.spread == pytest.approx(0, abs=1e-6)
    assert found.effective_rank == 0


def test_spread_is_that_of_unit_vectors_alone():
    """Pooled features have a large part in common, by which they would look collapsed."""
    assert measure(100 + normal(20, 8), [f"v{i // 2}" for i in range(20)]).spread is None


def test_embeddings_on_a_line_have_rank_one():
    found = measure(normal(20, 1) * normal(1, 16, 1), [f"v{i // 2}" for i in range(20)])
    assert found.effective_rank == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("directions", [1, 2, 5])
def test_the_rank_counts_directions_of_equal_length(directions):
    values = torch.zeros(9, 7)
    values[:directions, :directions] = 3 * torch.eye(directions)
    assert effective_rank(values) == pytest.approx(directions, abs=1e-6)


def test_random_embeddings_spread_everywhere_and_find_nothing():
    found = measure(unit(normal(1000, 8)), [f"v{i // 4}" for i in range(1000)])
    assert found.spread == pytest.approx(1, abs=0.01)
    assert found.effective_rank == pytest.approx(8, abs=0.1)
    assert found.chance == pytest.approx(3 / 999)
    assert found.retrieval == pytest.approx(found.chance, abs=0.01)


def test_clusters_far_apart_are_all_found():
    volumes = [f"v{i % 10}" for i in range(30)]
    found = measure(10 * normal(10, 8).repeat(3, 1) + 0.01 * normal(30, 8, 1), volumes)
    assert (found.retrieval, found.chance) == (1, pytest.approx(2 / 29))


def test_what_all_embeddings_share_hides_no_retrieval():
    """Far from the origin every cosine is near 1; only after centring do they tell volumes apart."""
    volumes = [f"v{i % 10}" for i in range(20)]
    found = measure(1e4 + normal(10, 8).repeat(2, 1) + 0.01 * normal(20, 8, 1), volumes)
    assert found.retrieval == 1


def test_one_view_of_each_volume_has_no_retrieval():
    found = measure(unit(normal(5, 8)), list("abcde"))
    assert found.retrieval is None
    assert found.chance is None
    assert found.spread is not None
    assert found.spread > 0
