"""A batch is a function of seed and step, with every case and the foreground in their due shares."""

import threading
from collections import Counter

import numpy as np
import pytest
import torch
from fewvox.data.augment.chain import preset
from fewvox.data.labels import IGNORED, LabelTable
from fewvox.data.loader import PatchBatch, PatchConfig, PatchSampler
from fewvox.data.share import WHOLE, Share
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

PLAIN = {"augment": preset("none")}
TURN = {"rotation_probability": 1, "scale_probability": 1, "flip_probability": 0.5}
TURNED, TURNED_ALONE = ({"augment": preset(name, spatial=TURN)} for name in ("nnunet", "none"))


@pytest.fixture(scope="module")
def sampler(tiny_store):
    """A sampler of the store's cases; keywords replace the defaults."""

    def make(
        *, cases=tuple(tiny_store.cases), patch=(6, 8, 8), batch=2, seed=0, share=WHOLE, **config
    ) -> PatchSampler:
        return PatchSampler(tiny_store, cases, patch, batch, PatchConfig(**config), seed, share)

    return make


def same(one: PatchBatch, other: PatchBatch) -> bool:
    images, labels = torch.equal(one.images, other.images), torch.equal(one.labels, other.labels)
    return images and labels and one.cases == other.cases


def test_a_batch_has_the_shapes_it_tells(sampler):
    batch = sampler(**TURNED).batch(0)
    assert (batch.images.shape, batch.images.dtype) == ((2, 1, 6, 8, 8), torch.float32)
    assert (batch.labels.shape, batch.labels.dtype) == ((2, 6, 8, 8), torch.int8)
    assert batch.labels.max() <= 2


def test_a_batch_depends_on_seed_and_step_alone(sampler):
    one, other = sampler(**TURNED), sampler(**TURNED)
    forwards = [one.batch(step) for step in range(4)]
    backwards = [other.batch(step) for step in (3, 2, 1, 0)][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards, strict=True))


@pytest.mark.parametrize("step", [0, 3])
def test_the_shares_of_several_processes_are_the_batch_of_one(sampler, step):
    whole = sampler(batch=6, **TURNED).batch(step)
    shares = [sampler(share=Share(index, 3), **TURNED).batch(step) for index in range(3)]
    assert torch.equal(torch.cat([share.images for share in shares]), whole.images)
    assert torch.equal(torch.cat([share.labels for share in shares]), whole.labels)
    assert sum((share.cases for share in shares), ()) == whole.cases


def test_steps_and_seeds_give_different_batches(sampler):
    drawn = [sampler().batch(0), sampler().batch(1), sampler(seed=1).batch(0)]
    assert not any(torch.equal(a.images, b.images) for a, b in zip(drawn, drawn[1:] + drawn[:1], strict=True))


def test_a_seed_also_draws_places_and_turns(sampler):
    places: dict = PLAIN
    # a random patch as large as the volume has one place only
    turns = {"patch": (12, 16, 14), "foreground_share": 0.0, **TURNED_ALONE}
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


