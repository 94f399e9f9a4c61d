"""A batch is a function of seed and step, with every case and the foreground in their due shares."""

import threading
from collections import Counter

import numpy as np
import pytest
import torch
from fewvox.data.augment.spatial import SpatialConfig
from fewvox.data.loader import PatchBatch, PatchConfig, PatchSampler
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

PLAIN = {"spatial": None, "intensity": None}
TURNED = SpatialConfig(rotation_probability=1, scale_probability=1, flip_probability=0.5)


@pytest.fixture(scope="module")
def sampler(tiny_store):
    """A sampler of the store's cases; keywords replace the defaults."""

    def make(*, cases=tuple(tiny_store.cases), patch=(6, 8, 8), batch=2, seed=0, **config) -> PatchSampler:
        return PatchSampler(tiny_store, cases, patch, batch, PatchConfig(**config), seed)

    return make


def same(one: PatchBatch, other: PatchBatch) -> bool:
    images, labels = torch.equal(one.images, other.images), torch.equal(one.labels, other.labels)
    return images and labels and one.cases == other.cases


def test_a_batch_has_the_shapes_it_tells(sampler):
    batch = sampler(spatial=TURNED).batch(0)
    assert (batch.images.shape, batch.images.dtype) == ((2, 1, 6, 8, 8), torch.float32)
    assert (batch.labels.shape, batch.labels.dtype) == ((2, 6, 8, 8), torch.int64)
    assert batch.labels.max() <= 2


def test_a_batch_depends_on_seed_and_step_alone(sampler):
    one, other = sampler(spatial=TURNED), sampler(spatial=TURNED)
    forwards = [one.batch(step) for step in range(4)]
    backwards = [other.batch(step) for step in (3, 2, 1, 0)][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards, strict=True))


def test_steps_and_seeds_give_different_batches(sampler):
    drawn = [sampler().batch(0), sampler().batch(1), sampler(seed=1).batch(0)]
    assert not any(torch.equal(a.images, b.images) for a, b in zip(drawn, drawn[1:] + drawn[:1], strict=True))


def test_a_seed_also_draws_places_and_turns(sampler):
    places: dict = PLAIN
    # a random patch as large as the volume has one place only
    turns = {"patch": (12, 16, 14), "foreground_share": 0.0, "spatial": TURNED, "intensity": None}
    for config in (places, turns):
        one, other = (sampler(cases=("c00",), seed=seed, **config).batch(0) for seed in (0, 1))
        assert not torch.equal(one.images, other.images)


def test_batches_in_advance_are_the_batches_of_their_steps(sampler):
    made = sampler()
    supplied = list(made.batches(3, 7))
    assert len(supplied) == 4
    assert all(same(batch, made.batch(step)) for step, batch in enumerate(supplied, start=3))


def test_patches_that_nobody_takes_stop_without_harm(sampler):
    running, supply = threading.active_count(), sampler().batches(0, 100)
    next(supply)
    supply.close()
    assert threading.active_count() == running


@pytest.mark.parametrize("patch", [(5, 7, 9), (6, 8, 8)])
def test_a_foreground_patch_has_a_labelled_voxel_in_its_middle(sampler, patch):
    made = sampler(patch=patch, foreground_share=1.0, **PLAIN)
    middles = [made.batch(step).labels[:, *(n // 2 for n in patch)] for step in range(20)]
    assert set(torch.cat(middles).tolist()) == {1, 2}


@limits(max_examples=20)
@given(st.integers(0, 10))
def test_the_foreground_share_is_exact(sampler, tenths):
    # a random patch as large as the volume is the volume; one centred on a blob is not
    made = sampler(patch=(12, 16, 14), batch=10, foreground_share=tenths / 10, **PLAIN)
    batch = made.batch(1)
    whole = [
        np.array_equal(image[0], made.store.image(case)[0])
        for image, case in zip(batch.images.numpy(), batch.cases, strict=True)
    ]
    assert whole.count(False) == tenths


def test_classes_are_centred_equally_often(sampler, tiny_store):
    made = sampler(batch=10, foreground_share=1.0, **PLAIN)
    middles = torch.cat([made.batch(step).labels[:, 3, 4, 4] for step in range(30)])
    assert (middles == 1).float().mean() == pytest.approx(0.5, abs=0.1)


def test_every_case_comes_once_a_round_in_a_new_order(sampler, tiny_store):
    made = sampler(**PLAIN)
    drawn = [case for step in range(10) for case in made.batch(step).cases]
    rounds = [drawn[:10], drawn[10:]]
    assert [Counter(r) for r in rounds] == [Counter(list(tiny_store.cases))] * 2
    assert rounds[0] != rounds[1]


def test_a_volume_smaller_than_the_patch_lies_whole_in_it(sampler, tiny_store):
    made = sampler(cases=("c00",), patch=(20, 20, 20), foreground_share=0.0, **PLAIN)
    batch, label = made.batch(0), tiny_store.label("c00")[:]
    for value in (1, 2):
        assert (batch.labels == value).sum(dim=(1, 2, 3)).tolist() == [(label == value).sum()] * 2
    total = batch.images.sum(dim=(1, 2, 3, 4))
    np.testing.assert_allclose(total, tiny_store.image("c00")[:].sum(), atol=0.1)


def test_an_unturned_patch_is_the_same_with_and_without_room_to_turn(sampler):
    """The larger box that turns need has the patch exactly in its middle."""
    still = SpatialConfig(rotation_probability=1, rotation_degrees=0, scale_probability=0, flip_probability=0)
    turned, plain = sampler(spatial=still, intensity=None), sampler(**PLAIN)
    assert turned.read != plain.read
    for step in range(5):
        one, other = turned.batch(step), plain.batch(step)
        torch.testing.assert_close(one.images, other.images, atol=1e-4, rtol=0)
        assert torch.equal(one.labels, other.labels)


def test_image_and_label_are_of_one_place(sampler):
    """Blobs are a hundred grey values brighter per class, twenty times the noise."""
    made = sampler(foreground_share=1.0, spatial=TURNED, intensity=None)
    for step in range(5):
        batch = made.batch(step)
        images, labels = batch.images[:, 0], batch.labels
        brightness = [images[labels == value].mean() for value in range(3) if (labels == value).any()]
        assert len(brightness) > 1
        assert (np.diff(brightness) > 1).all()


def test_a_sampler_without_cases_is_refused(sampler):
    with pytest.raises(ValueError, match="at least one case"):
        sampler(cases=())
