"""What a user says of the files, checked before any is read."""

import pytest
from fewvox.data.errors import UserError
from fewvox.experiments.reading import scan_options


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_only_a_finite_float32_stands_for_what_is_none(value):
    with pytest.raises(UserError, match="Every voxel of an image is a finite number"):
        scan_options({"replace_nonfinite": value})
    assert scan_options({"replace_nonfinite": -1.5}).replace_nonfinite == -1.5


def test_axes_may_be_in_lower_case():
    options = scan_options({"axes": "zcyx", "label_axes": "zyx"})
    assert (options.image.axes, options.label.axes) == ("ZCYX", "ZYX")
    with pytest.raises(UserError, match="axes"):
        scan_options({"axes": "ABC"})
