"""The supply's bench: every peer makes what it says, and every ratio has its key."""

import random
import sys
from functools import partial

import numpy as np
import pytest
import torch
from fewvox.data.augment.chain import preset
from fewvox.experiments.bench import supply
from fewvox.experiments.bench.monai_patches import MonaiPatches
from fewvox.experiments.bench.one_thread import drawn_from, one_thread
from fewvox.experiments.bench.store import StoredVolumes, StoreSizes
from fewvox.experiments.bench.supply import SupplySizes, our_patches, supply_figures, training_augmentation
from fewvox.experiments.bench.torchio_patches import TorchIOPatches, TorchIOViews, contrasted, training_chain
from fewvox.experiments.bench.turned_box import TurnedBox
from fewvox.experiments.bench.two_views import TwoViews

PATCH = (24, 20, 28)
SIZES = SupplySizes(shape=(40, 44, 48), patch=PATCH, patches=2)
OF_INSTALLED = {"full_vs_torchio", "two_view_vs_torchio", "two_view_turned_vs_torchio", "workers_2_vs_1"}
OF_NNUNET = {"full_vs_nnunet", "spatial_vs_nnunet"}
ALIKE = ("scipy", "grid_sample", "simpleitk", "monai")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    sizes = StoreSizes(volumes=2, shape=SIZES.shape, patch=PATCH)
    return StoredVolumes.written(tmp_path_factory.mktemp("stored"), sizes)


def iter_batches(sampler, last):
    yield from map(sampler.batch, range(last))


def test_every_key_has_a_ratio_or_tells_what_to_install(monkeypatch):
    for name in ("nnunetv2", "batchgeneratorsv2", "acvl_utils", "biom3d"):
        monkeypatch.setitem(sys.modules, name, None)
    # processes take seconds to start, and have tests of their own
    monkeypatch.setattr(supply, "supplied", lambda sampler, first, last, workers: iter_batches(sampler, last))
    figures = supply_figures(1, SIZES)
    by_key = {figure.key: figure for figure in figures if figure.key}
    assert set(by_key) == OF_INSTALLED | OF_NNUNET | {"full_vs_biom3d"}
    for key in OF_INSTALLED:
        assert (by_key[key].ratio or 0) > 0
    for key in OF_NNUNET:
        assert by_key[key].ratio is None
        assert "pip install --no-deps nnunetv2" in (by_key[key].missing or "")
    assert "pip install --no-deps biom3d" in (by_key["full_vs_biom3d"].missing or "")
    assert all(figure.ours > 0 for figure in figures)
    parts = [figure.work for figure in figures if figure.peer is None]
    assert [work for work in parts if "gamma, which 30% of patches have" in work]
    assert len(parts) == 6 + len(training_augmentation().chain)


@pytest.fixture(scope="module")
def box():
    return TurnedBox.of(PATCH)


@pytest.mark.parametrize("library", ALIKE)
def test_all_libraries_turn_the_box_alike(box, library):
    image, labels = box.ours()
    theirs, their_labels = getattr(box, library)()
    np.testing.assert_allclose(image, theirs, atol=1e-4)
    assert (labels != their_labels).mean() < 1e-4
    assert 0.1 < labels.mean() < 0.9


def test_the_box_holds_all_that_is_turned_into_the_patch(box):
    last = np.array(PATCH) - 1
    corners = np.stack(np.meshgrid(*[[0, n] for n in last], indexing="ij")).reshape(3, -1)
    places = box.affine[:, :3] @ corners + box.affine[:, 3:]
    assert (places >= 0).all()
    assert (places.max(1) <= np.array(box.labels.shape) - 1).all()
    # a turn by 30, 20 and 10 degrees around the first, second and third axis, of things 1.1 times as large
    assert np.linalg.det(box.affine[:, :3]) == pytest.approx(1.1**-3)
    assert np.degrees(np.arctan2(box.affine[2, 1], box.affine[2, 2])) == pytest.approx(30)


def test_torchio_turns_another_way_but_as_far(box):
    image, labels = box.torchio()
    assert image.shape == labels.shape == PATCH
    assert np.abs(image - box.ours()[0]).max() > 0.1


def test_nnunet_turns_the_box_as_we_do(box):
    pytest.importorskip("batchgeneratorsv2")
    image, labels = box.nnunet()()
    ours, our_labels = box.ours()
    np.testing.assert_allclose(image, ours, atol=1e-4)
    # its labels are interpolated
    assert (labels != our_labels).mean() < 0.02


