"""A scan reads every voxel, tells every problem in one pass, and writes nothing."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fewvox.data.agreement import disagreements
from fewvox.data.formats.choices import ReadChoices
from fewvox.data.reading import open_image, open_label
from fewvox.data.scan import ScanOptions, scan

SHAPE = (4, 6, 5)


def voxels(seed=0, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def mask(*values: int) -> np.ndarray:
    """A label map (4, 6, 5) with one voxel of each value."""
    label = np.zeros(SHAPE, np.uint8)
    label.flat[: len(values)] = values
    return label


def told(problems) -> list[tuple[str, str]]:
    return [(p.severity, p.case) for p in problems]


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    stats = {str(path): path.stat() for path in folder.rglob("*")}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def test_a_good_data_set_has_no_problem(tmp_path, nifti_folder):
    found = scan(nifti_folder(tmp_path, 3))
    assert found.problems == ()
    assert [case.id for case in found.cases] == ["c00", "c01", "c02"]
    assert found.fingerprint.label_values == (0, 1, 2)
    assert found.fingerprint.median_shape == (12, 16, 14)
    assert (found.fingerprint.spacing, found.fingerprint.unit) == ((2.0, 1.0, 1.0), "mm")


def test_three_faults_are_named_in_one_pass_and_nothing_is_written(tmp_path, nifti_folder, save_nifti):
    """The issue's acceptance: one truncated file, one label of another shape, one NaN volume."""
    root = nifti_folder(tmp_path, 5)
    cut = root / "images" / "c01.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-40])
    save_nifti(root / "labels" / "c02.nii.gz", np.ones((12, 16, 13), np.uint8))
    holed = np.asarray(nib.load(root / "images" / "c03.nii.gz").dataobj).T.copy()
    holed[1, 2, 3] = np.nan
    save_nifti(root / "images" / "c03.nii.gz", holed)
    before = listing(tmp_path)

    found = scan(root)
    assert {(p.case, Path(p.where).parent.name) for p in found.errors} == {
        ("c01", "images"),
        ("c02", "labels"),
        ("c03", "images"),
    }
    texts = {p.case: str(p) for p in found.errors}
    assert "cannot be read" in texts["c01"]
    assert "(12, 16, 13)" in texts["c02"]
    assert "1 of 2688 voxels are NaN" in texts["c03"]
    assert [case.id for case in found.cases] == ["c00", "c02", "c04"]
    assert listing(tmp_path) == before


def test_a_case_whose_image_and_label_are_both_broken_is_told_twice(tmp_path, nifti_folder):
    root = nifti_folder(tmp_path, 2)
    for kind in ("images", "labels"):
        (root / kind / "c00.nii.gz").write_bytes(b"")
    assert {Path(p.where).parent.name for p in scan(root).errors} == {"images", "labels"}


@pytest.mark.parametrize("value", [1e300, np.inf, -np.inf, np.nan])
def test_a_value_beyond_float32_is_an_error(tmp_path, save_nifti, value):
    array = voxels().astype(np.float64)
    array[0, 0, 0] = value
    save_nifti(tmp_path / "a.nii", array)
    (problem,) = scan(tmp_path).errors
    assert problem.found == "1 of 120 voxels are NaN, infinite or beyond float32"


def test_an_intensity_is_measured_over_all_voxels(tmp_path, save_nifti):
    save_nifti(tmp_path / "a.nii", voxels())
    (measured,) = scan(tmp_path).fingerprint.cases[0].intensities
    assert measured.mean == pytest.approx(voxels().mean())
    assert measured.std == pytest.approx(voxels().std())
    assert (measured.lowest, measured.highest) == (voxels().min(), voxels().max())


def test_a_constant_image_is_a_warning(tmp_path, save_nifti):
    save_nifti(tmp_path / "a.nii", np.full(SHAPE, 7, np.uint8))
    (problem,) = scan(tmp_path).problems
    assert (problem.severity, problem.found) == ("warning", "every voxel of a channel is 7")