@pytest.mark.parametrize("patch", [(5, 7, 9), (6, 8, 8)])
def test_it_stays_there_however_the_patch_is_turned_and_deformed(sampler, patch):
    spatial = TURN | {"shear_probability": 1, "elastic_probability": 1}
    made = sampler(patch=patch, foreground_share=1.0, augment=preset("none", spatial=spatial))
    middles = [made.batch(step).labels[:, *(n // 2 for n in patch)] for step in range(20)]
    assert set(torch.cat(middles).tolist()) == {1, 2}


@pytest.mark.parametrize(
    ("share", "of"),
    [(1 / 3, 3), (0.333, 3), (0.67, 100), (0.5, 2), (0.25, 4), (1, 1), (0, 1), (0.335, 200), (0.004, 250)],
)
def test_any_run_of_patches_has_its_share_of_foreground(sampler, share, of):
    made = sampler(foreground_share=share)
    for first in (0, 1, 2, 10**6, 10**12 + 1):
        for length in (of, 5 * of):
            run = [made._is_foreground(k) for k in range(first, first + length)]
            assert sum(run) == round(share * of) * length // of


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
    still = {"rotation_probability": 1, "rotation_degrees": 0, "scale_probability": 0, "flip_probability": 0}
    turned, plain = sampler(augment=preset("none", spatial=still)), sampler(**PLAIN)
    for step in range(5):
        one, other = turned.batch(step), plain.batch(step)
        torch.testing.assert_close(one.images, other.images, atol=1e-4, rtol=0)
        assert torch.equal(one.labels, other.labels)


def test_image_and_label_are_of_one_place(sampler):
    """Blobs are a hundred grey values brighter per class, twenty times the noise."""
    made = sampler(foreground_share=1.0, **TURNED_ALONE)
    for step in range(5):
        batch = made.batch(step)
        images, labels = batch.images[:, 0], batch.labels
        brightness = [images[labels == value].mean() for value in range(3) if (labels == value).any()]
        assert len(brightness) > 1
        assert (np.diff(brightness) > 1).all()


def test_a_sampler_without_cases_is_refused(sampler):
    with pytest.raises(ValueError, match="at least one case"):
        sampler(cases=())


SHAPE = (9, 12, 10)
PARTIAL = LabelTable(values=(0, 1, 2), ignore=255)
OVERLAPPING = LabelTable(kind="overlapping", values=(0, 1, 2), ignore=255)
# turns a patch far out of the box that is read for it
FAR = {"rotation_probability": 1, "rotation_degrees": 180, "scale_probability": 1, "flip_probability": 0}


def two_slices() -> np.ndarray:
    """Class numbers with annotation in the first slice and in a middle one; class 2 is in the first alone."""
    numbers = np.full(SHAPE, IGNORED, np.int8)
    numbers[[0, 5]] = 0
    numbers[0, :4, :4] = 2
    numbers[5, 4:8, 3:7] = 1
    return numbers


def numbered(numbers: np.ndarray) -> np.ndarray:
    """An image that tells its label and is nowhere 0; each channel has a decimal of its own."""
    channels = numbers.reshape(-1, *numbers.shape[-3:]).astype(np.float32) + 2
    return np.sum([channel * 10.0 ** (1 + n) for n, channel in enumerate(channels)], axis=0)


@pytest.fixture(scope="module")
def stores(tmp_path_factory, write_store):
    """Stores of one case, annotated in part: with background, without, nowhere, or of overlapping classes."""
    slices, nowhere = two_slices(), np.full(SHAPE, IGNORED, np.int8)
    alone = np.where(slices > 0, slices, IGNORED).astype(np.int8)
    overlapping = np.stack([slices > 0, slices == 1]).astype(np.int8)
    overlapping[:, slices == IGNORED] = IGNORED
    folder = tmp_path_factory.mktemp("partial")
    labels = {"slices": slices, "alone": alone, "nowhere": nowhere, "overlapping": overlapping}
    return {
        name: write_store(
            folder / name,
            OVERLAPPING if name == "overlapping" else PARTIAL,
            {"a": (numbered(numbers), numbers)},
        )
        for name, numbers in labels.items()
    }


def drawn(store, *, steps=8, patch=(4, 6, 4), batch=2, **config) -> PatchBatch:
    """The items of the first steps in one batch."""
    made = PatchSampler(store, ("a",), patch, batch, PatchConfig(**config), 0)
    batches = [made.batch(step) for step in range(steps)]
    images, labels = (torch.cat([getattr(b, name) for b in batches]) for name in ("images", "labels"))
    return PatchBatch(images=images, labels=labels, cases=("a",) * len(images))


@pytest.mark.parametrize(("share", "middles"), [(1.0, {1, 2}), (0.5, {0, 1, 2}), (0.0, {0})])
def test_every_patch_of_a_partial_annotation_has_an_annotated_voxel_in_its_middle(stores, share, middles):
    labels = drawn(stores["slices"], foreground_share=share, **PLAIN).labels
    found = labels[:, 2, 3, 2].tolist()
    assert set(found) == middles
    assert sum(value > 0 for value in found) == share * len(found)


def test_without_annotated_background_every_patch_is_centred_on_foreground(stores):
    labels = drawn(stores["alone"], foreground_share=0.0, **PLAIN).labels
    assert set(labels[:, 2, 3, 2].tolist()) == {1, 2}


def test_a_case_that_nobody_annotated_gives_patches_without_any_class(stores):
    batch = drawn(stores["nowhere"], **TURNED, steps=2)
    assert (batch.labels == IGNORED).all()
    assert torch.isfinite(batch.images).all()


@pytest.mark.parametrize("spatial", [None, TURN, FAR])
@pytest.mark.parametrize("name", ["slices", "overlapping"])
def test_what_is_beyond_a_partial_annotation_s_border_is_unannotated(stores, name, spatial):
    """Background there would outweigh the few slices that somebody annotated."""
    batch = drawn(stores[name], patch=(8, 14, 12), augment=preset("none", spatial=spatial))
    labels = batch.labels.view(len(batch.labels), -1, 8, 14, 12)
    outside = batch.images == 0
    assert outside.any()
    assert (labels[outside.expand_as(labels)] == IGNORED).all()
    assert (labels >= 0).flatten(1).any(dim=1).all()


def test_what_is_beyond_the_border_of_a_whole_annotation_is_background(sampler):
    assert sampler(patch=(20, 20, 20), **TURNED).batch(0).labels.min() == 0


@pytest.mark.parametrize("name", ["slices", "overlapping"])
def test_labels_follow_their_image_through_every_turn(stores, name):
    """The image tells the label: flips and turns by no degree keep both exactly."""
    flips = {"rotation_probability": 0, "scale_probability": 0, "flip_probability": 0.5}
    batch = drawn(stores[name], augment=preset("none", spatial=flips))
    labels = batch.labels.view(len(batch.labels), -1, 4, 6, 4).numpy()
    told = np.stack([numbered(item) for item in labels])
    inside = batch.images[:, 0].numpy() != 0
    np.testing.assert_allclose(batch.images[:, 0].numpy()[inside], told[inside], rtol=1e-3)
    assert set(np.unique(labels)) == {IGNORED, 0, 1} | ({2} if name == "slices" else set())


def test_turned_labels_of_a_partial_annotation_are_those_of_its_voxels(stores):
    """No value between two class numbers, nor between them and the unannotated, is ever made."""
    for name, known in (("slices", {IGNORED, 0, 1, 2}), ("overlapping", {IGNORED, 0, 1})):
        labels = drawn(stores[name], **TURNED, steps=12).labels
        assert labels.dtype == torch.int8
        assert set(labels.unique().tolist()) == known


def test_overlapping_classes_have_a_channel_each(stores):
    batch = drawn(stores["overlapping"], foreground_share=1.0, steps=20, **PLAIN)
    assert batch.labels.shape == (40, 2, 4, 6, 4)
    middles = batch.labels[:, :, 2, 3, 2]
    assert middles.amax(dim=1).eq(1).all()
    assert middles.float().mean(dim=0).tolist() == [1, pytest.approx(0.75, abs=0.15)]
