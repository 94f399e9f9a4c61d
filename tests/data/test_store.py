"""A store is opened when it is whole and of its plan, and read box by box."""

import json
import shutil

import numpy as np
import pytest
from fewvox.data.plan import Plan
from fewvox.data.settings import SettingsError, load_mapping, override, parse, write_yaml
from fewvox.data.store import PLAN_FILE, STORE_FILE, Store, StoreError, open_array, stored_dtype, write_array


@pytest.fixture
def copied(tiny_store, tmp_path):
    """A copy of the store that may be changed."""
    return shutil.copytree(tiny_store.path, tmp_path / "store")


def edit_plan(folder, change: str) -> None:
    values = override(load_mapping(folder / PLAN_FILE), [change])
    write_yaml(folder / PLAN_FILE, parse(Plan, values, PLAN_FILE))


def test_a_store_is_read_as_it_was_written(tiny_store, copied):
    store = Store.open(copied)
    assert (store.plan, store.cases) == (tiny_store.plan, tiny_store.cases)
    np.testing.assert_array_equal(store.image("c03")[:], tiny_store.image("c03")[:])


@pytest.mark.parametrize("change", ["training.patch=[8, 8, 8]", "training.batch=1", "reasons.patch=mine"])
def test_training_may_be_edited(tiny_store, copied, change):
    edit_plan(copied, change)
    assert Store.open(copied).plan != tiny_store.plan


@pytest.mark.parametrize(
    "change", ["preprocessing.spacing=[2, 1, 2]", "preprocessing.unit=um", "labels.values=[0, 1]"]
)
def test_preprocessing_and_labels_may_not_be_edited(copied, change):
    edit_plan(copied, change)
    with pytest.raises(StoreError, match="were edited after"):
        Store.open(copied)


def test_a_mistake_in_the_plan_is_told_by_its_key(copied):
    (copied / PLAN_FILE).write_text((copied / PLAN_FILE).read_text().replace("batch:", "bacth:"))
    with pytest.raises(SettingsError, match=r"training\.bacth"):
        Store.open(copied)


def test_a_folder_without_its_index_is_no_store(copied):
    (copied / STORE_FILE).unlink()
    with pytest.raises(StoreError, match=r"no store\.json in it"):
        Store.open(copied)
    with pytest.raises(StoreError, match="no such folder"):
        Store.open(copied / "absent")


def test_a_damaged_index_is_told(copied):
    (copied / STORE_FILE).write_text('{"version": 1')
    with pytest.raises(SettingsError, match="not readable as JSON"):
        Store.open(copied)


@pytest.mark.parametrize(("key", "value"), [("version", 3), ("cases", []), ("extra", 1)])
def test_an_index_of_another_form_is_refused(copied, key, value):
    values = json.loads((copied / STORE_FILE).read_text()) | {key: value}
    (copied / STORE_FILE).write_text(json.dumps(values))
    with pytest.raises(SettingsError, match=f"'{key}'"):
        Store.open(copied)


@pytest.mark.parametrize("content", [None, b"", b"no array"])
def test_a_damaged_or_missing_array_is_told_by_its_name(copied, content):
    path = copied / "cases" / "c00" / "image_0.b2nd"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"image_0\.b2nd"):
        Store.open(copied)


def test_a_flipped_bit_is_found(copied):
    path = copied / "cases" / "c00" / "image_0.b2nd"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    store = Store.open(copied)
    store.check(["c01"])
    with pytest.raises(StoreError, match=r"image_0\.b2nd"):
        store.check(["c00"])


def test_a_store_of_version_1_is_told_to_be_made_anew(copied):
    values = json.loads((copied / STORE_FILE).read_text()) | {"version": 1}
    (copied / STORE_FILE).write_text(json.dumps(values))
    with pytest.raises(StoreError, match="earlier fewvox"):
        Store.open(copied)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 70, 5, 130), (65, 64, 63)])
def test_an_array_of_any_shape_is_read_as_written(tmp_path, shape):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    write_array(tmp_path / "a.b2nd", array)
    stored = open_array(tmp_path / "a.b2nd")
    assert (stored.shape, stored.dtype) == (shape, np.float32)
    np.testing.assert_array_equal(stored[:], array)
    np.testing.assert_array_equal(stored[0, 3:, :2], array[0, 3:, :2])


def test_images_are_read_as_float32_whatever_they_are_stored_as(tiny_store):
    image = tiny_store.image("c00")
    assert image.dtype == image[:, 2:4].dtype == np.float32


@pytest.mark.parametrize(("highest", "dtype"), [(3.0, np.float16), (32.0, np.float16), (33.0, np.float32)])
def test_half_precision_is_used_where_it_errs_by_less_than_a_hundredth(highest, dtype):
    assert stored_dtype(-1.0, highest) == dtype
    values = np.linspace(-1, highest, 100001)
    if dtype == np.float16:
        assert np.abs(values.astype(dtype) - values).max() <= 0.01
