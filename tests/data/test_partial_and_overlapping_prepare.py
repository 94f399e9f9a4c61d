"""Labels of every layout that users bring end in a store as what was annotated, and where."""

import json

import nibabel as nib
import numpy as np
import pytest
from fewvox.data.labels import IGNORED
from fewvox.data.plan import make_plan
from fewvox.data.prepare import prepare
from fewvox.data.scan import ScanOptions, scan

SHAPE = (12, 16, 14)
CASES = ("a", "b", "c")


def image(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(50, 5, SHAPE).astype(np.float32)


def label(n: int) -> np.ndarray:
    """A box of 1 and one of 2, elsewhere for each case."""
    values = np.zeros(SHAPE, np.uint8)
    values[2:6, 3 : 7 + n, 2:8], values[7:11, 8:14, 4 : 9 + n] = 1, 2
    return values


def masks(n: int) -> np.ndarray:
    """Two classes that overlap, (2, Z, Y, X)."""
    found = np.zeros((2, *SHAPE), np.uint8)
    found[0, 2:8, 3 : 9 + n, 2:10], found[1, 5:11, 6:14, 4 : 9 + n] = 1, 1
    return found


def stored(folder, **options):
    """The store of a data set with its plan for CPUs; nothing may be wrong with it."""
    regions = options.pop("regions", None)
    scanned = scan(folder, regions=regions, options=ScanOptions(**options))
    assert [str(p) for p in scanned.errors] == []
    plan = make_plan(scanned.fingerprint, budget="cpu", label_kind=scanned.label_kind, ignore=scanned.ignore)
    return prepare(scanned, plan, folder.parent / "store"), scanned


def check(store, numbers: dict[str, np.ndarray], classes: int) -> None:
    """Class numbers of each case, their positions, and the share that somebody annotated."""
    for case, expected in numbers.items():
        np.testing.assert_array_equal(store.label(case)[:], expected)
        channels = (
            expected if expected.ndim == 4 else np.stack([expected == c for c in range(1, classes + 1)])
        )
        open_ = (expected == IGNORED).reshape(-1, *SHAPE).any(axis=0)
        sets = dict(enumerate(channels > 0, start=1))
        if open_.any():
            sets[0] = ~open_ & ~(channels > 0).any(axis=0)
        positions = store.foreground(case)
        assert set(positions) == set(sets)
        for c, members in sets.items():
            np.testing.assert_array_equal(sorted(positions[c].tolist()), np.argwhere(members))
        assert store.cases[case].foreground_voxels == {c: int(m.sum()) for c, m in sets.items() if c > 0}
        assert store.cases[case].annotated_share == pytest.approx((~open_).mean())
        assert store.cases[case].lost_classes == ()


@pytest.fixture
def images(tmp_path, save_nifti):
    """A folder with the images of three cases."""
    for n, case in enumerate(CASES):
        save_nifti(tmp_path / "data" / "images" / f"{case}.nii.gz", image(n))
    (tmp_path / "data" / "labels").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize("ignore", [255, 0])
def test_a_value_tells_what_nobody_annotated(images, save_nifti, ignore):
    expected = {}
    for n, case in enumerate(CASES):
        values = label(n) + (ignore == 0)
        values[:, :5] = ignore
        save_nifti(images / "labels" / f"{case}.nii.gz", values)
        expected[case] = label(n).astype(np.int8)
        expected[case][:, :5] = IGNORED
    store, _ = stored(images, ignore=ignore)
    check(store, expected, 2)
    assert store.plan.labels is not None
    assert store.plan.labels.values == ((1, 2, 3) if ignore == 0 else (0, 1, 2))


def test_regions_tell_what_somebody_annotated_and_a_case_without_is_whole(images, tmp_path, save_nifti):
    expected = {case: label(n).astype(np.int8) for n, case in enumerate(CASES)}
    for n, case in enumerate(CASES):
        save_nifti(images / "labels" / f"{case}.nii.gz", label(n))
    for case in CASES[:2]:
        region = np.zeros(SHAPE, np.uint8)
        region[4:9] = 7
        save_nifti(tmp_path / "regions" / f"{case}.nii.gz", region)
        expected[case][region == 0] = IGNORED
    store, scanned = stored(images, regions=tmp_path / "regions")
    check(store, expected, 2)
    assert [p.found for p in scanned.warnings] == ["no region for 1 labels: c"]


@pytest.mark.parametrize("ignore", [None, 9])
@pytest.mark.parametrize("format", ["nii.gz", "tif"])
def test_overlapping_classes_are_channels(images, save_tiff, format, ignore):
    expected = {}
    for n, case in enumerate(CASES):
        values, expected[case] = masks(n) * 255, masks(n).astype(np.int8)
        if ignore is not None:
            values[1, 9:], expected[case][:, 9:] = ignore, IGNORED
        if format == "tif":
            save_tiff(images / "labels" / f"{case}.tif", values)
        else:
            stacked = nib.Nifti1Image(values.transpose(3, 2, 1, 0), np.diag((1, 1, 2, 1.0)))
            stacked.header.set_xyzt_units("mm")
            nib.save(stacked, images / "labels" / f"{case}.nii.gz")
    store, scanned = stored(images, label_kind="overlapping", ignore=ignore)
    check(store, expected, 2)
    assert scanned.records == ()


def test_a_one_hot_stack_becomes_numbers_and_that_is_recorded(images, save_tiff):
    for n, case in enumerate(CASES):
        stack = np.stack([label(n) == c for c in range(3)]).astype(np.uint8) * 255
        save_tiff(images / "labels" / f"{case}.tif", stack)
    store, _ = stored(images)
    check(store, {case: label(n).astype(np.int8) for n, case in enumerate(CASES)}, 2)
    assert all("one-hot" in store.cases[case].corrections[0] for case in CASES)
    assert len(store.records) == 3


def test_masks_of_255_among_masks_of_1_are_one_class(images, save_nifti):
    for n, case in enumerate(CASES):
        save_nifti(images / "labels" / f"{case}.nii.gz", (label(n) > 0) * np.uint8(255 if n == 1 else 1))
    store, _ = stored(images)
    check(store, {case: (label(n) > 0).astype(np.int8) for n, case in enumerate(CASES)}, 1)
    assert [len(store.cases[case].corrections) for case in CASES] == [0, 1, 0]


def test_two_expected_classes_have_the_commonest_value_for_background(images, save_nifti):
    for n, case in enumerate(CASES):
        save_nifti(images / "labels" / f"{case}.nii.gz", (label(n) + 1) % 3)
    store, _ = stored(images, classes=2)
    check(store, {case: (label(n) > 0).astype(np.int8) for n, case in enumerate(CASES)}, 1)


def test_nnunets_channels_and_its_ignore_label(tmp_path, save_nifti):
    data, expected = tmp_path / "Dataset001_Boxes", {}
    for n, case in enumerate(CASES):
        for channel in range(2):
            save_nifti(data / "imagesTr" / f"{case}_000{channel}.nii.gz", image(10 * n + channel))
        values = label(n)
        values[:3] = 3
        save_nifti(data / "labelsTr" / f"{case}.nii.gz", values)
        expected[case] = np.where(values == 3, IGNORED, values).astype(np.int8)
    told = {
        "channel_names": {"0": "T1", "1": "CT"},
        "labels": {"background": 0, "one": 1, "two": 2, "ignore": 3},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (data / "dataset.json").write_text(json.dumps(told))
    store, _ = stored(data)
    check(store, expected, 2)
    how = store.plan.preprocessing
    assert (how.channels, how.normalisation) == (("T1", "CT"), ("zscore", "ct"))
    for n, case in enumerate(CASES):
        found = store.image(case)[:]
        assert found.shape == (2, *SHAPE)
        window = how.windows[1]
        assert window is not None
        first, second = image(10 * n), image(10 * n + 1).clip(window.low, window.high)
        np.testing.assert_allclose(found[0], (first - first.mean()) / first.std(), atol=5e-3)
        np.testing.assert_allclose(found[1], (second - window.mean) / window.std, atol=5e-3)
