"""Labels of any layout are read as whole numbers, part by part, and counted where somebody annotated."""

from dataclasses import replace

import numpy as np
import pytest
from fewvox.data import slabs
from fewvox.data.errors import UserError
from fewvox.data.label_voxels import ClassNumbers, LabelVoxels, count_labels, label_voxels
from fewvox.data.labels import IGNORED, LabelTable
from fewvox.data.volume import Volume
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

WHOLE = (slice(None),) * 4


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Slabs of a few slices and parts of one: all that is told must be of the whole."""
    monkeypatch.setattr(slabs, "SLAB_BYTES", 2 * 9)
    monkeypatch.setattr(slabs, "_PART_VOXELS", 9)


def of(array, **fields) -> LabelVoxels:
    return LabelVoxels(where="a.nii", array=np.asarray(array), **fields)


def maps(highest=5, channels=1):
    return hnp.arrays(np.uint8, (channels, 4, 3, 3), elements=st.integers(0, highest))


def one_hot(numbers: np.ndarray, classes: int, dtype=np.uint8) -> np.ndarray:
    return (numbers == np.arange(classes)[:, None, None, None]).astype(dtype)


@given(maps(), maps(1), st.sampled_from([None, 0, 3]))
def test_values_are_counted_where_the_region_is_and_nowhere_unannotated(values, region, ignore):
    found = count_labels(of(values, ignore=ignore), region, None)
    kept = values[(region > 0) & (values != (-1 if ignore is None else ignore))]
    assert found.voxels == {int(v): int((kept == v).sum()) for v in np.unique(kept)}
    assert found.annotated == kept.size


@given(maps(1, channels=3), maps(1), st.booleans())
def test_overlapping_classes_count_each_for_itself_and_a_voxel_once(masks, region, with_ignore):
    masks = masks * np.uint8(200)
    if with_ignore:
        masks[1, 0, 0, 0] = 9
    found = count_labels(of(masks, ignore=9), region, "overlapping")
    kept = (region[0] > 0) & (masks != 9).all(axis=0)
    expected = {0: (kept & (masks == 0).all(axis=0)).sum()}
    expected |= {c + 1: (kept & (masks[c] == 200)).sum() for c in range(3)}
    assert found.voxels == expected
    assert found.annotated == kept.sum()


@pytest.mark.parametrize("second", [(0, 0, 0, 1), (0, 3, 2, 2)])
def test_a_channel_of_two_values_is_no_class_wherever_the_second_is(second):
    masks = np.zeros((2, 4, 3, 3), np.uint8)
    masks[0, 0, 0, 0], masks[second] = 1, 2
    with pytest.raises(UserError, match="the values 1, 2 in channel 0"):
        count_labels(of(masks), None, "overlapping")


@given(maps(), st.sampled_from([np.uint8, bool, np.float32]))
def test_one_hot_channels_become_their_numbers(numbers, dtype):
    found = of(one_hot(numbers, 6, dtype), one_hot=True)
    assert (found.shape, count_labels(found, None, None)) == (
        numbers.shape,
        count_labels(of(numbers), None, None),
    )
    np.testing.assert_array_equal(found[WHOLE], numbers)
    np.testing.assert_array_equal(found[:, 1:3, :2, 1:], numbers[:, 1:3, :2, 1:])


def test_more_channels_than_a_byte_counts_keep_their_numbers():
    numbers = np.array([0, 255, 256, 299]).reshape(1, 1, 2, 2)
    np.testing.assert_array_equal(of(one_hot(numbers, 300), one_hot=True)[WHOLE], numbers)


@pytest.mark.parametrize(
    "channels", [[[1, 1], [0, 1]], [[1, 0], [0, 0]], [[1, 0], [0, 2]]], ids=["two", "none", "values"]
)
def test_channels_of_which_not_exactly_one_is_set_are_refused(channels):
    label = of(np.array(channels, np.uint8)[:, None, None], one_hot=True)
    with pytest.raises(UserError, match="a label of 2 channels") as caught:
        label[WHOLE]
    assert "--label-kind overlapping" in caught.value.remedy


def test_several_channels_are_one_hot_unless_said_to_overlap_and_colours_are_no_label():
    volume = Volume(array=np.zeros((3, 2, 2, 2), np.uint8))
    assert label_voxels(volume, "a").one_hot
    assert not label_voxels(volume, "a", "overlapping").one_hot
    assert not label_voxels(Volume(array=volume.array[:1]), "a").one_hot
    with pytest.raises(UserError, match="in colours"):
        label_voxels(replace(volume, channels=("red", "green", "blue")), "a", "overlapping")


def test_nearly_whole_numbers_are_rounded_and_counted():
    values = np.array([0, 0.9995, 2.0, 1.0]).reshape(1, 2, 2, 1)
    found = count_labels(of(values), None, None)
    assert (found.voxels, found.rounded, found.annotated) == ({0: 1, 1: 2, 2: 1}, 1, 4)


def test_an_alias_is_of_the_class_that_it_stands_for():
    values = of(np.array([0, 255, 1], np.uint8).reshape(1, 1, 1, 3))
    numbers = ClassNumbers(labels=values, table=LabelTable(aliases={255: 1}))
    assert numbers[WHOLE].ravel().tolist() == [0, 1, 1]


@given(maps(1), maps(1))
def test_class_numbers_are_minus_one_where_nobody_annotated(region, ignored):
    values = np.where(ignored > 0, np.uint8(9), np.uint8(200))
    table = LabelTable(values=(0, 200), ignore=9)
    found = ClassNumbers(labels=of(values, ignore=9), table=table, region=region)
    expected = np.where((region == 0) | (ignored > 0), IGNORED, 1)
    np.testing.assert_array_equal(found[WHOLE], expected)
    np.testing.assert_array_equal(found[:, 1:3, :, 1:], expected[:, 1:3, :, 1:])
    np.testing.assert_array_equal(found.held(slice(1, 3))[:, 2:3], expected[:, 2:3])
    assert (found.shape, found.dtype) == (values.shape, np.int8)


def test_a_voxel_of_overlapping_classes_is_unannotated_in_all_or_none():
    masks = np.array([[1, 9, 0, 1], [0, 1, 1, 0]], np.uint8)[:, None, None]
    region = np.array([1, 1, 1, 0])[None, None, None]
    table = LabelTable(kind="overlapping", values=(0, 1, 2), ignore=9)
    found = ClassNumbers(labels=of(masks, ignore=9), table=table, region=region)[WHOLE]
    assert found[:, 0, 0].tolist() == [[1, IGNORED, 0, IGNORED], [0, IGNORED, 1, IGNORED]]


def test_a_value_of_no_class_is_told_with_those_of_the_plan():
    numbers = ClassNumbers(labels=of(np.full((1, 1, 1, 1), 3)), table=LabelTable(values=(0, 1, 5)))
    with pytest.raises(UserError, match=r"label value 3\. The plan has the values 0, 1, 5"):
        numbers[WHOLE]
    objects = replace(numbers, table=LabelTable(kind="instances"))
    assert objects[WHOLE].item() == 1
