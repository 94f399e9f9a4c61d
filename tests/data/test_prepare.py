"""Preparing writes a whole store or nothing, of exactly what was scanned."""

import errno
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fewvox.data import case_arrays
from fewvox.data import prepare as module
from fewvox.data.case_arrays import MAX_POSITIONS
from fewvox.data.claims import claimed
from fewvox.data.errors import UserError
from fewvox.data.formats.files import read_volume
from fewvox.data.hashing import content_hash, file_hash
from fewvox.data.plan import make_plan
from fewvox.data.prepare import bytes_needed, prepare
from fewvox.data.preprocess import preprocess
from fewvox.data.scan import ScanOptions, scan
from fewvox.data.store import Store, StoreError


@pytest.fixture
def scanned(tmp_path, nifti_folder):
    """Three scanned cases, the last without label."""
    return scan(nifti_folder(tmp_path / "source", 3, labelled=2))


@pytest.fixture
def plan(scanned):
    return make_plan(scanned.fingerprint, budget="cpu")


def test_stored_voxels_are_the_preprocessed_ones(scanned, plan, tmp_path):
    plan = replace(plan, preprocessing=replace(plan.preprocessing, spacing=(2.0, 1.0, 0.5)))
    store = prepare(scanned, plan, tmp_path / "out")
    for case in scanned.cases:
        expected = preprocess(read_volume(case.image), plan.preprocessing, case.image)
        np.testing.assert_array_equal(store.image(case.id)[:], expected.astype(np.float16))
        assert store.cases[case.id].shape == expected.shape[1:] == (12, 16, 28)


def test_stored_labels_are_class_numbers_of_the_file(scanned, plan, tmp_path):
    store = prepare(scanned, plan, tmp_path / "out")
    for case in scanned.cases[:2]:
        assert case.label is not None
        np.testing.assert_array_equal(store.label(case.id)[:], read_volume(case.label).array[0])
    assert [case.id for case in store.annotated] == ["c00", "c01"]


def test_every_case_tells_where_it_came_from(scanned, plan, tmp_path):
    store = prepare(scanned, plan, tmp_path / "out")
    for case in scanned.cases:
        stored, volume = store.cases[case.id], read_volume(case.image)
        assert stored.image_hash == file_hash(case.image)
        assert stored.content_hash == content_hash(volume.array)
        assert stored.label_hash == (file_hash(case.label) if case.label else None)
        assert (stored.source_shape, stored.source_spacing, stored.source_unit) == (
            (12, 16, 14),
            (2.0, 1.0, 1.0),
            "mm",
        )


def test_values_with_gaps_and_instances_are_stored_as_classes(tmp_path, save_nifti, nifti_folder):
    root = nifti_folder(tmp_path / "source", 2, labelled=0)
    label = np.zeros((12, 16, 14), np.uint8)
    label[2, 3, 4], label[5, 6, 7] = 40, 255
    save_nifti(root / "labels" / "c00.nii.gz", label)
    for kind, expected in (("classes", (1, 2)), ("instances", (1, 1))):
        found = scan(root, options=ScanOptions(label_kind=kind))
        store = prepare(found, make_plan(found.fingerprint, budget="cpu", label_kind=kind), tmp_path / kind)
        classes = store.label("c00")[:]
        assert (classes[2, 3, 4], classes[5, 6, 7], (classes > 0).sum()) == (*expected, 2)


