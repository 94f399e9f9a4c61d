"""Objects told apart: touching ones are cut, each has a number of its own, whatever the spacing."""

import numpy as np
import pytest
from fewvox.data.errors import UserError
from fewvox.data.labels import LabelTable
from fewvox.data.settings import SettingsError, parse
from fewvox.seg.instances import InstancesConfig, by_border, by_watershed, check_instances, numbered
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

CLASSES = arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 2))


def ball(shape, centre, radius, spacing=(1.0, 1.0, 1.0)):
    """Voxels within `radius` of `centre`, both in the unit of the spacing."""
    grid = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2


def two_balls(spacing):
    """Two touching balls of radius 6 and 5, 9 apart along x, sampled at `spacing`."""
    shape = tuple(round(n / s) for n, s in zip((16, 16, 26), spacing, strict=True))
    return ball(shape, (8, 8, 8), 6, spacing), ball(shape, (8, 8, 17), 5, spacing)


def consecutive(numbers):
    return sorted(set(np.unique(numbers).tolist()) - {0}) == list(range(1, int(numbers.max()) + 1))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.8, 0.8), (0.5, 1.0, 1.0)])
def test_touching_balls_are_two_objects_at_any_spacing(spacing):
    one, other = two_balls(spacing)
    found = by_watershed(one | other, spacing)
    assert found.max() == 2
    for alone in (one & ~other, other & ~one):
        number = np.bincount(found[alone]).argmax()
        assert (found[alone] == number).mean() > 0.97


def test_distances_are_of_the_spacing_and_not_of_voxels():
    """A long ball at coarse slices is one object; as voxels alone it would be as flat as a plate."""
    spacing = (4.0, 1.0, 1.0)
    one, other = two_balls(spacing)
    assert by_watershed(one | other, spacing).max() == 2
    assert by_watershed(np.repeat(one | other, 4, axis=0), (1.0, 1.0, 1.0)).max() == 2


def test_a_depth_above_that_of_the_neck_leaves_one_object():
    one, other = two_balls((1.0, 1.0, 1.0))
    assert by_watershed(one | other, (1.0, 1.0, 1.0), depth=4).max() == 1
    assert by_watershed(one | other, (0.001, 0.001, 0.001), depth=0.004).max() == 1


def test_one_object_beside_another_does_not_cut_it():
    mask = ball((12, 12, 40), (6, 6, 8), 5) | ball((12, 12, 40), (6, 6, 24), 5)
    mask[6, 6, 14:19] = True
    mask[0, 0, 0] = True
    found = by_watershed(mask, (1.0, 1.0, 1.0))
    assert found.max() == 3
    assert (found == found[0, 0, 0]).sum() == 1


@pytest.mark.parametrize("value", [True, False])
def test_a_mask_without_background_or_without_objects(value):
    found = by_watershed(np.full((3, 4, 5), value), (1.0, 1.0, 1.0))
    assert (found == int(value)).all()


@given(CLASSES)
def test_every_voxel_of_a_mask_has_an_object_and_no_other_has(numbers):
    for found, mask in (
        (by_watershed(numbers == 1, (2.0, 1.0, 1.0)), numbers == 1),
        (by_border(numbers == 1, numbers == 2, (2.0, 1.0, 1.0)), numbers > 0),
    ):
        np.testing.assert_array_equal(found > 0, mask)
        assert consecutive(found)


def test_the_border_goes_to_the_nearest_object_in_space():
    row = np.array([1, 1, 2, 2, 2, 2, 1]).reshape(1, 1, -1)
    found = by_border(row == 1, row == 2, (1.0, 1.0, 1.0))
    assert found.ravel().tolist()[:4] == [1, 1, 1, 1]
    assert found.ravel().tolist()[-2:] == [2, 2]
    # one object above, one at the side: by voxels the one above is nearer, in space it is not
    sheet = np.array([[1, 0, 0, 0], [2, 0, 0, 0], [2, 2, 2, 1]]).reshape(3, 1, 4)
    apart = by_border(sheet == 1, sheet == 2, (9.0, 1.0, 1.0))
    assert apart[2, 0].tolist() == [2, 2, 2, 2]


def test_a_border_never_goes_to_an_object_across_background():
    row = np.array([1, 0, 2, 2, 2, 2, 2, 1]).reshape(1, 1, -1)
    assert by_border(row == 1, row == 2, (1.0, 1.0, 1.0)).ravel().tolist() == [1, 0, *[2] * 6]


def test_a_border_without_an_object_is_one():
    row = np.array([1, 0, 2, 2, 0, 1]).reshape(1, 1, -1)
    assert by_border(row == 1, row == 2, (1.0, 1.0, 1.0)).ravel().tolist() == [1, 0, 3, 3, 0, 2]


def test_the_class_and_its_border_are_named_by_label_values():
    table = LabelTable(values=(0, 10, 20))
    row = np.array([1, 2, 1, 0, 2]).reshape(1, 1, -1)
    config = InstancesConfig(method="border", value=10, border=20)
    assert numbered(row, config, table, (1.0, 1.0, 1.0)).ravel().tolist() in (
        [1, 1, 2, 0, 3],
        [1, 2, 2, 0, 3],
    )
    alone = InstancesConfig(method="watershed", value=20)
    assert numbered(row, alone, table, (1.0, 1.0, 1.0)).ravel().tolist() == [0, 1, 0, 0, 2]


@pytest.mark.parametrize(
    ("table", "config"),
    [
        (LabelTable(values=(0, 1, 2)), InstancesConfig(method="watershed")),
        (LabelTable(values=(0, 1)), InstancesConfig(method="watershed", value=3)),
        (LabelTable(values=(0, 1)), InstancesConfig(method="border", border=1)),
        (LabelTable(values=(0, 1, 2)), InstancesConfig(method="border", border=2, value=2)),
        (LabelTable(kind="overlapping", values=(0, 1)), InstancesConfig(method="watershed")),
    ],
)
def test_classes_that_a_model_does_not_have_or_that_are_several_are_refused(table, config):
    with pytest.raises(UserError, match="Objects are of one class"):
        check_instances(config, table, "postprocess.yaml")


@pytest.mark.parametrize("said", [{"method": "border"}, {"border": 2}, {"depth": 1.0}, {"method": "voronoi"}])
def test_settings_that_contradict_each_other_are_mistakes(said):
    with pytest.raises(SettingsError):
        parse(InstancesConfig, said, "postprocess.yaml")
