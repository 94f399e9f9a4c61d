"""A store is opened when it is whole and of its plan, and read box by box."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import blosc2
import numpy as np
import pytest
from fewvox.data.plan import Plan
from fewvox.data.settings import SettingsError, load_mapping, override, parse, write_yaml
from fewvox.data.store import (
    CHUNK,
    PLAN_FILE,
    STORE_FILE,
    Store,
    StoreError,
    create_array,
    open_array,
    stored_dtype,
    write_array,
    write_box,
)
from hypothesis import given
from hypothesis import strategies as st


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


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def image_file(folder):
    return folder / "cases" / "c00" / "image_0.b2nd"


@given(st.floats(-100, 100, width=32), st.floats(-100, 100, width=32))
def test_float16_is_for_what_it_rounds_by_less_than_a_hundredth(a, b):
    kept = np.array([a, b], dtype=stored_dtype(min(a, b), max(a, b))).astype(np.float64)
    assert abs(kept - [a, b]).max() < 0.01


def test_the_largest_magnitude_decides_on_the_type():
    assert stored_dtype(-1, 31.9) == stored_dtype(-32, 0) == np.float16
    assert stored_dtype(-32.1, 0) == stored_dtype(0, 33) == stored_dtype(0, np.inf) == np.float32
    assert stored_dtype(np.nan, 1) == stored_dtype(0, np.nan) == np.float32


def test_what_float16_would_round_too_much_is_not_written_in_it(tmp_path):
    array = create_array(tmp_path / "a.b2nd", (1, 1, 1, 2), np.dtype(np.float16))
    for values in ([33, 0], [-70000, 0], [np.nan, 0]):
        with pytest.raises(ValueError, match="not stored in float16"):
            write_box(array, (0, 0, 0), np.float32([[[values]]]))


def test_float16_is_read_as_float32(copied):
    array = normal(2, 20, 30, 40)
    store = Store.open(copied)
    write_box(create_array(image_file(copied), array.shape, np.dtype(np.float16)), (0, 0, 0), array)
    stored = store.image("c00")
    assert (stored.shape, stored.dtype, stored[:].dtype) == (array.shape, np.float32, np.float32)
    np.testing.assert_array_equal(stored[:, 3:9], array[:, 3:9].astype(np.float16).astype(np.float32))


def test_an_array_filled_box_by_box_is_the_one_written_at_once(tmp_path):
    array = normal(2, 70, 130, 65)
    write_array(tmp_path / "whole.b2nd", array)
    filled = create_array(tmp_path / "boxes.b2nd", array.shape, array.dtype)
    assert not filled[:].any()
    z, y, _ = CHUNK
    for start in ((z, y, 0), (0, y, 0), (0, 0, 0), (z, 0, 0), (0, 2 * y, 0), (z, 2 * y, 0)):
        write_box(filled, start, array[:, start[0] :, start[1] :][:, :z, :y])
    np.testing.assert_array_equal(filled[:], array)
    assert (tmp_path / "boxes.b2nd").stat().st_size == (tmp_path / "whole.b2nd").stat().st_size
    assert filled.chunks[1:] == CHUNK


def test_an_open_array_whose_file_is_replaced_is_opened_anew(copied):
    store, path = Store.open(copied), image_file(copied)
    for seed in (1, 2):
        write_array(path, normal(1, 8, 8, 8, seed=seed))
        np.testing.assert_array_equal(store.image("c00")[:], normal(1, 8, 8, 8, seed=seed))
    path.unlink()
    with pytest.raises(StoreError):
        store.image("c00")


def test_a_forked_process_opens_its_own(copied, monkeypatch):
    store = Store.open(copied)
    assert store.label("c00") is store.label("c00")
    mine = store.label("c00")
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert store.label("c00") is not mine


def test_threads_read_one_array_at_the_same_time(copied):
    array = normal(1, 64, 64, 64)
    store = Store.open(copied)
    write_array(image_file(copied), array)

    def differs(k: int) -> bool:
        box = (slice(None), slice(k % 30, k % 30 + 32))
        return not np.array_equal(store.image("c00")[box], array[box])

    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(differs, range(200)))


def test_a_file_holds_the_same_bytes_whatever_the_machine_s_threads(tmp_path):
    voxels, written = np.random.default_rng(0).integers(0, 3, (12, 16, 14)).astype(np.uint8), []
    before = blosc2.set_nthreads(1)
    for threads in (1, 3):
        blosc2.set_nthreads(threads)
        write_array(tmp_path / f"{threads}.b2nd", voxels)
        written.append((tmp_path / f"{threads}.b2nd").read_bytes())
    blosc2.set_nthreads(before)
    assert written[0] == written[1]
