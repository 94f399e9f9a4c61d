"""Patches equal scipy's, whichever way they are made."""

import numpy as np
import pytest
import torch
from fewvox.data import warp as warping
from fewvox.data.warp import warp, warp_labels
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from scipy import ndimage

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(2, 9, 11, 13)).astype(np.float32)
LABELS = RNG.integers(-1, 4, size=(2, 9, 11, 13)).astype(np.int8)
SHAPE = (7, 8, 10)


def turned(angles, scale=1.0, shear=0.0) -> np.ndarray:
    linear = np.eye(3) / scale
    for axis, angle in enumerate(np.radians(angles)):
        i, j = (k for k in range(3) if k != axis)
        one = np.eye(3)
        one[i, i], one[i, j] = np.cos(angle), -np.sin(angle)
        one[j, i], one[j, j] = np.sin(angle), np.cos(angle)
        linear = one @ linear
    linear[0, 2] += shear
    return linear


def centred(linear, extent=(9, 11, 13), shape=SHAPE, shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    place = (np.array(extent) - 1) / 2 + shift
    return np.concatenate([linear, (place - linear @ ((np.array(shape) - 1) / 2))[:, None]], axis=1)


MAPS = {
    "turn": centred(turned((30, 20, 10), 1.1)),
    "far turn": centred(turned((130, -70, 45), 0.6)),
    "in the plane": centred(turned((35, 0, 0))),
    "around the last axis": centred(turned((0, 0, 35))),
    "zoom": centred(np.diag([0.7, 0.8, 0.9])),
    "zoom out": centred(np.diag([2.5, 1.5, 3.0])),
    "flipped zoom": centred(np.diag([0.7, -0.8, -0.9])),
    "shear": centred(turned((0, 0, 0), shear=0.3)),
    "half a voxel": centred(np.eye(3), shift=(0.5, 0.25, 0.0)),
    "whole voxels": centred(np.eye(3), shift=(0, 0.5, 0.5)),
    "flips": centred(np.diag([-1.0, 1.0, -1.0]), shift=(0, 0.5, 0.5)),
    "over the border": centred(np.eye(3), shift=(4, 0.5, -6.5)),
    "elsewhere": centred(turned((30, 20, 10)), shift=(50, 0, 0)),
}


def places(affine, field=None, shape=SHAPE) -> np.ndarray:
    indices = np.indices(shape, dtype=float)
    found = np.einsum("ij,jzyx->izyx", affine[:, :3], indices) + affine[:, 3].reshape(3, 1, 1, 1)
    return found if field is None else found + field


def scipys(box, affine, order, outside, field=None) -> np.ndarray:
    at = places(affine, field)
    return np.stack(
        [
            ndimage.map_coordinates(
                channel, at, order=order, mode="grid-constant", cval=outside, output=np.float64
            )
            for channel in box
        ]
    )


def largest_share(box, affine, outside, field=None) -> np.ndarray:
    values = np.unique([*np.unique(box), outside])
    shares = [
        scipys((box == value).astype(np.float64), affine, 1, float(value == outside), field)
        for value in values
    ]
    return values[(np.stack(shares) > np.max(shares, axis=0) - 1e-6).argmax(axis=0)]


def tied(affine, field=None) -> np.ndarray:
    """Where two voxels are equally near, which rounding decides."""
    at = places(affine, field)
    return np.any(np.abs(at - np.floor(at) - 0.5) < 1e-6, axis=0)


@pytest.fixture(params=["compiled", "torch"])
def way(request, monkeypatch):
    """Both ways, on the CPU: the one that other devices take is forced."""
    if request.param == "torch":
        monkeypatch.setattr(warping, "_on_cpu", lambda box: False)
    return request.param


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("outside", [0.0, -2.5])
def test_a_linear_patch_is_scipys(way, name, outside):
    out = warp(torch.from_numpy(IMAGE), MAPS[name], SHAPE, outside=outside)
    assert (out.dtype, out.shape) == (torch.float32, (2, *SHAPE))
    np.testing.assert_allclose(out, scipys(IMAGE, MAPS[name], 1, outside), atol=1e-5)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("outside", [0, -1])
def test_nearest_labels_are_scipys(way, name, outside):
    out = warp_labels(torch.from_numpy(LABELS), MAPS[name], SHAPE, outside=outside)
    assert out.dtype == torch.int8
    sure = ~tied(MAPS[name])
    expected = scipys(LABELS.astype(float), MAPS[name], 0, outside)
    np.testing.assert_array_equal(out.numpy()[:, sure], expected[:, sure])


@pytest.mark.parametrize("name", MAPS)
def test_labels_by_share_are_the_largest_of_scipys_shares(way, name):
    out = warp_labels(torch.from_numpy(LABELS), MAPS[name], SHAPE, outside=-1, by_share=True)
    np.testing.assert_array_equal(out, largest_share(LABELS, MAPS[name], -1))


def test_displaced_patches_are_scipys(way):
    field = RNG.normal(scale=2, size=(3, *SHAPE)).astype(np.float32)
    affine, moved = MAPS["turn"], torch.from_numpy(field)
    image = warp(torch.from_numpy(IMAGE), affine, SHAPE, displacement=moved)
    np.testing.assert_allclose(image, scipys(IMAGE, affine, 1, 0, field), atol=1e-5)
    near = warp_labels(torch.from_numpy(LABELS), affine, SHAPE, displacement=moved)
    sure = ~tied(affine, field)
    np.testing.assert_array_equal(near[:, sure], scipys(LABELS.astype(float), affine, 0, 0, field)[:, sure])
    shares = warp_labels(torch.from_numpy(LABELS), affine, SHAPE, displacement=moved, by_share=True)
    np.testing.assert_array_equal(shares, largest_share(LABELS, affine, 0, field))


@pytest.mark.parametrize("name", ["whole voxels", "flips"])
def test_what_needs_no_interpolation_is_a_piece_and_not_a_view(way, name):
    box = torch.from_numpy(IMAGE.copy())
    out = warp(box, MAPS[name], SHAPE)
    np.testing.assert_array_equal(out, scipys(IMAGE, MAPS[name], 1, 0).astype(np.float32))
    out += 1
    np.testing.assert_array_equal(box, IMAGE)


@limits(max_examples=200, deadline=None)
@given(
    st.tuples(*[st.sampled_from([0.0, 1e-16, -1e-16, 6e-17, -1e-9, 1e-3, 1.0, -1.0])] * 9),
    st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.0, 2 - 1e-16, 1e-17])] * 3),
    st.tuples(*[st.integers(1, 4)] * 3),
)
def test_nothing_is_read_beyond_the_box_however_small_the_steps(linear, shift, extent):
    """What lies around the box is no number."""
    memory = np.full((3, *extent), np.nan, np.float32)
    memory[1] = 1
    affine = np.column_stack([np.reshape(linear, (3, 3)), shift])
    out = warp(torch.from_numpy(memory[1:2]), affine, (3, 4, 5), outside=1.0)
    np.testing.assert_allclose(out, 1, atol=1e-5)


