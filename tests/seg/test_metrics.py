"""Overlap and distances against plain loops."""

import itertools
import math

import numpy as np
import pytest
from fewvox.seg.metrics import dice, hd95, iou

EMPTY = np.zeros((4, 5, 6), dtype=bool)


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


def hd95_by_loops(a, b, spacing):
    def directed(of, to):
        distances = [min(math.dist(p * np.array(spacing), q * np.array(spacing)) for q in to) for p in of]
        return float(np.percentile(distances, 95))

    a, b = surface(a), surface(b)
    return max(directed(a, b), directed(b, a))


@pytest.mark.parametrize("seed", range(3))
def test_overlap_is_that_of_plain_loops(seed):
    a, b = blob(seed), blob(seed + 100, share=0.3)
    places = list(itertools.product(*map(range, a.shape)))
    both = sum(bool(a[p] and b[p]) for p in places)
    either = sum(bool(a[p] or b[p]) for p in places)
    assert dice(a, b) == pytest.approx(2 * both / (a.sum() + b.sum()))
    assert iou(a, b) == pytest.approx(both / either)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.5, 0.8)])
@pytest.mark.parametrize("share", [0.05, 0.6])
@pytest.mark.parametrize("shape", [(6, 7, 8), (1, 9, 9), (2, 3, 12)])
def test_hd95_is_that_of_plain_loops(shape, share, spacing):
    a, b = blob(1, shape, share), blob(2, shape, share)
    assert hd95(a, b, spacing) == pytest.approx(hd95_by_loops(a, b, spacing), rel=1e-5)


def test_hd95_of_far_solids_is_their_distance_in_the_unit_of_the_spacing():
    a, b = np.zeros((2, 20, 3, 3), dtype=bool)
    a[2:5], b[12:15] = True, True
    assert hd95(a, b, (2.0, 1.0, 1.0)) == pytest.approx(20)


@pytest.mark.parametrize("corner", [0, -1])
def test_masks_at_the_border_have_a_surface_there(corner):
    a, b = np.zeros((2, 5, 5, 5), dtype=bool)
    a[corner, corner, corner] = True
    b[2, 2, 2] = True
    assert hd95(a, b, (1.0, 1.0, 1.0)) == pytest.approx(math.sqrt(12))


def test_equal_masks_are_perfect():
    a = blob(0)
    assert (dice(a, a), iou(a, a), hd95(a, a, (1.0, 2.0, 3.0))) == (1, 1, 0)


def test_masks_that_do_not_meet_score_zero():
    a, b = EMPTY.copy(), EMPTY.copy()
    a[0], b[2] = True, True
    assert (dice(a, b), iou(a, b)) == (0, 0)


def test_a_score_without_meaning_is_none_and_never_a_number():
    full = ~EMPTY
    assert (dice(EMPTY, EMPTY), iou(EMPTY, EMPTY), hd95(EMPTY, EMPTY, (1.0, 1.0, 1.0))) == (None, None, None)
    for a, b in [(EMPTY, full), (full, EMPTY)]:
        assert (dice(a, b), iou(a, b), hd95(a, b, (1.0, 1.0, 1.0))) == (0, 0, None)
