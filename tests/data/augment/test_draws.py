"""Random numbers that a seed alone decides."""

import numpy as np
import pytest
import torch
from fewvox.data.augment.draws import Draws


def some(seed) -> tuple:
    draws = Draws(seed)
    return (
        draws.within((0, 1)),
        draws.factor((0.5, 2)),
        draws.integer(0, 10**9),
        draws.normal(torch.empty(5)).tolist(),
    )


def test_the_seed_alone_decides():
    torch.manual_seed(0)
    np.random.seed(0)
    first = some((1, 2))
    torch.manual_seed(1)
    np.random.seed(1)
    assert some((1, 2)) == first
    assert some((1, 3)) != first
    assert some((2, 1)) != first


def test_a_factor_is_above_one_half_of_the_time():
    draws = Draws((0,))
    factors = np.array([draws.factor((0.9, 3.0)) for _ in range(1000)])
    assert (factors > 1).mean() == pytest.approx(0.5, abs=0.05)
    assert 0.9 <= factors.min() < 0.91
    assert 2.9 < factors.max() <= 3.0
    assert all(1.1 <= draws.factor((1.1, 1.2)) <= 1.2 for _ in range(50))


def test_whole_numbers_reach_both_ends():
    draws = Draws((0,))
    assert {draws.integer(2, 4) for _ in range(100)} == {2, 3, 4}


def test_a_chance_comes_as_often_as_told():
    draws = Draws((0,))
    assert np.mean([draws.chance(0.2) for _ in range(2000)]) == pytest.approx(0.2, abs=0.03)
    assert not any(draws.chance(0) for _ in range(100))
    assert all(draws.chance(1) for _ in range(100))


@pytest.mark.parametrize("shape", [(1,), (3, 4, 5), (2, 40, 40, 41)])
def test_normal_numbers_have_the_shape_and_type_asked_for(shape):
    numbers = Draws((0,)).normal(torch.empty(shape))
    assert numbers.shape == shape
    assert numbers.dtype == torch.float32


def test_normal_numbers_are_normal():
    numbers = Draws((0,)).normal(torch.empty(200_000)).numpy().astype(np.float64)
    limits = np.array([-3.0, -2, -1, -0.5, 0, 0.5, 1, 2, 3])
    expected = [0.00135, 0.02275, 0.15866, 0.30854, 0.5, 0.69146, 0.84134, 0.97725, 0.99865]
    np.testing.assert_allclose([(numbers < limit).mean() for limit in limits], expected, atol=0.004)
    assert numbers.mean() == pytest.approx(0, abs=0.01)
    assert numbers.std() == pytest.approx(1, abs=0.01)
    for lag in (1, 2, 3, 8):
        assert np.corrcoef(numbers[lag:], numbers[:-lag])[0, 1] == pytest.approx(0, abs=0.01)