def test_a_single_slice_is_turned_in_its_plane(way):
    affine = centred(turned((25, 0, 0)), extent=(1, 11, 13), shape=(1, 8, 10))
    out = warp(torch.from_numpy(IMAGE[:, :1]), affine, (1, 8, 10))
    flat = np.einsum("ij,jyx->iyx", affine[1:, 1:3], np.indices((8, 10))) + affine[1:, 3].reshape(2, 1, 1)
    expected = [ndimage.map_coordinates(c[0], flat, order=1, mode="grid-constant") for c in IMAGE]
    np.testing.assert_allclose(out[:, 0], np.stack(expected), atol=1e-5)


@limits(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.floats(-180, 180)] * 3),
    st.floats(0.4, 2.5),
    st.tuples(*[st.floats(-12, 12)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 7)] * 3),
)
def test_any_map_of_any_box_is_scipys(angles, scale, shift, extent, shape):
    rng = np.random.default_rng(0)
    box = rng.normal(size=(1, *extent)).astype(np.float32)
    affine = centred(turned(angles, scale), extent, shape, shift)
    at = places(affine, shape=shape)
    expected = ndimage.map_coordinates(box[0], at, order=1, mode="grid-constant", output=np.float64)
    np.testing.assert_allclose(warp(torch.from_numpy(box), affine, shape)[0], expected, atol=1e-4)
    labels = rng.integers(0, 5, size=(1, *extent)).astype(np.int16)
    near = warp_labels(torch.from_numpy(labels), affine, shape, outside=7)[0].numpy()
    nearest = ndimage.map_coordinates(labels[0], at, order=0, mode="grid-constant", cval=7)
    sure = (np.abs(at - np.floor(at) - 0.5) > 1e-6).all(axis=0)
    np.testing.assert_array_equal(near[sure], nearest[sure])


def test_a_map_that_is_not_finite_is_refused(way):
    for value in (np.nan, np.inf):
        affine = MAPS["turn"].copy()
        affine[1, 2] = value
        with pytest.raises(ValueError, match="no patch can be cut"):
            warp(torch.from_numpy(IMAGE), affine, SHAPE)
        with pytest.raises(ValueError, match="no patch can be cut"):
            warp_labels(torch.from_numpy(LABELS), affine, SHAPE)
