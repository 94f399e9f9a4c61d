"""What the volumes cannot give is counted and told."""

import pytest
from fewvox.ssl.fit import Fit, fit
from fewvox.ssl.smartpatch import BoxConfig, Frame, Sizes, SmartPatchConfig


def measured(config=None, **extents) -> Fit:
    """The fit of boxes of one patch of 8 x 8 x 8 (or as configured) in volumes of such extents."""
    one = BoxConfig(start=Sizes(range=(1.0, 1.0)), end=Sizes(range=(1.0, 1.0)))
    frames = {case: Frame(extent=extent, patch=(8, 8, 8)) for case, extent in extents.items()}
    return fit(frames, 1, 1, config or SmartPatchConfig(global_boxes=one, local_boxes=one), 0)


def test_what_fits_is_told_in_a_line():
    found = measured(a=(8, 8, 8), b=(20, 9, 30))
    assert (found.outside, found.cut, found.apart) == ({"a": 0, "b": 0}, 0, 0)
    assert found.lines() == ["0% of the views lies outside their volumes"]


def test_padding_is_measured_for_each_volume_and_the_worst_are_named():
    found = measured(a=(4, 8, 8), b=(2, 4, 9), c=(8, 8, 8))
    assert found.outside == {"a": 0.5, "b": 0.875, "c": 0}
    (line,) = found.lines()
    assert line == (
        "warning: 46% of the views lies outside their volumes, and most of those of b: set a smaller patch"
    )


def test_of_many_volumes_a_few_are_named():
    (line,) = measured(**{f"v{i}": (1, 8, 8) for i in range(7)}).lines()
    assert "v0, v1, v2, v3, v4 and 2 more" in line


def test_boxes_that_are_cut_are_counted():
    """The global ones in the first half of the training: a quarter of all."""
    config = SmartPatchConfig(
        global_boxes=BoxConfig(start=Sizes(range=(4.0, 4.0)), end=Sizes(range=(0.5, 0.5))),
        local_boxes=BoxConfig(start=Sizes()),
    )
    found = measured(config, a=(18, 18, 18))
    assert found.cut == pytest.approx(0.25)
    assert found.lines()[1] == "25% of the boxes were to be larger than their volumes: cut to what fits"


def test_boxes_that_are_too_far_apart_are_counted(monkeypatch):
    monkeypatch.setattr("fewvox.ssl.fit.too_far", lambda *_: True)
    found = measured(a=(18, 18, 18))
    assert found.apart == 0.5
    assert found.lines()[1] == "50% of the boxes overlap less than asked, as far as their volumes allow"