@pytest.mark.parametrize("peer", [TorchIOPatches, partial(TorchIOPatches, margin=False), MonaiPatches])
def test_peers_make_patches_that_their_seed_decides(stored, peer):
    made = peer(stored.store, PATCH)

    def voxels(seed):
        patches = made.patches(3, seed)
        both = [p if isinstance(p, tuple) else (p["image"], p["labels"]) for p in patches]
        assert all(part.shape == (1, *PATCH) for pair in both for part in pair)
        return torch.stack([torch.as_tensor(pair[0]) for pair in both])

    assert torch.equal(voxels(4), voxels(4))
    assert not torch.equal(voxels(4), voxels(5))


def test_ours_are_others_for_each_run_and_as_nnunet_has_them(stored):
    work = our_patches(stored.store, PATCH, 4)
    first, second = work(0), work(1)
    assert [batch.images.shape for batch in first] == [(2, 1, *PATCH)] * 2
    assert not torch.equal(first[0].images, second[0].images)
    assert torch.equal(second[0].images, work(1)[0].images)
    augment = training_augmentation()
    assert augment.spatial.flip_probability == 0.5
    assert augment.chain == preset("nnunet").chain


def test_torchio_does_what_nnunets_preset_does_as_often():
    chain, ours = training_chain(PATCH), preset("nnunet")
    rotated, scaled = ours.spatial.rotation_probability, ours.spatial.scale_probability
    assert chain.transforms[0].probability == pytest.approx(1 - (1 - rotated) * (1 - scaled))
    assert sum(chain.transforms[0].transforms_dict.values()) == pytest.approx(1)
    noise, blur, brightness, contrast, _, inverted, gamma = (t.probability for t in chain.transforms[2:9])
    found = {"noise": noise, "brightness": brightness, "contrast": contrast, "gamma": gamma}
    found |= {"inverted_gamma": inverted, "blur": blur / ours.chain["blur"].channel_probability}
    assert found == {name: pytest.approx(ours.chain[name].probability) for name in found}


def test_contrast_stays_within_the_range_and_around_the_mean():
    image = torch.randn(1, 8, 8, 8)
    low, high = image.aminmax()
    spread = contrasted(image)
    assert low <= spread.min()
    assert spread.max() <= high
    assert spread.std() != image.std()


@pytest.mark.parametrize("turned", [False, True])
def test_two_views_have_their_shapes_and_their_seed_decides_them(stored, turned):
    boxes, shapes = (PATCH, (12, 10, 14)), (PATCH, (16, 14, 18))
    for peer in (TwoViews, TorchIOViews):
        views = peer(stored.store, boxes, shapes, turned=turned)
        samples = views.samples(2, 3)
        assert [tuple(view.shape) for sample in samples for view in sample] == [(1, *s) for s in shapes] * 2
        again = views.samples(2, 3)
        assert all(torch.equal(a, b) for a, b in zip(samples[1], again[1], strict=True))
        assert all(torch.isfinite(view).all() for view in samples[0])


def test_everything_is_in_one_thread_and_afterwards_as_before():
    import numba
    import SimpleITK as sitk

    def threads():
        of_sitk = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
        return torch.get_num_threads(), numba.get_num_threads(), of_sitk

    before = threads()
    with one_thread():
        assert threads() == (1, 1, 1)
    assert threads() == before


def test_global_random_numbers_go_on_as_if_nothing_had_been_drawn():
    def drawn():
        return random.random(), np.random.rand(), torch.rand(1).item()

    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    undisturbed = drawn(), drawn()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    first = drawn()
    with drawn_from(7):
        one = drawn()
    with drawn_from(7):
        assert drawn() == one
    assert (first, drawn()) == undisturbed


def test_nnunet_and_biom3d_make_patches_that_their_seed_decides(stored, tmp_path):
    pytest.importorskip("nnunetv2")
    pytest.importorskip("biom3d")
    from fewvox.experiments.bench.biom3d_patches import Biom3dPatches
    from fewvox.experiments.bench.nnunet_patches import NnUNetPatches

    nnunet = NnUNetPatches(stored.nnunet)
    batches = nnunet.patches(4, 0)
    assert [batch["data"].shape for batch in batches] == [(2, 1, *PATCH)] * 2
    assert batches[0]["target"].shape == (2, 1, *PATCH)
    assert torch.equal(batches[1]["data"], nnunet.patches(4, 0)[1]["data"])
    biom3d = Biom3dPatches(stored.store, PATCH, tmp_path)
    patches = biom3d.patches(4, 0)
    assert all(image.shape == labels.shape == (1, *PATCH) for image, labels in patches)
    assert torch.equal(patches[3][0], biom3d.patches(4, 0)[3][0])