def test_a_label_of_another_spacing_is_an_error(tmp_path, save_nifti):
    save_nifti(tmp_path / "images" / "a.nii", voxels(), (2.0, 1.0, 1.0))
    save_nifti(tmp_path / "labels" / "a.nii", mask(1), (2.0, 1.0, 1.1))
    (problem,) = scan(tmp_path).errors
    assert problem.found.startswith("spacing (z, y, x) (2, 1, 1.1), but (2, 1, 1) in")


def test_all_that_differs_between_label_and_image_is_told(tmp_path, save_nifti):
    save_nifti(tmp_path / "images" / "a.nii", voxels())
    (tmp_path / "labels").mkdir()
    turned = np.array([[1.2, 0.5, 0, 9], [-0.5, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(mask(1).T, turned), tmp_path / "labels" / "a.nii")
    assert [p.found.split(" ")[0] for p in scan(tmp_path).errors] == ["spacing", "origin", "direction"]


def test_label_and_image_in_different_units_are_compared_in_one(tmp_path, save_nifti):
    save_nifti(tmp_path / "images" / "a.nii", voxels(), (2.0, 1.0, 1.0), "mm")
    save_nifti(tmp_path / "labels" / "a.nii", mask(1), (2000.0, 1000.0, 1000.0), "micron")
    assert scan(tmp_path).errors == ()


def test_a_label_without_spacing_is_taken(tmp_path, save_tiff):
    save_tiff(tmp_path / "images" / "a.tif", voxels(), (2.0, 1.0, 1.0), "um")
    save_tiff(tmp_path / "labels" / "a.tif", mask(1))
    assert scan(tmp_path).errors == ()


def test_known_and_unknown_spacings_do_not_mix_unless_one_is_given(tmp_path, save_tiff):
    for n, spacing in enumerate([(2.0, 1.0, 1.0), (2.0, 1.0, 1.0), None]):
        save_tiff(tmp_path / f"{n}.tif", voxels(n), spacing, spacing and "um")
    found = scan(tmp_path)
    assert told(found.problems) == [("error", "2")]
    assert found.fingerprint.spacing is None
    helped = scan(tmp_path, options=ScanOptions(spacing=(2.0, 1.0, 1.0), unit="um"))
    assert (helped.problems, helped.fingerprint.spacing) == ((), (2.0, 1.0, 1.0))


def test_a_data_set_without_any_spacing_is_taken(tmp_path, save_tiff):
    for n in range(2):
        save_tiff(tmp_path / f"{n}.tif", voxels(n))
    found = scan(tmp_path)
    assert (found.problems, found.fingerprint.spacing, found.fingerprint.unit) == ((), None, None)


def test_units_that_differ_meet_in_one_fingerprint(tmp_path, save_nifti):
    save_nifti(tmp_path / "a.nii", voxels(0), (0.002, 0.001, 0.001), "mm")
    save_nifti(tmp_path / "b.nii", voxels(1), (2.0, 1.0, 1.0), "micron")
    save_nifti(tmp_path / "c.nii", voxels(2), (2.0, 1.0, 1.0), "micron")
    found = scan(tmp_path)
    assert found.problems == ()
    assert found.fingerprint.spacing == pytest.approx((2.0, 1.0, 1.0), rel=1e-6)
    assert (found.fingerprint.unit, found.fingerprint.median_shape) == ("um", SHAPE)


def test_a_spacing_far_off_the_others_is_an_error(tmp_path, save_nifti):
    for n, factor in enumerate([1, 1.5, 0.8, 1000]):
        save_nifti(tmp_path / f"{n}.nii", voxels(n), (2.0 * factor, factor, factor))
    found = scan(tmp_path)
    assert told(found.problems) == [("error", "3")]
    assert "(2000, 1000, 1000) mm" in found.problems[0].found


def test_the_same_voxels_in_another_format_are_a_duplicate(tmp_path, save_tiff):
    array = np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)
    save_tiff(tmp_path / "a.tif", array)
    save_tiff(tmp_path / "b.tif", array.astype(np.float32))
    save_tiff(tmp_path / "c.tif", array + 1)
    (problem,) = scan(tmp_path).errors
    assert (problem.case, problem.found) == ("b", "the same voxels as 'a'")


def test_a_nifti_copy_of_a_tiff_is_a_duplicate(tmp_path, save_nifti, save_tiff):
    save_tiff(tmp_path / "a.tif", voxels(), (2.0, 1.0, 1.0), "um")
    save_nifti(tmp_path / "b.nii.gz", voxels(), (2.0, 1.0, 1.0), "micron")
    assert "the same voxels as 'a'" in [p.found for p in scan(tmp_path).errors]


def test_a_case_of_other_channels_is_an_error(tmp_path, save_tiff):
    for n, channels in enumerate([2, 2, 3]):
        save_tiff(tmp_path / f"{n}.tif", voxels(n, (channels, *SHAPE)))
    (problem,) = scan(tmp_path).errors
    assert problem.case == "2"
    assert problem.found.startswith("3 channels")


def test_oriented_and_unoriented_files_mix_only_where_nothing_was_turned(tmp_path, save_nifti, save_tiff):
    save_tiff(tmp_path / "b.tif", voxels(1), (2.0, 1.0, 1.0), "um")
    save_nifti(tmp_path / "a.nii", voxels(0), (2.0, 1.0, 1.0), "micron")
    found = scan(tmp_path)
    assert told(found.problems) == [("warning", "b")]
    assert (found.fingerprint.orientation, found.fingerprint.spacing) == ("stored", (2.0, 1.0, 1.0))
    flipped = nib.Nifti1Image(voxels(2).T, np.diag([-0.001, 0.001, 0.002, 1.0]))
    nib.save(flipped, tmp_path / "c.nii")
    (problem,) = scan(tmp_path).errors
    assert (problem.case, problem.found) == ("c", "axes that were turned to RAS")


def labelled(folder: Path, save_tiff, *labels: np.ndarray) -> Path:
    for n, label in enumerate(labels):
        save_tiff(folder / "images" / f"{n}.tif", voxels(n))
        save_tiff(folder / "labels" / f"{n}.tif", label)
    return folder


def test_one_empty_label_is_a_warning_and_all_empty_an_error(tmp_path, save_tiff):
    one = scan(labelled(tmp_path / "one", save_tiff, mask(1), mask()))
    assert told(one.problems) == [("warning", "1")]
    every = scan(labelled(tmp_path / "every", save_tiff, mask(), mask()))
    assert [(p.severity, p.found) for p in every.problems] == [("error", "all 2 labels are empty")]


def test_a_value_in_one_label_of_five_is_a_warning(tmp_path, save_tiff):
    found = scan(labelled(tmp_path, save_tiff, mask(1), mask(1), mask(1, 7), mask(1), mask(1)))
    assert told(found.problems) == [("warning", "2"), ("corrected", "")]
    assert found.problems[0].found == "the label value 7 (1 voxels) in no other case"


def test_a_value_in_one_label_of_four_is_not_judged(tmp_path, save_tiff):
    assert scan(labelled(tmp_path, save_tiff, mask(1), mask(1), mask(1, 7), mask(1))).warnings == ()


def test_one_number_per_object_is_an_error_unless_labels_are_instances(tmp_path, save_tiff):
    root = labelled(tmp_path, save_tiff, mask(*range(1, 100)), mask(1))
    assert ["99" in p.found or "100" in p.found for p in scan(root).errors] == [True]
    assert scan(root, options=ScanOptions(label_kind="instances")).problems == ()


def test_progress_counts_every_case(tmp_path, nifti_folder):
    calls: list[tuple[int, int]] = []
    scan(nifti_folder(tmp_path, 3), progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("counts", [(3, 5, 8), (2, 5)])
def test_few_numbered_objects_are_taken_for_objects_too(tmp_path, save_nifti, counts):
    for case, count in enumerate(counts):
        label = np.zeros((4, 4, 4), np.uint8)
        label.ravel()[1 : count + 1] = range(1, count + 1)
        save_nifti(tmp_path / f"images/{case}.nii.gz", np.random.default_rng(case).normal(size=(4, 4, 4)))
        save_nifti(tmp_path / f"labels/{case}.nii.gz", label)
    assert ["as if objects were numbered" in e.found for e in scan(tmp_path).errors] == [True]
    assert scan(tmp_path, options=ScanOptions(label_kind="classes")).errors == ()


def oriented(path: Path, array: np.ndarray, *flips: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.T, np.diag([*(f or 1 for f in flips), 1.0])), path)
    return path


def test_a_label_without_orientation_does_not_belong_to_a_turned_image(tmp_path, save_tiff):
    """It was taken as it stood, mirrored against the image."""
    oriented(tmp_path / "images/a.nii", voxels(), -1, -1, 2)
    save_tiff(tmp_path / "labels/a.tif", mask(1))
    (problem,) = scan(tmp_path).errors
    assert problem.found.startswith("orientation unknown, but turned to RAS")
    found = scan(tmp_path, options=ScanOptions(accept_geometry=True))
    assert told(found.problems) == [("accepted", "a")]
    assert (
        open_label(found.cases[0].label, open_image(found.cases[0]), found.options).array[0, 0, -1, -1] == 1
    )


def test_a_region_lies_where_its_image_does(tmp_path, nifti_folder):
    root = nifti_folder(tmp_path / "data", 1)
    oriented(tmp_path / "regions/c00.nii.gz", np.ones((12, 16, 14), np.uint8), 1, -1, 2)
    (problem,) = scan(root, regions=tmp_path / "regions").errors
    assert (Path(problem.where).parent.name, problem.found.split(" ")[0]) == ("regions", "origin")


@pytest.mark.parametrize(("values", "classes"), [((1, 2, 3), 3), ((0, 1, 2, 3), 3), ((0, 1, 5, 9), 3)])
def test_more_classes_than_expected_are_an_error_whether_0_occurs_or_not(
    tmp_path, save_tiff, values, classes
):
    label = np.resize(np.array(values, np.uint8), SHAPE)
    errors = scan(labelled(tmp_path, save_tiff, label), options=ScanOptions(classes=classes)).errors
    assert errors
    assert all("classes are expected" in e.rule for e in errors)


def test_two_classes_expected_and_more_found_is_background_and_the_rest(tmp_path, save_tiff):
    label = mask(1, 2, 3)
    label[label == 0] = 9
    found = scan(labelled(tmp_path, save_tiff, label), options=ScanOptions(classes=2))
    assert told(found.problems) == [("corrected", "")]
    assert (found.label_kind, found.fingerprint.background) == ("instances", 9)
    refused = scan(tmp_path, options=ScanOptions(classes=2, fix=False))
    assert told(refused.errors) == [("error", "")]


def test_masks_of_0_and_255_among_those_of_0_and_1_mean_the_same(tmp_path, save_tiff):
    found = scan(labelled(tmp_path, save_tiff, mask(1), mask(255)))
    assert told(found.problems) == [("corrected", "1")]
    assert (found.fingerprint.label_values, found.fingerprint.aliases) == ((0, 1), {255: 1})
    assert told(scan(tmp_path, options=ScanOptions(fix=False)).errors) == [("error", "1")]


def test_overlapping_labels_have_the_channels_expected(tmp_path, save_tiff):
    stack = np.stack([mask(1), mask(0, 1)])
    root = labelled(tmp_path, save_tiff, stack)
    assert scan(root, options=ScanOptions(label_kind="overlapping", classes=3)).problems == ()
    (problem,) = scan(root, options=ScanOptions(label_kind="overlapping", classes=7)).errors
    assert problem.found == "a label of 2 channels"


def test_channels_of_other_names_are_a_warning_and_of_another_order_an_error(tmp_path, save_nifti):
    facts = scan(save_nifti(tmp_path / "a.nii", voxels())).fingerprint.cases[0]
    twice = replace(facts, intensities=facts.intensities * 2)
    for names, severity in ((("DAPI", "GFP"), "warning"), (("blue", "red"), "error"), (("red",), "error")):
        cases = [replace(twice, id=str(n), content_hash=str(n), channels=("red", "blue")) for n in range(2)]
        odd = replace(twice, id="odd", content_hash="odd", channels=names)
        assert told(disagreements([*cases, odd])) == [(severity, "odd")]


def test_a_value_that_is_not_finite_stands_for_nothing(tmp_path, save_nifti):
    array = voxels().astype(np.float32)
    array[0, 0, 0] = np.nan
    save_nifti(tmp_path / "a.nii", array)
    found = scan(tmp_path, options=ScanOptions(replace_nonfinite=-5.0))
    assert told(found.problems) == [("corrected", "a")]
    assert found.fingerprint.cases[0].intensities[0].lowest == -5.0
    (problem,) = scan(tmp_path, options=ScanOptions(replace_nonfinite=1e39)).errors
    assert problem.where == "--replace-nonfinite"


def test_a_table_of_spacings_stands_above_image_and_label(tmp_path, nifti_folder):
    table = {"c00": ((3.0, 2.0, 2.0), "um")}
    found = scan(nifti_folder(tmp_path, 1), options=ScanOptions(spacings=table))
    assert found.problems == ()
    assert (found.fingerprint.spacing, found.fingerprint.unit) == table["c00"]


def test_objects_of_huge_numbers_are_judged_at_once(tmp_path, save_nifti):
    """Their numbers were once counted up to, in memory."""
    for case in range(2):
        save_nifti(tmp_path / f"images/{case}.nii", voxels(case))
        label = mask(1).astype(np.int64) * (2**40 + case)
        (tmp_path / "labels").mkdir(exist_ok=True)
        nib.save(
            nib.Nifti1Image(label.T, np.diag((1, 1, 2, 1.0)), dtype=np.int64), tmp_path / f"labels/{case}.nii"
        )
    (corrected,) = scan(tmp_path).problems
    assert corrected.found == f"the values 0, {2**40}, {2**40 + 1}"


def test_a_value_for_unannotated_that_occurs_nowhere_is_told(tmp_path, save_tiff):
    root = labelled(tmp_path, save_tiff, mask(1, 9), mask(1))
    assert scan(root, options=ScanOptions(ignore=9)).warnings == ()
    (warning,) = scan(root, options=ScanOptions(ignore=8, label_kind="instances")).warnings
    assert warning.found == "no voxel of the value 8, which stands for unannotated"


def test_advice_on_a_label_names_the_options_of_labels(tmp_path, save_nifti):
    for kind in ("images", "labels"):
        save_nifti(tmp_path / kind / "a.nii", np.ones((2, *SHAPE), np.uint8))
    image, label = scan(tmp_path).errors
    assert "--axes XYZC" in image.remedy
    assert "--label-axes XYZC" in label.remedy
    assert "--axes" not in label.remedy


def test_slices_that_a_file_calls_channels_are_a_warning(tmp_path, save_tiff):
    save_tiff(tmp_path / "a.tif", voxels(0, (9, 1, 6, 5)))
    (warning,) = scan(tmp_path).problems
    assert (warning.severity, warning.found) == ("warning", "a single slice of 9 channels")
    assert scan(tmp_path, options=ScanOptions(image=ReadChoices(axes="ZYX"))).fingerprint.median_shape == (
        9,
        6,
        5,
    )