def test_each_level_is_half_the_one_before(tmp_path, save_nifti):
    image = np.random.default_rng(0).normal(size=(20, 70, 40)).astype(np.float32)
    save_nifti(tmp_path / "source" / "a.nii", image, (7.0, 1.0, 1.0))
    found = scan(tmp_path / "source")
    store = prepare(found, make_plan(found.fingerprint), tmp_path / "out")
    levels = store.cases["a"].levels
    assert levels[:3] == ((1, 1, 1), (1, 2, 2), (1, 4, 4))
    for number, (z, y, x) in enumerate(levels):
        assert store.image("a", number).shape == (1, -(-20 // z), -(-70 // y), -(-40 // x))
    blocks = store.image("a")[:].reshape(1, 20, 35, 2, 20, 2).mean((3, 5))
    np.testing.assert_allclose(store.image("a", 1)[:], blocks, atol=2e-3)


def test_foreground_positions_are_of_their_class(tiny_store):
    for case in tiny_store.annotated:
        labels = tiny_store.label(case.id)[:]
        positions = tiny_store.foreground(case.id)
        assert set(positions) == {1, 2}
        for value, places in positions.items():
            assert (labels[tuple(places.T)] == value).all()
            assert len(places) == case.foreground_voxels[value] == (labels == value).sum()


def test_foreground_positions_are_at_most_ten_thousand_different_ones(tmp_path, save_nifti, nifti_folder):
    root = nifti_folder(tmp_path / "source", 1, labelled=0, shape=(30, 30, 30))
    label = np.ones((30, 30, 30), np.uint8)
    label[0, 0, 0] = 0
    save_nifti(root / "labels" / "c00.nii.gz", label)
    found = scan(root)
    first, again = (prepare(found, make_plan(found.fingerprint), tmp_path / name) for name in ("a", "b"))
    places = first.foreground("c00")[1]
    assert len(np.unique(places, axis=0)) == len(places) == MAX_POSITIONS
    assert first.cases["c00"].foreground_voxels == {1: 26999}
    assert places.mean(axis=0) == pytest.approx([14.5] * 3, abs=0.5)
    np.testing.assert_array_equal(places, again.foreground("c00")[1])


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("error", [OSError("gone"), KeyboardInterrupt()])
def test_a_store_that_fails_midway_is_continued(scanned, plan, tmp_path, monkeypatch, error):
    whole = prepare(scanned, plan, tmp_path / "whole")
    made = []

    def fail_at_the_third(folder, *rest):
        made.append(folder.name)
        if len(made) == 3:
            raise error
        return original(folder, *rest)

    original = module.write_image
    monkeypatch.setattr(module, "write_image", fail_at_the_third)
    monkeypatch.setattr(module, "workers_for", lambda _: 1)
    with pytest.raises(type(error)):
        prepare(scanned, plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    again = prepare(scanned, plan, tmp_path / "out")
    assert made == ["c00", "c01", "c02", "c02"]
    assert again.cases == whole.cases
    assert files(again.path) == files(whole.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source", "whole"]


def test_a_half_written_or_damaged_case_is_made_again(scanned, plan, tmp_path, monkeypatch):
    whole = prepare(scanned, plan, tmp_path / "out")
    expected = files(whole.path)
    left = whole.path.rename(tmp_path / ".out.unfinished")
    (left / "cases" / "c00" / "case.json").unlink()
    cut = left / "cases" / "c01" / "image_0.b2nd"
    cut.write_bytes(cut.read_bytes()[:-1])
    (left / "cases" / "of_another_data_set").mkdir()
    (left / "cases" / "of_another_data_set" / "image_0.b2nd").write_bytes(b"old")
    assert files(prepare(scanned, plan, tmp_path / "out").path) == expected


def test_two_processes_do_not_prepare_one_store_at_a_time(scanned, plan, tmp_path):
    with claimed(tmp_path / "out", "works"), pytest.raises(UserError, match="One process at a time"):
        prepare(scanned, plan, tmp_path / "out")
    prepare(scanned, plan, tmp_path / "out")


def test_a_source_that_changes_while_it_is_prepared_is_noticed(scanned, plan, tmp_path, monkeypatch):
    image = scanned.cases[0].image

    def change(folder, *rest):
        original(folder, *rest)
        image.write_bytes(image.read_bytes() + b"\0")

    original = module.write_image
    monkeypatch.setattr(module, "write_image", change)
    with pytest.raises(StoreError, match="changed after the scan"):
        prepare(scanned, plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_case_may_lie_in_a_folder_of_another_cases_name(tmp_path, save_nifti):
    for name in ("a.nii", "a/b.nii", "a%2Fb.nii"):
        save_nifti(tmp_path / "data" / name, np.random.default_rng(len(name)).normal(size=(4, 5, 6)))
    found = scan(tmp_path / "data")
    store = prepare(found, make_plan(found.fingerprint), tmp_path / "out")
    assert {case: store.image(case).shape for case in store.cases} == dict.fromkeys(
        ("a", "a/b", "a%2Fb"), (1, 4, 5, 6)
    )


def test_values_outside_of_what_was_annotated_are_nobodys_word(tmp_path, nifti_folder, save_nifti):
    root = nifti_folder(tmp_path / "source", 1)
    label = read_volume(root / "labels" / "c00.nii.gz").array[0].copy()
    label[0, 0, 0] = 7
    save_nifti(root / "labels" / "c00.nii.gz", label)
    region = np.ones_like(label)
    region[0] = 0
    save_nifti(tmp_path / "regions" / "c00.nii.gz", region)
    found = scan(root, regions=tmp_path / "regions")
    assert found.problems == ()
    store = prepare(found, make_plan(found.fingerprint), tmp_path / "out")
    expected = np.where(region, label.astype(int), -1)
    np.testing.assert_array_equal(store.label("c00")[:], expected)
    assert store.cases["c00"].annotated_share == pytest.approx(region.mean())
    assert set(store.foreground("c00")) == {0, 1, 2}


def test_a_full_disk_is_told_with_the_bytes_needed_and_nothing_is_lost(scanned, plan, tmp_path, monkeypatch):
    def full(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(case_arrays, "create_array", full)
        with pytest.raises(StoreError, match=r"no space left.*The whole store takes up to"):
            prepare(scanned, plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    prepare(scanned, plan, tmp_path / "out")


def test_a_store_that_is_there_is_kept_when_nothing_changed(scanned, plan, tmp_path):
    first = prepare(scanned, plan, tmp_path / "out")
    stamps = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
    assert prepare(scanned, plan, tmp_path / "out").cases == first.cases
    assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*")} == stamps


def test_a_store_made_otherwise_is_refused(scanned, plan, tmp_path):
    prepare(scanned, plan, tmp_path / "out")
    coarser = replace(plan, preprocessing=replace(plan.preprocessing, spacing=(4.0, 1.0, 1.0)))
    with pytest.raises(StoreError, match="made otherwise or of other files: c00, c01, c02"):
        prepare(scanned, coarser, tmp_path / "out")


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_source_that_changed_is_found_before_training(scanned, plan, tmp_path, kind):
    store = prepare(scanned, plan, tmp_path / "out")
    path = getattr(scanned.cases[0], kind)
    content = path.read_bytes()
    path.write_bytes(content)
    store.check(store.cases)  # another time, the same content
    path.write_bytes(content + b"\0")
    with pytest.raises(StoreError, match="changed after the store"):
        store.check(store.cases)
    with pytest.raises(StoreError) if kind == "image" else nullcontext():
        store.check(store.cases, labels=False)
    path.unlink()
    store.check(store.cases)


def test_slabs_and_boxes_do_not_show(tmp_path, nifti_folder, monkeypatch):
    found = scan(nifti_folder(tmp_path / "source", 1, shape=(23, 40, 36)))
    plan = make_plan(found.fingerprint)
    plan = replace(plan, preprocessing=replace(plan.preprocessing, spacing=(1.5, 1.2, 0.7)))
    whole = prepare(found, plan, tmp_path / "whole")
    monkeypatch.setattr(case_arrays, "READ_BYTES", 40 * 36 * 4 * 3)
    monkeypatch.setattr(case_arrays, "BOX", (8, 16, 12))
    boxed = prepare(found, plan, tmp_path / "boxed")
    for level in range(len(whole.cases["c00"].levels)):
        np.testing.assert_allclose(boxed.image("c00", level)[:], whole.image("c00", level)[:], atol=2e-3)
    np.testing.assert_array_equal(boxed.label("c00")[:], whole.label("c00")[:])
    assert boxed.cases["c00"].foreground_voxels == whole.cases["c00"].foreground_voxels


def test_a_store_is_not_there_before_it_is_whole(scanned, plan, tmp_path):
    seen = []
    prepare(scanned, plan, tmp_path / "out", progress=lambda *_: seen.append((tmp_path / "out").exists()))
    assert seen == [False] * 3
    assert (tmp_path / "out" / "store.json").is_file()


def test_an_existing_store_is_never_written_over(scanned, plan, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        prepare(scanned, plan, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_source_that_changed_after_the_scan_is_refused(scanned, plan, tmp_path, kind):
    path = getattr(scanned.cases[0], kind)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StoreError, match="changed after the scan"):
        prepare(scanned, plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_scan_with_errors_is_not_prepared(tmp_path, nifti_folder):
    root = nifti_folder(tmp_path / "source", 2)
    plan = make_plan(scan(root).fingerprint)
    (root / "images" / "c00.nii.gz").write_bytes(b"")
    with pytest.raises(StoreError, match="scan shows no error"):
        prepare(scan(root), plan, tmp_path / "out")


def test_a_label_value_that_the_plan_lacks_is_refused(scanned, plan, tmp_path):
    plan = replace(plan, labels=replace(plan.labels, values=(0, 1)))
    with pytest.raises(UserError, match="the label value 2"):
        prepare(scanned, plan, tmp_path / "out")


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(scanned, plan, tmp_path, monkeypatch):
    free = bytes_needed(scanned, plan) - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(UserError, match="free on its disk"):
        prepare(scanned, plan, tmp_path / "stores" / "out")
    assert not (tmp_path / "stores").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free + 1))
    prepare(scanned, plan, tmp_path / "stores" / "out")


def test_the_bytes_told_hold_all_levels_and_what_a_store_takes(tmp_path, save_nifti):
    noise = np.random.default_rng(0).normal(size=(64, 64, 64)).astype(np.float32)
    save_nifti(tmp_path / "source" / "a.nii", noise, (1.0, 1.0, 1.0))
    found = scan(tmp_path / "source")
    plan = make_plan(found.fingerprint)
    store = prepare(found, plan, tmp_path / "out")
    voxels = sum(np.prod(store.image("a", level).shape) for level in range(len(store.cases["a"].levels)))
    taken = sum(path.stat().st_size for path in store.path.rglob("*.b2nd"))
    assert 4 * voxels <= bytes_needed(found, plan)
    # noise does not compress, is stored in half precision, and its chunks have headers
    assert 0.4 * bytes_needed(found, plan) < taken < 0.51 * bytes_needed(found, plan)


def test_preparing_twice_gives_the_same_store(scanned, plan, tmp_path):
    first, again = (prepare(scanned, plan, tmp_path / name) for name in ("a", "b"))
    assert first.cases == again.cases
    assert Store.open(first.path).plan == again.plan == plan


def test_the_bytes_told_hold_all_levels_of_an_anisotropic_volume(tmp_path, save_nifti):
    save_nifti(tmp_path / "data/a.nii.gz", np.random.default_rng(0).normal(size=(5, 64, 64)), (8.0, 1.0, 1.0))
    scanned = scan(tmp_path / "data")
    store = prepare(scanned, make_plan(scanned.fingerprint, budget="cpu"), tmp_path / "store")
    raw = sum(4 * store.image("a", level)[:].size for level in range(len(store.cases["a"].levels)))
    assert raw <= bytes_needed(scanned, store.plan) <= 1.01 * raw


def test_the_memory_told_follows_the_largest_volume(tmp_path, save_nifti):
    told = []
    for name, edge in (("a", 8), ("b", 160)):
        save_nifti(tmp_path / name / "x.nii.gz", np.zeros((24, edge, edge)))
        told.append(module.memory_needed(scan(tmp_path / name)))
    assert told[1] - told[0] == 3 * 8 * 24 * (160**2 - 8**2)


def test_a_class_that_resampling_loses_is_told(tmp_path, save_nifti):
    label = np.zeros((8, 8, 8), np.uint8)
    label[:4] = 1
    label[6, 5, 5] = 2
    for case, spacing in (("a", 0.4), ("b", 1.0), ("c", 1.0)):
        image = np.random.default_rng(ord(case)).normal(size=(8, 8, 8))
        save_nifti(tmp_path / f"images/{case}.nii.gz", image, (spacing,) * 3)
        save_nifti(tmp_path / f"labels/{case}.nii.gz", label, (spacing,) * 3)
    scanned = scan(tmp_path)
    store = prepare(scanned, make_plan(scanned.fingerprint, budget="cpu"), tmp_path / "store")
    assert {k: c.lost_classes for k, c in store.cases.items()} == {"a": (2,), "b": (), "c": ()}


def test_a_plan_with_spacing_and_files_without_are_told_in_words(scanned, plan, tmp_path, save_tiff):
    save_tiff(tmp_path / "data/a.tif", np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32))
    with pytest.raises(UserError, match="no voxel spacing"):
        prepare(scan(tmp_path / "data"), plan, tmp_path / "store")
