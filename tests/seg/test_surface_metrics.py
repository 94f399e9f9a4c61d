"""Surface distances against plain loops, MONAI's own metrics and SimpleITK."""

import math
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from fewvox.seg.surface_metrics import SurfaceDistances, surface_distances
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from monai.metrics.surface_distance import compute_average_surface_distance

ANISOTROPIC = (3.0, 0.5, 0.8)


def blob(seed, shape=(6, 7, 8), share=0.15):
    return np.random.default_rng(seed).random(shape) < share


def surface(mask):
    """Voxels with a neighbour across a face that is outside the mask or the volume."""
    padded = np.pad(mask, 1)
    found = []
    for place in np.argwhere(mask):
        z, y, x = place + 1
        neighbours = (
            (z - 1, y, x), (z + 1, y, x), (z, y - 1, x), (z, y + 1, x), (z, y, x - 1), (z, y, x + 1)
        )  # fmt: skip
        if not all(padded[n] for n in neighbours):
            found.append(place)
    return found


def by_loops(a, b, spacing):
    def directed(of, to):
        return [min(math.dist(p * np.array(spacing), q * np.array(spacing)) for q in to) for p in of]

    a, b = surface(a), surface(b)
    return directed(a, b), directed(b, a)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), ANISOTROPIC])
@pytest.mark.parametrize("share", [0.2, 0.6])
@pytest.mark.parametrize("shape", [(5, 5, 6), (1, 7, 7), (2, 3, 8)])
def test_every_metric_is_that_of_plain_loops(shape, share, spacing):
    a, b = blob(1, shape, share), blob(2, shape, share)
    there, back = by_loops(a, b, spacing)
    found = surface_distances(a, b, spacing)
    assert found.hd == pytest.approx(max(there + back), rel=1e-5)
    assert found.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-5)
    assert found.assd == pytest.approx(np.mean(there + back), rel=1e-5)
    assert found.nsd(1.1) == pytest.approx(np.mean(np.array(there + back) <= 1.1))


def test_every_metric_is_that_which_monai_gives_alone():
    a, b = blob(3, (12, 12, 12), 0.7), blob(4, (12, 12, 12), 0.6)
    pair = [torch.from_numpy(mask)[None, None] for mask in (a, b)]
    known = {"include_background": True, "spacing": ANISOTROPIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        hd, hd95 = (compute_hausdorff_distance(*pair, percentile=p, **known) for p in (None, 95))
        assd = compute_average_surface_distance(*pair, symmetric=True, **known)
        nsd = compute_surface_dice(*pair, class_thresholds=[0.9], **known)
    found = surface_distances(a, b, ANISOTROPIC)
    told = (found.hd, found.hd95, found.assd, found.nsd(0.9))
    assert told == pytest.approx([float(value) for value in (hd, hd95, assd, nsd)], rel=1e-5)


@pytest.mark.parametrize("shift", [(1, 0, 0), (2, 3, 0), (0, 0, 5)])
def test_the_hausdorff_distance_of_solids_is_that_of_simpleitk(shift):
    a = np.zeros((16, 16, 16), bool)
    a[3:9, 4:9, 2:8] = True
    b = np.roll(a, shift, (0, 1, 2))
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (a, b)]
    for image in images:
        image.SetSpacing(ANISOTROPIC[::-1])
    known = sitk.HausdorffDistanceImageFilter()
    known.Execute(*images)
    found = surface_distances(a, b, ANISOTROPIC)
    assert found.hd == pytest.approx(known.GetHausdorffDistance(), rel=1e-5)
    assert found.hd == pytest.approx(math.hypot(*np.multiply(shift, ANISOTROPIC)), rel=1e-5)


def test_far_solids_are_their_distance_apart_in_the_unit_of_the_spacing():
    a, b = np.zeros((2, 20, 3, 3), dtype=bool)
    a[2:5], b[12:15] = True, True
    assert surface_distances(a, b, (2.0, 1.0, 1.0)).hd95 == pytest.approx(20)


@pytest.mark.parametrize("corner", [0, -1])
def test_masks_at_the_border_have_a_surface_there(corner):
    a, b = np.zeros((2, 5, 5, 5), dtype=bool)
    a[corner, corner, corner] = True
    b[2, 2, 2] = True
    assert surface_distances(a, b, (1.0, 1.0, 1.0)).hd == pytest.approx(math.sqrt(12))


def test_hd95_is_the_larger_direction_and_not_the_percentile_of_both():
    near, far = np.zeros(1000, np.float32), np.full(10, 7, np.float32)
    assert SurfaceDistances(of_predicted=near, of_true=far).hd95 == 7
    assert SurfaceDistances(of_predicted=far, of_true=near).hd95 == 7
    assert SurfaceDistances(of_predicted=far, of_true=near).assd == pytest.approx(70 / 1010)


@pytest.mark.parametrize("spacing", [0.1, 0.3, 0.8, 1.75])
def test_a_surface_off_by_exactly_the_tolerance_is_within_it(spacing):
    a = np.zeros((9, 4, 4), bool)
    a[3:6] = True
    found = surface_distances(a, np.roll(a, 1, 0), (spacing, 10.0, 10.0))
    assert found.nsd(spacing) == found.nsd(np.float64(spacing)) == 1
    assert found.nsd(0.99 * spacing) < 1
