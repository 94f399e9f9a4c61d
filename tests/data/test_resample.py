"""Resampling keeps what lies where, and label maps keep their classes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fewvox.data.resample import (
    coarsen_image,
    coarser_factors,
    resample,
    resample_box,
    resample_labels,
    resample_labels_box,
    resampled_shape,
)
from fewvox.data.slabs import boxes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

RNG = np.random.default_rng(0)
shapes = st.tuples(*[st.integers(1, 9)] * 3)


def centres(count: int, extent: float) -> np.ndarray:
    """Where the centres of `count` voxels lie that fill `extent` from edge to edge."""
    return (np.arange(count) + 0.5) * extent / count


def test_a_volume_of_that_shape_already_is_left_as_it_is():
    array = RNG.normal(size=(2, 4, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(resample(array, (4, 5, 6)), array)
    labels = RNG.integers(0, 3, (4, 5, 6))
    np.testing.assert_array_equal(resample_labels(labels, (4, 5, 6)), labels)


@pytest.mark.parametrize("new", [7, 13, 20, 31, 60])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_ramp_keeps_its_physical_values(axis, new):
    shape, target = [1, 6, 6, 6], [6, 6, 6]
    shape[axis], target[axis - 1] = 20, new
    along = [1] * 4
    along[axis] = 20
    ramp = np.broadcast_to(centres(20, 20.0).reshape(along), shape)
    out = np.moveaxis(resample(ramp, tuple(target)), axis, -1)
    # borders are continued by their edge value, and smoothing reaches four sigmas inside
    inside = slice(new // 3, -(new // 3))
    np.testing.assert_allclose(out[..., inside] - centres(new, 20.0)[inside], 0, atol=1e-4)


def test_upsampling_is_that_of_torch_without_aligned_corners():
    array = RNG.normal(size=(2, 5, 7, 6)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(array)[None], (9, 7, 17), mode="trilinear", align_corners=False)
    np.testing.assert_allclose(resample(array, (9, 7, 17)), expected[0].numpy(), atol=1e-5)


def test_downsampling_smooths_what_it_cannot_show():
    stripes = np.broadcast_to(np.tile([0.0, 1.0], 20).reshape(1, 40, 1, 1), (1, 40, 4, 4))
    assert np.ptp(resample(stripes, (9, 4, 4))) < 0.2


@given(st.data(), shapes, shapes)
def test_resampled_labels_invent_no_class(data, shape, target):
    labels = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 4)))
    out = resample_labels(labels, target)
    assert (out.shape, out.dtype) == (target, labels.dtype)
    assert set(np.unique(out)) <= set(np.unique(labels))


def test_resampled_labels_are_the_class_of_the_largest_share():
    labels = RNG.integers(0, 3, (5, 6, 7))
    one_hot = F.one_hot(torch.from_numpy(labels), 3).permute(3, 0, 1, 2).float()[None]
    shares = F.interpolate(one_hot, (11, 9, 17), mode="trilinear", align_corners=False)[0]
    first, second = shares.topk(2, dim=0).values
    clear = (first - second > 1e-3).numpy()
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(
        resample_labels(labels, (11, 9, 17))[clear], shares.argmax(0).numpy()[clear]
    )


def test_resampled_labels_keep_their_place():
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[2:6, 2:6, 4:] = 2
    finer = resample_labels(labels, (16, 16, 16))
    np.testing.assert_array_equal(finer[5:11, 5:11, 9:], 2)
    assert (finer > 0).sum() == pytest.approx(8 * (labels > 0).sum(), rel=0.1)
    np.testing.assert_array_equal(finer[:3], 0)


@given(
    st.data(), shapes, shapes, st.tuples(*[st.integers(1, 5)] * 3), st.sampled_from([(1, 1, 1), (0, 1, 1)])
)
def test_boxes_make_up_the_whole(data, shape, target, size, orders):
    array = data.draw(hnp.arrays(np.float32, (2, *shape), elements=st.floats(-9, 9, width=16)))
    whole = resample(array, target, orders)
    labels = data.draw(hnp.arrays(np.int8, (1, *shape), elements=st.integers(-1, 3)))
    of_labels = resample_labels(labels[0], target)
    for box in boxes(target, size):
        made = resample_box(array, target, box, orders)
        np.testing.assert_allclose(made, whole[(slice(None), *box)], atol=1e-4)
        np.testing.assert_array_equal(resample_labels_box(labels, target, box)[0], of_labels[box])


def test_smoothing_and_interpolation_are_those_of_scipy():
    array = RNG.normal(size=(1, 40, 21, 33)).astype(np.float32)
    zoom = [15 / 40, 30 / 21, 20 / 33]
    sigma = [max(0, (1 / z - 1) / 2) for z in zoom]
    smooth = ndimage.gaussian_filter(array[0].astype(np.float64), sigma, mode="nearest")
    expected = np.asarray(ndimage.zoom(smooth, zoom, order=1, mode="nearest", grid_mode=True))
    np.testing.assert_allclose(resample(array, (15, 30, 20))[0], expected, atol=1e-5)


def test_order_0_takes_the_nearest_slice():
    slices = np.arange(5, dtype=np.float32).reshape(1, 5, 1, 1)
    np.testing.assert_array_equal(resample(slices, (10, 1, 1), (0, 1, 1)).ravel(), np.repeat(np.arange(5), 2))


def test_a_voxel_in_two_overlapping_classes_stays_in_both():
    labels = np.zeros((2, 8, 8, 8), np.int8)
    labels[:, 2:6, 2:6, 2:6] = 1
    out = resample_labels_box(labels, (16, 16, 16), (slice(0, 16),) * 3, overlapping=True)
    np.testing.assert_array_equal(out[:, 5:11, 5:11, 5:11], 1)
    assert out.sum() == pytest.approx(8 * labels.sum(), rel=0.1)


def test_the_target_shape_keeps_the_physical_extent():
    assert resampled_shape((10, 20, 30), (3.0, 1.0, 1.0), (1.5, 2.0, 1.0), 0.0) == (20, 10, 30)
    assert resampled_shape((1, 20, 30), (0.1, 1.0, 1.0), (5.0, 1.0, 1.0), 0.0) == (1, 20, 30)


def test_spacings_within_the_tolerance_change_nothing():
    near = (1.0009, 1.0, 1.0)
    assert resampled_shape((2000, 20, 20), near, (1.0, 1.0, 1.0), 1e-3) == (2000, 20, 20)
    assert resampled_shape((2000, 20, 20), near, (1.0, 1.0, 1.0), 1e-4) == (2002, 20, 20)


@given(st.data(), shapes, st.tuples(*[st.sampled_from([1, 2])] * 3))
def test_coarse_voxels_are_the_means_of_their_blocks(data, shape, factors):
    elements = st.floats(-100, 100, width=16)
    array = data.draw(hnp.arrays(np.float32, (1, *shape), elements=elements))
    out = coarsen_image(array, factors)
    assert out.shape == (1, *(-(-n // f) for n, f in zip(shape, factors, strict=True)))
    total = 0.0
    for index in np.ndindex(out.shape[1:]):
        block = array[0][tuple(slice(i * f, (i + 1) * f) for i, f in zip(index, factors, strict=True))]
        assert out[0][index] == pytest.approx(block.mean(), abs=1e-3)
        total += out[0][index] * block.size
    assert total / array.size == pytest.approx(array.mean(dtype=np.float64), abs=1e-3)


@pytest.mark.parametrize(
    ("shape", "spacing", "factors"),
    [
        ((64, 64, 64), (1.0, 1.0, 1.0), (2, 2, 2)),
        ((64, 64, 64), None, (2, 2, 2)),
        ((64, 64, 64), (3.0, 1.0, 1.0), (1, 2, 2)),
        ((64, 64, 64), (2.0, 1.0, 1.0), (1, 2, 2)),
        ((64, 64, 64), (1.4, 1.0, 1.0), (2, 2, 2)),
        ((64, 16, 64), (3.0, 1.0, 1.0), (1, 1, 2)),
        ((64, 16, 16), (3.0, 1.0, 1.0), (2, 1, 1)),
        ((16, 16, 16), (1.0, 1.0, 1.0), (1, 1, 1)),
    ],
)
def test_a_coarse_axis_waits_for_the_others(shape, spacing, factors):
    assert coarser_factors(shape, spacing) == factors
