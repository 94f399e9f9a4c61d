"""A volume predicted region by region has the mask it would have as a whole."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.data.labels import LabelTable
from fewvox.data.preprocess import Prepared, preprocess
from fewvox.data.reading import measured_image
from fewvox.data.resample import resample
from fewvox.data.volume import OpenVolume, Volume
from fewvox.seg import predict
from fewvox.seg.predict import Model, PredictConfig, Predictor
from fewvox.seg.regions import Rolling, Stream
from fewvox.seg.sliding_window import stitch
from fewvox.seg.tiles import Tiles
from torch import nn

SHAPE = (11, 30, 13)
SPACING = (2.0, 1.0, 1.0)
# as stored, finer than stored, coarser than stored
TARGETS = [SPACING, (1.3, 0.8, 0.9), (3.0, 1.7, 1.2)]


class Blurring(nn.Module):
    """Three classes that depend on all voxels nearby and, through padding, on the place in the window."""

    def __init__(self, seed=0):
        super().__init__()
        self.mix = nn.Conv3d(1, 3, 5, padding=2)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.mix.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward(self, images):
        return self.mix(images)


class OnDisk:
    """An array that is read part by part, and remembers how many voxels the largest part had."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.largest = array, array.shape, array.dtype, 0

    def __getitem__(self, key):
        part = self.array[key]
        self.largest = max(self.largest, part.size)
        return part


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 200, (1, *SHAPE)).astype(np.uint8)


@pytest.fixture
def make_model(make_plan):
    def make(target=SPACING, patch=(4, 8, 8), seed=0, **fields):
        plan = make_plan(labels=LabelTable(values=(0, 3, 7)), spacing=target, patch=patch, **fields)
        return Model(network=Blurring(seed), plan=plan)  # type: ignore[arg-type]

    return make


@pytest.fixture
def cut(monkeypatch):
    """Cuts every volume into these rows."""

    def cut_at(*borders):
        ends = (0, *borders, SHAPE[1])
        rows = [slice(a, b) for a, b in pairwise(ends)]
        monkeypatch.setattr(predict, "regions", lambda *_: rows)

    return cut_at


def volume_of(array, **fields):
    return OpenVolume(array=array, spacing=SPACING, unit="mm", orientation="RAS", **fields)


def by_hand(model, volume):
    """Everything at once: the whole volume prepared, all its windows, and the whole resampled."""
    whole = preprocess(volume.load(), model.plan.preprocessing, "a")
    with torch.inference_mode():
        logits = stitch(model.network, torch.from_numpy(whole), model.plan.training.patch)
        return resample(logits.softmax(dim=0).numpy(), volume.shape)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("borders", [(), (7,), (1, 2, 15, 29)])
def test_regions_are_those_parts_of_the_whole(image, make_model, cut, target, borders):
    model, volume = make_model(target), volume_of(OnDisk(image))
    expected = by_hand(model, volume)
    cut(*borders)
    predictor = Predictor(models=(model,))
    found = predictor.probabilities_of(volume, "a")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    numbers = np.array([0, 3, 7])[expected.argmax(axis=0)]
    clear = np.diff(np.sort(expected, axis=0)[1:], axis=0)[0] > 1e-4
    np.testing.assert_array_equal(predictor.mask(volume, "a")[clear], numbers[clear])
    assert clear.mean() > 0.99


@pytest.mark.parametrize("patch", [(16, 8, 8), (4, 32, 8), (12, 32, 16), (2, 5, 3)])
def test_a_volume_smaller_than_the_patch_along_some_axis_is_cut_too(image, make_model, cut, patch):
    model, volume = make_model(patch=patch), volume_of(image)
    cut(4, 20)
    found = Predictor(models=(model,)).probabilities_of(volume, "a")
    np.testing.assert_allclose(found, by_hand(model, volume), rtol=0, atol=1e-5)


def test_what_is_not_in_memory_is_read_slab_by_slab(make_model, monkeypatch):
    deep = OnDisk(np.zeros((1, 64, 8, 8), np.uint8))
    deep.array[:, ::3] = 9
    monkeypatch.setattr("fewvox.data.slabs.SLAB_BYTES", 10 * 64)
    Predictor(models=(make_model(),)).mask(volume_of(deep), "a")
    assert deep.largest <= 10 * 64


