"""Label maps are whole numbers, and come back as the values they went in as."""

from dataclasses import replace

import numpy as np
import pytest
from fewvox.data.errors import UserError
from fewvox.data.labels import IGNORED, LabelTable, count_values, label_map
from fewvox.data.settings import SettingsError, parse
from fewvox.data.volume import Volume
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


def volume(values, dtype=np.uint8) -> Volume:
    return Volume(array=np.array(values, dtype=dtype).reshape(1, 1, 1, -1))


def test_values_with_gaps_become_consecutive_classes_and_return():
    table = LabelTable(values=(0, 7, 255))
    labels = np.array([[[255, 0], [7, 255]]])
    classes = table.encode(labels)
    np.testing.assert_array_equal(classes, [[[2, 0], [1, 2]]])
    np.testing.assert_array_equal(table.decode(classes), labels)
    assert (table.classes, classes.dtype, table.decode(classes).dtype) == (3, np.int8, np.uint8)


@pytest.mark.parametrize("values", [(0, 9, 3, 5), (0, 1, 1), (1, 2), (-1, 0)])
def test_a_table_whose_values_do_not_rise_from_zero_is_refused(values):
    """A value added at the end of an edited plan was once trained as a neighbour's class."""
    with pytest.raises(SettingsError, match=r"label values (rise|begin with 0)"):
        parse(LabelTable, {"values": values}, "plan.yaml")


def test_where_0_is_unannotated_the_background_is_another_value():
    """As ilastik writes it: 0 nobody looked, 1 background, 2 and above classes."""
    table = parse(LabelTable, {"values": (1, 2, 5), "ignore": 0}, "plan.yaml")
    labels = np.array([[[0, 1], [2, 5]]])
    numbers = table.encode(labels)
    np.testing.assert_array_equal(numbers, [[[IGNORED, 0], [1, 2]]])
    np.testing.assert_array_equal(table.decode(numbers[labels > 0]), labels[labels > 0])


def test_the_commonest_value_may_be_the_background_of_objects():
    table = LabelTable(kind="instances", background=1)
    np.testing.assert_array_equal(table.encode(np.array([0, 1, 2])), [1, 0, 1])


@given(st.sets(st.integers(1, 70000), min_size=1, max_size=300), st.data())
def test_decode_undoes_encode(values, data):
    table = LabelTable(values=(0, *sorted(values)))
    labels = data.draw(hnp.arrays(np.int64, (2, 3, 4), elements=st.sampled_from(table.values)))
    np.testing.assert_array_equal(table.decode(table.encode(labels)), labels)


def test_more_than_128_classes_and_wide_values_get_wider_types():
    table = LabelTable(values=tuple(range(0, 90000, 300)))
    classes = table.encode(np.array([89700]))
    assert (classes[0], classes.dtype) == (299, np.int16)
    assert table.decode(classes).dtype == np.uint32


def test_instances_all_become_class_one():
    table = LabelTable(kind="instances", values=(0, 1))
    np.testing.assert_array_equal(table.encode(np.array([0, 1, 2, 70000])), [0, 1, 1, 1])


@pytest.mark.parametrize("ignore", [-1, 9, 255])
def test_what_nobody_annotated_becomes_minus_one_and_nothing_else_does(ignore):
    table = LabelTable(values=(0, 7, 200), ignore=ignore)
    numbers = table.encode(np.array([0, ignore, 7, 200, ignore]))
    assert numbers.dtype == np.int8
    assert numbers.tolist() == [0, IGNORED, 1, 2, IGNORED]


def test_unannotated_voxels_of_instances_are_none_of_the_objects():
    table = LabelTable(kind="instances", ignore=5)
    assert table.encode(np.array([0, 1, 5, 70000])).tolist() == [0, 1, IGNORED, 1]


def test_overlapping_classes_are_channels_and_a_voxel_left_open_in_one_is_open_in_all():
    table = LabelTable(kind="overlapping", values=(0, 1, 2), ignore=9)
    numbers = table.encode(np.array([[0, 255, 255, 9], [0, 0, 1, 1]])[:, None, None])
    assert (table.outputs, numbers.dtype) == (2, np.int8)
    assert numbers[:, 0, 0].tolist() == [[0, 1, 1, IGNORED], [0, 0, 1, IGNORED]]
    for c, voxels in ((1, [False, True, True, False]), (2, [False, False, True, False])):
        assert table.members(numbers, c)[0, 0].tolist() == voxels


def test_overlapping_classes_come_back_as_masks():
    table = LabelTable(kind="overlapping", values=(0, 1, 2))
    masks = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)[:, None, None]
    decoded = table.decode(masks)
    np.testing.assert_array_equal(decoded, masks)
    assert decoded.dtype == np.uint8


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"ignore": 255}, True),
        ({"ignore": 255, "values": (0, 2)}, False),
        ({"kind": "instances"}, False),
        ({"kind": "overlapping"}, False),
    ],
)
def test_the_unannotated_value_does_not_make_classes_others(other, same):
    table = LabelTable(values=(0, 1))
    assert table.same_classes(replace(table, **other)) == same


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint16, np.int64, bool])
def test_whole_numbers_of_any_type_are_taken(dtype):
    labels = label_map(volume([0, 1, 1], dtype), "a.nii")
    assert labels.dtype.kind in "iu"
    np.testing.assert_array_equal(labels, [[[0, 1, 1]]])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([0, np.nan, np.inf], "2 voxels are NaN or infinite"),
        ([0, 0.5, 1, 1.5], r"0\.5 \(and 1 more"),
        ([0, -1], "-1"),
    ],
)
def test_what_is_no_whole_number_from_zero_is_refused(values, told):
    with pytest.raises(UserError, match=told) as caught:
        label_map(volume(values, np.float32), "a.nii")
    assert caught.value.where == "a.nii"


def test_negative_integers_are_refused():
    with pytest.raises(UserError, match="label value -3"):
        label_map(volume([0, -3], np.int16), "a.nii")


def test_several_channels_are_refused():
    colours = Volume(array=np.zeros((3, 1, 2, 2), np.uint8), channels=("red", "green", "blue"))
    with pytest.raises(UserError, match="3 channels"):
        label_map(colours, "a.tif")


def test_voxels_are_counted_by_value():
    assert count_values(np.array([[[0, 255], [7, 255]]])) == {0: 1, 7: 1, 255: 2}


def test_a_huge_float_is_told_as_it_is():
    volume = Volume(array=np.full((1, 2, 2, 2), 1e300))
    with pytest.raises(UserError, match="label value 1e\\+300"):
        label_map(volume, "x.nii")
