"""Curves against the formula of Bezier, solved by scipy."""

import numpy as np
import pytest
import torch
from fewvox.data.augment.curve import Curve, bend, bezier
from fewvox.data.augment.draws import Draws
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

IMAGE = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 6, 7, 8)).astype(np.float32))
SHARE = st.floats(0, 1)


def cubic(t: float, one: float, two: float) -> float:
    return 3 * (1 - t) ** 2 * t * one + 3 * (1 - t) * t**2 * two + t**3


@pytest.mark.parametrize(
    "controls", [((0.1, 0.7), (0.8, 0.2)), ((0.9, 0.3), (0.2, 0.9)), ((0.3, 0), (0.6, 1))]
)
def test_the_heights_are_those_of_the_curve(controls):
    (x1, y1), (x2, y2) = controls
    heights = bezier(np.array(controls))
    for x in np.linspace(0, 1, 33):
        t = brentq(lambda t, x=x: cubic(t, x1, x2) - x, 0, 1, xtol=1e-12)
        assert heights[round(x * (len(heights) - 1))] == pytest.approx(cubic(t, y1, y2), abs=1e-4)


@given(st.tuples(st.tuples(SHARE, SHARE), st.tuples(SHARE, SHARE)))
def test_a_curve_leads_from_0_to_1_and_never_falls(controls):
    heights = bezier(np.array(controls))
    assert heights[0] == 0
    assert heights[-1] == 1
    assert (np.diff(heights) >= 0).all()


@pytest.mark.parametrize("direction", [1, -1])
def test_an_image_is_mapped_within_its_own_range(direction):
    table = bezier(np.array([[0.1, 0.7], [0.8, 0.2]]))[::direction]
    channel = IMAGE[0].numpy().astype(np.float64)
    low, extent = channel.min(), np.ptp(channel)
    expected = np.interp((channel - low) / extent, np.linspace(0, 1, len(table)), table) * extent + low
    out = bend(IMAGE[0].clone(), table)
    np.testing.assert_allclose(out, expected, atol=1e-4)
    order = channel.ravel().argsort()[::direction]
    assert (np.diff(out.numpy().ravel()[order]) >= -1e-6).all()


def test_channels_are_bent_by_curves_of_their_own():
    out = Curve(inversion_probability=0)(IMAGE[:1].expand(2, -1, -1, -1).clone(), Draws((0,)))
    assert not torch.equal(out[0], out[1])
    assert out.dtype == torch.float32


def test_a_curve_is_inverted_as_often_as_asked_for():
    ramp = torch.arange(8.0).reshape(1, 1, 1, 8).expand(400, -1, -1, -1)
    out = Curve(inversion_probability=0.3)(ramp.clone(), Draws((0,)))
    assert (out[..., 0] > out[..., -1]).float().mean() == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("inverted", [0, 1])
@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (2, 1, 1, 1)])
def test_a_constant_image_stays_as_it_is(shape, inverted):
    even = torch.full(shape, -0.5)
    torch.testing.assert_close(Curve(inversion_probability=inverted)(even.clone(), Draws((0,))), even)
