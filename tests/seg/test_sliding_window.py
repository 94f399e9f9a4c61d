"""Stitching is exact: nothing shifts, nothing is left out, no seam shows."""

import pytest
import torch
from fewvox.seg.sliding_window import stitch
from fewvox.seg.weights import gaussian

SHAPES = [(7, 11, 13), (4, 6, 5), (5, 6, 5), (4, 17, 6), (9, 9, 9)]
PATCHES = [(4, 6, 5), (3, 3, 3), (1, 4, 4)]


def image_of(shape, channels=2):
    return torch.randn(channels, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_identity_gives_the_image_back(shape, patch, overlap):
    image = image_of(shape)
    found = stitch(lambda window: window, image, patch, overlap=overlap)
    torch.testing.assert_close(found, image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_constant_shows_no_seam(shape, overlap):
    found = stitch(
        lambda w: torch.full((1, 3, *w.shape[2:]), 0.7), image_of(shape), (4, 6, 5), overlap=overlap
    )
    assert found.shape == (3, *shape)
    torch.testing.assert_close(found, torch.full_like(found, 0.7), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 9, 3), (3, 4, 4)])
def test_a_volume_smaller_than_the_patch_is_padded_with_zeros_on_both_sides(shape):
    patch, image, seen = (4, 6, 5), image_of(shape), []

    def predict(window):
        seen.append(window.clone())
        return window

    torch.testing.assert_close(stitch(predict, image, patch), image, rtol=0, atol=1e-5)
    assert {tuple(window.shape[2:]) for window in seen} == {patch}
    if shape == (1, 1, 1):
        assert torch.equal(seen[0][0, :, 1, 2, 2], image[:, 0, 0, 0])
        assert torch.count_nonzero(seen[0]) == 2


def test_windows_near_the_middle_of_a_window_weigh_more():
    """Two windows that disagree: each wins where its own middle is nearer."""
    values = iter([0.0, 1.0])
    found = stitch(
        lambda w: torch.full_like(w, next(values)), torch.zeros(1, 4, 4, 12), (4, 4, 8), overlap=0.5
    )
    line = found[0, 1, 1]
    assert line[:4].eq(0).all()
    assert line[8:].eq(1).all()
    # the middle of 8 voxels is the fifth, as in nnU-Net: voxel 6 is as far from one as from the other
    assert line[4] < line[5] < 0.05 < 0.95 < line[7]
    assert line[6] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("patch", [(1, 1, 1), (4, 6, 5), (32, 64, 64), (128, 128, 128)])
def test_every_voxel_of_a_window_counts(patch):
    weight = gaussian(patch)
    assert weight.shape == patch
    assert weight.min() > 0
    middle = tuple(n // 2 for n in patch)
    assert weight[middle] == weight.max() == 10
    for axis, n in enumerate(patch):
        symmetric = weight.narrow(axis, 1, n - 1) if n % 2 == 0 else weight
        assert torch.equal(symmetric, symmetric.flip(axis))
