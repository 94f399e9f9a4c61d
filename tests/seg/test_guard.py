"""Images unlike those of a pretraining are warned of with what was measured; images alike are not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fewvox.data.store import Store
from fewvox.seg.guard import answers_apart, contrast, distance, guard, patches_of
from fewvox.seg.inputs import ChannelStatistics, input_statistics
from fewvox.seg.networks.registry import architecture_for, build
from hypothesis import given
from hypothesis import strategies as st

CASES = tuple(f"c{n:02}" for n in range(10))


@pytest.fixture(scope="module")
def halves(tiny_store) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches of five volumes, and of the five others."""
    first, second = (patches_of(tiny_store, cases, (8, 12, 12)) for cases in (CASES[:5], CASES[5:]))
    return first, second


@pytest.fixture
def network(make_plan):
    return build(architecture_for(make_plan(width=8)), seed=0)


def random_statistics(values: np.ndarray) -> ChannelStatistics:
    quantiles = tuple(np.percentile(values, (1, 5, 25, 50, 75, 95, 99)).tolist())
    return ChannelStatistics(mean=float(values.mean()), std=float(values.std()), quantiles=quantiles)


def test_two_halves_of_a_data_set_are_alike(halves, network):
    found = guard(input_statistics(network, halves[0]), network, halves[1])
    assert found.warnings == ()
    assert found.figures["channel 0: distance of grey values"] < 0.1
    assert found.figures["channel 0: contrast"] == pytest.approx(1, abs=0.1)
    assert 0 < found.figures["answers of the first convolution"] < 0.1


def test_another_normalisation_is_told(halves, network):
    """Percentiles to 0 and 1 instead of z-scores: another mean, another contrast, the same structures."""
    source = input_statistics(network, halves[0])
    told = guard(source, network, halves[1] * 0.25 + 0.5).warnings[0]
    assert told.startswith("grey values of channel 0 are others than in pretraining: 0.")
    assert "the mean 0." in told
    assert "higher, the contrast 0.2" in told
    scaled = guard(source, network, halves[1] * 0.25)
    assert len(scaled.warnings) == 1
    assert scaled.figures["answers of the first convolution"] < 0.1
    raw = guard(source, network, halves[1] * 100 + 300)
    assert raw.figures["channel 0: distance of grey values"] > 100


def test_another_resolution_is_told(halves, network):
    finer = halves[1].repeat_interleave(2, dim=-1)
    (told,) = guard(input_statistics(network, halves[0]), network, finer).warnings
    assert told.startswith(
        "fine structures are others than in pretraining: at equal contrast the first filters"
    )
    assert "A wrong voxel spacing does this" in told


def test_filters_that_no_longer_answer_are_told_without_a_number(halves, network):
    """As where the channels that one filter is spread over cancel each other."""
    source = input_statistics(network, halves[0])
    network.encoder[0][0][0].weight.data.zero_()
    (told,) = guard(source, network, halves[1]).warnings
    assert "the first filters answer more than 16 times more or less strongly (within one data set" in told


def test_answers_count_where_the_filters_are_those_of_the_source(halves, network, make_plan):
    source = input_statistics(network, halves[0])
    finer = halves[1].repeat_interleave(2, dim=-1)
    assert any("fine structures" in told for told in guard(source, network, finer).warnings)
    fresh = guard(source, network, finer, answers=False)
    wider = guard(source, build(architecture_for(make_plan(width=4)), seed=0), finer)
    for found in (fresh, wider):
        assert "answers of the first convolution" not in found.figures
        assert found.warnings == ()


def test_without_statistics_nothing_is_compared_and_that_is_told(halves, network):
    found = guard(None, network, halves[0])
    assert found.figures == {}
    assert found.warnings[0].startswith("the checkpoint does not tell what its images looked like")


def test_each_channel_is_compared_with_its_counterpart(halves, make_plan):
    two = make_plan(channels=("T1", "T2"), normalisation=("zscore", "zscore"), width=8)
    network = build(architecture_for(two), seed=0)
    images = torch.cat([halves[0], halves[0] * 3 + 1], dim=1)
    source, swapped = input_statistics(network, images), images.flip(1)
    assert guard(source, network, images).warnings == ()
    assert len(guard(source, network, swapped, answers=False).warnings) == 2
    assert guard(source, network, swapped, [(1,), (0,)], answers=False).warnings == ()
    # a channel that is made of all is compared with the most alike
    one = build(architecture_for(make_plan(width=8)), seed=0)
    assert guard(source, one, images[:, 1:], answers=False).warnings == ()
    assert guard(source, one, images[:, 1:], [(0,)], answers=False).warnings


def test_a_channel_that_shows_nothing_gives_numbers(halves, network):
    flat = torch.zeros_like(halves[0])
    source = input_statistics(network, halves[0])
    assert all(np.isfinite(v) for v in guard(source, network, flat).figures.values())
    assert guard(source, network, flat).warnings
    assert guard(input_statistics(network, flat), network, halves[0]).warnings


@given(st.integers(0, 2**32 - 1), st.floats(-3, 3), st.floats(0.2, 5))
def test_the_distance_of_shifted_and_scaled_values(seed, shift, scale):
    """Shifted values lie as far apart as the shift; the distance counts in deviations of the source."""
    values = np.random.default_rng(seed).normal(size=2000) * 2
    there = random_statistics(values)
    assert distance(there, there) == 0
    assert distance(there, random_statistics(values + shift * there.std)) == pytest.approx(abs(shift))
    assert distance(random_statistics(values * 7), random_statistics(values * 7 + shift)) == pytest.approx(
        abs(shift) / random_statistics(values * 7).std
    )
    assert contrast(there, random_statistics(values * scale)) == pytest.approx(scale)


def test_answers_are_compared_beyond_what_the_contrast_changes(halves, network):
    there = input_statistics(network, halves[0])
    here = replace(there, responses=tuple(r * 3 for r in there.responses))
    assert answers_apart(there, here, gain=np.log2(3)) == pytest.approx(0, abs=1e-9)
    assert answers_apart(there, here) == pytest.approx(np.log2(3))
    one = replace(there, responses=(there.responses[0] * 2, *there.responses[1:]))
    assert answers_apart(there, one) == pytest.approx(1 / len(there.responses))


def test_patches_are_of_all_cases_and_the_same_for_a_seed(tiny_store, monkeypatch):
    read = []
    image = Store.image
    monkeypatch.setattr(Store, "image", lambda self, case: read.append(case) or image(self, case))
    monkeypatch.setattr(Store, "label", lambda *_: pytest.fail("a label was read"))
    monkeypatch.setattr(Store, "foreground", lambda *_: pytest.fail("a label was read"))
    patches = patches_of(tiny_store, CASES[:3], (4, 8, 8), count=7, seed=5)
    assert patches.shape == (7, 1, 4, 8, 8)
    assert patches.dtype == torch.float32
    assert sorted(read.count(case) for case in CASES[:3]) == [2, 2, 3]
    torch.testing.assert_close(patches_of(tiny_store, CASES[:3], (4, 8, 8), count=7, seed=5), patches)
    assert not torch.equal(patches_of(tiny_store, CASES[:3], (4, 8, 8), count=7, seed=6), patches)
    assert len(set(read[:3])) == 3


def test_a_patch_larger_than_the_volume_holds_it_whole(tiny_store):
    (patch,) = patches_of(tiny_store, CASES[:1], (16, 24, 24), count=1)
    volume = tiny_store.image(CASES[0])[:]
    assert float(patch.sum()) == pytest.approx(float(volume.sum()), abs=1e-2)
    assert patch.count_nonzero() <= volume.size
