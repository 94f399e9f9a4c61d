"""TorchIO's transforms do in the chain what they do by themselves; labels follow, random states stay."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import torch
import yaml
from fewvox.data.augment import torchio_transform
from fewvox.data.augment.chain import (
    AugmentConfig,
    changed,
    changed_with_labels,
    check_intensity_only,
    completed,
)
from fewvox.data.augment.draws import Draws
from fewvox.data.augment.intensity import Brightness
from fewvox.data.augment.torchio_transform import TorchIO
from fewvox.data.errors import UserError
from fewvox.data.settings import SettingsError, parse, plain
from torchio import LabelMap, ScalarImage, Subject, transforms

RNG = np.random.default_rng(0)
IMAGE = torch.from_numpy(RNG.normal(size=(2, 12, 16, 14)).astype(np.float32))
LABELS = torch.from_numpy(RNG.integers(-1, 3, (1, 12, 16, 14)))
AFFINE = {"transform": "RandomAffine", "arguments": {"degrees": 20, "default_pad_label": -1}}
NOISE = {"transform": "RandomNoise", "arguments": {"std": [1, 2]}}
FLIP = {"transform": "RandomFlip", "arguments": {"axes": [0, 1, 2], "flip_probability": 1}}
SOME = {
    "motion": {"transform": "RandomMotion"},
    "affine": AFFINE,
    "noise": NOISE,
    "one_of": {"transform": "OneOf", "arguments": {"transforms": [NOISE, FLIP]}},
    "compose": {"transform": "Compose", "arguments": {"transforms": {"first": AFFINE, "then": NOISE}}},
}


def operation(said: dict) -> TorchIO:
    return TorchIO(**said, probability=1.0)


def chain_of(said: dict) -> dict:
    """As a configuration file has it."""
    text = yaml.safe_dump({"chain": {"mine": {"op": "torchio", "probability": 1.0, **said}}})
    return dict(parse(AugmentConfig, completed("none")(yaml.safe_load(text)), "train.yaml").chain)


def by_hand(transform: transforms.Transform, seed: int, spacing=(1.0, 1.0, 1.0)) -> Subject:
    """What TorchIO itself makes of image and labels, in its own order of axes."""
    affine = np.diag([*spacing[::-1], 1])
    image, labels = (np.ascontiguousarray(t.numpy().transpose(0, 3, 2, 1)) for t in (IMAGE, LABELS.int()))
    subject = Subject(
        image=ScalarImage(tensor=image, affine=affine),
        labels=LabelMap(tensor=labels, affine=affine),
    )
    with torch.random.fork_rng():
        torch.manual_seed(Draws((seed,)).integer(0, 2**62))
        return transform(subject)


@pytest.mark.parametrize(
    ("said", "transform"),
    [
        (SOME["motion"], transforms.RandomMotion()),
        (AFFINE, transforms.RandomAffine(degrees=20, default_pad_label=-1)),
        (NOISE, transforms.RandomNoise(std=(1, 2))),
        (
            SOME["one_of"],
            transforms.OneOf([transforms.RandomNoise(std=(1, 2)), transforms.RandomFlip((0, 1, 2), 1)]),
        ),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_result_is_torchios_own_with_the_same_seed(said, transform, seed):
    spacing = (3.0, 1.0, 2.0)
    image, labels = operation(said).on_both(IMAGE.clone(), LABELS.clone(), Draws((seed,)), spacing)
    expected = by_hand(transform, seed, spacing)
    np.testing.assert_array_equal(image, expected["image"].numpy().transpose(0, 3, 2, 1))
    np.testing.assert_array_equal(labels, expected["labels"].numpy().transpose(0, 3, 2, 1))
    assert (image.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert not torch.equal(image, IMAGE)


@pytest.mark.parametrize("said", [AFFINE, FLIP])
def test_labels_lie_where_the_image_does(said):
    """The image is its own label map: what both say agrees after a turn, and -1 stays -1."""
    coarse = torch.full((1, 12, 16, 14), -1)
    coarse[:, 2:10, 3:9, 3:7], coarse[:, 2:10, 3:9, 7:12] = 0, 2
    arguments = said["arguments"] | ({"image_interpolation": "nearest"} if said is AFFINE else {})
    arguments |= {"default_pad_value": -1} if said is AFFINE else {}
    turn = operation({**said, "arguments": arguments})
    image, labels = turn.on_both(coarse.float(), coarse.clone(), Draws((1,)))
    assert set(labels.unique().tolist()) == {-1, 0, 2}
    assert torch.equal(image.round().long(), labels)
    assert not torch.equal(labels, coarse)


@pytest.mark.parametrize("name", SOME)
def test_every_random_state_is_left_as_it_was_and_has_no_say(name):
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    one = changed(IMAGE.clone(), chain_of(SOME[name]), 3)
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    torch.manual_seed(2)
    assert torch.equal(one, changed(IMAGE.clone(), chain_of(SOME[name]), 3))
    assert not torch.equal(one, changed(IMAGE.clone(), chain_of(SOME[name]), 4))


def test_threads_do_not_take_numbers_from_each_other(monkeypatch):
    """Two that draw twice meet in between, if nothing keeps them apart."""
    met = threading.Barrier(2)

    def drawn_twice(subject):
        first = torch.rand(())
        with suppress(threading.BrokenBarrierError):
            met.wait(0.5)
        subject["image"].set_data(torch.full_like(subject["image"].data, first + torch.rand(())))
        return subject

    monkeypatch.setattr(torchio_transform, "built", lambda name, arguments: drawn_twice)
    noise = operation(NOISE)
    with ThreadPoolExecutor(2) as threads:
        made = list(threads.map(lambda seed: noise(IMAGE.clone(), Draws((seed,))), [0, 1]))
    for seed, image in enumerate(made):
        assert torch.equal(image, noise(IMAGE.clone(), Draws((seed,))))


def test_with_labels_or_without_the_image_is_the_same_in_its_place_in_the_chain():
    chain = {"brightness": Brightness(probability=1.0), **chain_of(AFFINE), "none": None}
    alone = changed(IMAGE.clone(), chain, 5)
    image, labels = changed_with_labels(IMAGE.clone(), LABELS.clone(), chain, 5)
    assert torch.equal(image, alone)
    assert not torch.equal(labels, LABELS)


@pytest.mark.parametrize("name", ["motion", "affine", "noise"])
def test_a_single_slice_is_transformed_too(name):
    image, labels = operation(SOME[name]).on_both(IMAGE[:, :1].clone(), LABELS[:, :1].clone(), Draws((0,)))
    assert image.shape == (2, 1, 16, 14)
    assert labels.shape == (1, 1, 16, 14)


def test_lengths_are_measured_by_the_spacing():
    blur = operation({"transform": "RandomBlur", "arguments": {"std": [2, 2]}})
    fine, coarse = (blur.on_both(IMAGE.clone(), None, Draws((0,)), (s,) * 3)[0].std() for s in (1.0, 4.0))
    assert fine < coarse


@pytest.mark.parametrize(
    ("said", "spatial"),
    [
        (SOME["motion"], False),
        (AFFINE, True),
        (SOME["one_of"], True),
        (SOME["compose"], True),
        ({"transform": "OneOf", "arguments": {"transforms": [NOISE, NOISE]}}, False),
        ({"transform": "RandomAnisotropy"}, False),
        ({"transform": "KeepLargestComponent"}, True),
    ],
)
def test_what_may_move_voxels_is_refused_for_views(said, spatial):
    chain = {**chain_of(said), "brightness": Brightness(), "none": None}
    assert chain["mine"].is_spatial == spatial
    if not spatial:
        return check_intensity_only(AugmentConfig(chain=chain), "views.augment")
    told = r"^views\.augment\.chain\.mine: TorchIO's \w+ may move .* set in views\.augment\.spatial"
    with pytest.raises(UserError, match=told):
        check_intensity_only(AugmentConfig(chain=chain), "views.augment")
    return None


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"transform": "RandomNosie"}, "mine.*no transform 'RandomNosie', it has: Affine, .*RandomNoise"),
        ({"transform": "Subject"}, "no transform 'Subject'"),
        ({"transform": "Transform"}, "abstract"),
        ({"transform": "RandomNoise", "arguments": {"sdt": 1}}, "RandomNoise does not take .*'sdt'"),
        ({"transform": "RandomNoise", "arguments": {"std": -1}}, "RandomNoise does not take"),
        ({"transform": "OneOf", "arguments": {"transforms": [{"transform": "Nope"}]}}, "no transform 'Nope'"),
        (
            {"transform": "OneOf", "arguments": {"transforms": [{"transform": "RandomNoise", "p": 1}]}},
            r"`transform` and `arguments`, not \['p'\]",
        ),
        ({"transform": "RandomFlip", "arguments": {"include": ["image"]}}, "leave out include"),
        ({"transform": "RandomAffine", "arguments": {"label_interpolation": "linear"}}, "nearest"),
    ],
)
def test_what_torchio_does_not_have_or_take_is_told_when_settings_are_read(said, told):
    with pytest.raises(SettingsError, match=rf"(?s)train.yaml: .*{told}"):
        chain_of(said)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            {"transform": "Crop", "arguments": {"cropping": 2}},
            r"TorchIO's Crop: it made image of \(2, 8, 12, 10\) \(of a patch of \(2, 12, 16, 14\)",
        ),
        (
            {
                "transform": "Compose",
                "arguments": {
                    "transforms": [
                        {"transform": "RemapLabels", "arguments": {"remapping": {-1: 0}}},
                        {"transform": "OneHot"},
                    ]
                },
            },
            r"Compose: it made labels of \(3, 12, 16, 14\)",
        ),
        ({"transform": "RandomSwap", "arguments": {"patch_size": 15}}, "RandomSwap: ValueError: Patch size"),
        ({"transform": "Mask", "arguments": {"masking_method": "brain"}}, "TorchIO's Mask: "),
    ],
)
def test_a_transform_that_fails_or_changes_the_shape_is_told_of(said, told):
    with pytest.raises(UserError, match=told):
        operation(said).on_both(IMAGE.clone(), LABELS.clone(), Draws((0,)))


def test_values_that_are_not_finite_are_told_of():
    noise = operation({"transform": "RandomNoise", "arguments": {"std": [3e38, 3e38]}})
    with pytest.raises(UserError, match="RandomNoise: it made values that are not finite"):
        noise.on_both(IMAGE.clone(), None, Draws((0,)))


def test_settings_with_a_transform_survive_being_written():
    chain = chain_of(SOME["compose"])
    assert parse(TorchIO, plain(chain["mine"]), "again") == chain["mine"]


def test_class_numbers_survive_being_written():
    remap = operation({"transform": "RemapLabels", "arguments": {"remapping": {-1: 0, 2: 1}}})
    for each in (remap, parse(TorchIO, plain(remap), "again")):
        labels = each.on_both(IMAGE.clone(), LABELS.clone(), Draws((0,)))[1]
        assert set(labels.unique().tolist()) == {0, 1}