def test_models_of_different_plans_are_averaged_on_the_volume_s_voxels(image, make_model, cut):
    volume = volume_of(image)
    models = (
        make_model(),
        make_model((1.3, 0.8, 0.9), (6, 10, 6), seed=1),
        make_model((3.0, 1.7, 1.2), seed=2),
    )
    expected = np.mean([by_hand(model, volume) for model in models], axis=0)
    for borders in [(), (9, 17)]:
        cut(*borders)
        found = Predictor(models=models).probabilities_of(volume, "a")
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_models_that_differ_in_classes_or_channels_are_refused(make_model, make_plan):
    one = make_model()
    other = Model(network=one.network, plan=make_plan(labels=LabelTable(values=(0, 3))))
    with pytest.raises(UserError, match=r"labels .*0, 3, 7.* in one and .*0, 3.* in another"):
        Predictor(models=(one, other))
    with pytest.raises(UserError, match="channels"):
        Predictor(models=(one, make_model(channels=("a", "b"), normalisation=("zscore", "zscore"))))


def test_voxels_that_are_not_finite_are_refused_before_anything_is_predicted(make_model, image):
    bad = image.astype(np.float32)
    bad[0, 5, 5, 5] = np.nan
    with pytest.raises(UserError, match="1 of 4290 voxels are NaN"):
        Predictor(models=(make_model(),)).mask(volume_of(OnDisk(bad)), "a")


def test_mirrored_windows_make_a_mirrored_volume_the_mirrored_mask(image, make_model):
    # windows lie symmetrically, and weights do where patches are odd
    model = make_model(patch=(5, 7, 5))
    for mirror, symmetric in ((True, True), (False, False)):
        predictor = Predictor(models=(model,), config=PredictConfig(mirror=mirror, overlap=0))
        cube = image[:, :10, :28, :10]
        found = predictor.probabilities_of(volume_of(cube), "a")
        turned = predictor.probabilities_of(volume_of(np.ascontiguousarray(cube[:, ::-1, :, ::-1])), "a")
        assert np.allclose(found, turned[:, ::-1, :, ::-1], rtol=0, atol=1e-5) == symmetric


@pytest.mark.parametrize("batch", [2, 5, 100])
def test_windows_in_batches_are_windows_one_by_one(image, make_model, batch):
    model, volume = make_model(), volume_of(image)
    one, many = (
        Predictor(models=(model,), config=PredictConfig(batch=n)).probabilities_of(volume, "a")
        for n in (1, batch)
    )
    np.testing.assert_allclose(one, many, rtol=0, atol=1e-6)


def test_a_stream_keeps_what_may_still_be_asked_for():
    whole = np.arange(2 * 10).reshape(2, 10, 1, 1)
    given = (whole[:, a:b] for a, b in ((0, 3), (3, 4), (4, 9), (9, 10)))
    stream = Stream(given)
    for z in (slice(0, 2), slice(1, 5), slice(4, 5), slice(9, 10)):
        np.testing.assert_array_equal(stream.take(z), whole[:, z])


def test_rolling_slices_are_those_of_the_prepared_volume(image, make_plan):
    how = make_plan(spacing=(1.5, 0.9, 1.1)).preprocessing
    volume = Volume(array=image, spacing=SPACING, unit="mm", orientation="RAS")
    whole = preprocess(volume, how, "a")
    prepared = Prepared.of(volume, how, measured_image(volume, "a"), "a")
    tiles = Tiles(shape=prepared.shape, patch=(6, 8, 8))
    rolling = Rolling(prepared, tiles, slice(9, 10))
    first, last = tiles.touching(slice(9, 10))[0], tiles.touching(slice(9, 10))[-1]
    for start in tiles.starts[0]:
        expected = whole[:, start : start + 6, first : last + 8]
        np.testing.assert_allclose(rolling(start).numpy(), expected, rtol=0, atol=1e-5)
