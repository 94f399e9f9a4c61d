"""The store's bench: every way of reading gives the same patch, and every ratio has its key."""

import sys

import numpy as np
import pytest
from fewvox.experiments.bench.nnunet import preparation
from fewvox.experiments.bench.store import StoredVolumes, StoreSizes, store_figures
from fewvox.experiments.bench.volumes import save_case, volume

SIZES = StoreSizes(volumes=1, shape=(72, 66, 68), patch=(24, 20, 16), prepared=(20, 20, 24))
OURS = {"read_vs_whole", "coarse_vs_full"}
OF_NNUNET = {"read_vs_nnunet", "bytes_vs_nnunet", "prepare_vs_nnunet"}


def test_without_nnunet_its_ratios_are_none_and_it_is_told_how_to_install_it(monkeypatch):
    for name in ("nnunetv2", "acvl_utils"):
        monkeypatch.setitem(sys.modules, name, None)
    figures = store_figures(1, SIZES)
    by_key = {figure.key: figure for figure in figures if figure.key}
    assert set(by_key) == OURS | OF_NNUNET
    for key in OURS:
        assert (by_key[key].ratio or 0) > 0
        assert by_key[key].missing is None
    for key in OF_NNUNET:
        assert by_key[key].ratio is None
        assert "pip install --no-deps nnunetv2" in (by_key[key].missing or "")
    assert all(figure.ours > 0 for figure in figures)
    coarsest = sum(figure.ours for figure in figures if figure.key == "bytes_vs_nnunet")
    assert coarsest > sum(figure.ours for figure in figures if figure.work.startswith("the images alone")) > 0


@pytest.fixture
def stored(tmp_path):
    return StoredVolumes.written(tmp_path, SIZES)


def test_all_ways_of_reading_give_the_same_patch(stored):
    start = np.array([40, 3, 11])
    patch = stored.ours("v0", start)
    assert patch.shape == (1, *SIZES.patch)
    for read in (stored.whole, stored.mapped, stored.zarred):
        np.testing.assert_allclose(read("v0", start), patch, atol=0.01)
    again, labels = stored.ours_with_labels("v0", start)
    np.testing.assert_array_equal(again, patch)
    assert labels.shape == SIZES.patch


def test_a_coarse_view_shows_the_box_that_is_cropped_at_full_resolution(stored):
    start = np.array([12, 8, 32])
    fine, coarse = stored.view(0, 1, "v0", start), stored.view(2, 4, "v0", start)
    blocks = fine.reshape(1, 12, 4, 10, 4, 8, 4).mean((2, 4, 6))
    np.testing.assert_allclose(coarse, blocks, atol=0.01)


def test_boxes_are_the_same_for_every_peer_and_lie_inside(stored):
    drawn = []
    for _ in range(2):
        for k in range(3):
            stored.anywhere(lambda case, start: drawn.append((case, *start)), SIZES.patch, k)
    half = len(drawn) // 2
    assert drawn[:half] == drawn[half:]
    starts = np.array([start for _, *start in drawn])
    assert (starts >= 0).all()
    assert (starts + SIZES.patch <= SIZES.shape).all()
    assert len(np.unique(starts, axis=0)) > 12


def test_nnunet_reads_the_same_patch(stored):
    if stored.nnunet is None:
        pytest.skip("nnU-Net is not installed")
    start = np.array([40, 3, 11])
    image, labels = stored.nnunet.image_and_labels("v0", start)
    np.testing.assert_array_equal(image, stored.nnunet.image("v0", start))
    np.testing.assert_allclose(image, stored.ours("v0", start), atol=0.01)
    np.testing.assert_array_equal(labels[0], stored.ours_with_labels("v0", start)[1])


def test_nnunet_prepares_at_the_spacing_asked_for(tmp_path):
    pytest.importorskip("nnunetv2.preprocessing.preprocessors.default_preprocessor")
    save_case(tmp_path, "a", *volume((20, 20, 24), seed=0))
    image, labels = (tmp_path / kind / "a.nii" for kind in ("images", "labels"))
    preparation(image, labels, (0.8, 0.8, 0.8), (16, 16, 16), tmp_path / "out")(3)
    import blosc2

    assert blosc2.open(str(tmp_path / "out" / "3.b2nd")).shape == (1, 25, 25, 30)
