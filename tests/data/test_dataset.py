"""Images find their labels by name; whatever fits no name is told."""

from pathlib import Path

import pytest
from fewvox.data.dataset import DatasetError, find_cases, find_images, find_labels


def found(*args, **kwargs):
    dataset = find_cases(*args, **kwargs)
    return list(dataset.cases), list(dataset.problems)


def ids(cases) -> list[str]:
    return [case.id for case in cases]


def test_labels_are_paired_by_name_whatever_the_suffix(lay):
    root = lay("images/b.tif", "images/a.nii.gz", "images/c.nii", "labels/a.nii", "labels/b.ome.tif")
    cases, problems = found(root)
    labels = [case.label.name if case.label else None for case in cases]
    assert (ids(cases), labels, problems) == (["a", "b", "c"], ["a.nii", "b.ome.tif", None], [])


def test_ids_of_nested_folders_have_forward_slashes(lay):
    cases, problems = found(lay("images/s1/t0/a.nii.gz", "images/s2/a.nii.gz", "labels/s2/a.nii.gz"))
    assert (ids(cases), problems) == (["s1/t0/a", "s2/a"], [])
    assert [case.label is not None for case in cases] == [False, True]


def test_without_a_table_every_case_is_its_own_subject(lay):
    cases, _ = found(lay("a.tif", "b.tif"))
    assert [case.subject for case in cases] == ["a", "b"]


def test_hidden_files_and_folders_are_not_seen(lay):
    cases, _ = found(lay("a.tif", "._a.tif", ".DS_Store", ".cache/b.tif", "s/.hidden/c.tif", "notes.txt"))
    assert ids(cases) == ["a"]


def test_a_hidden_folder_above_the_data_hides_nothing(lay):
    cases, _ = found(lay(".data/a.tif") / ".data")
    assert ids(cases) == ["a"]


def test_a_label_without_image_is_an_error_with_a_hint_at_the_near_miss(lay):
    cases, problems = found(lay("images/Brain_01.nii.gz", "labels/brain-01.nii.gz"))
    (problem,) = problems
    assert problem.severity == "error"
    assert "did you mean 'Brain_01'?" in problem.found
    assert cases[0].label is None


def test_no_hint_points_at_an_image_that_has_its_label(lay):
    _, problems = found(lay("images/scan01.tif", "labels/scan01.tif", "labels/scan02.tif"))
    assert [p.found for p in problems] == ["no image is called 'scan02'"]


@pytest.mark.parametrize("second", ["a.tif", "A.tif"])
def test_two_volumes_of_one_name_are_both_told(lay, second):
    _, problems = found(lay("a.nii.gz", second, "b.tif"))
    assert [p.severity for p in problems] == ["error", "error"]
    assert {Path(p.where).name for p in problems} == {"a.nii.gz", second}


def test_two_labels_of_one_name_are_refused(lay):
    with pytest.raises(DatasetError, match="another volume"):
        find_cases(lay("images/a.tif", "labels/a.tif", "labels/a.nii"))


def test_a_glob_takes_what_it_matches(lay):
    root = lay("s1/raw/a.tif", "s1/raw/a.txt", "s1/mask/a.tif", "s2/raw/a.tif", "s2/raw/b.nii")
    assert ids(found(str(root / "*" / "raw" / "*.tif"))[0]) == ["s1/raw/a", "s2/raw/a"]
    assert ids(found(str(root / "**" / "*.nii"))[0]) == ["b"]


def test_one_file_is_a_data_set_of_one(lay):
    cases, problems = found(lay("a.nii.gz", "b.nii.gz") / "a.nii.gz")
    assert (ids(cases), problems) == (["a"], [])


def test_labels_may_lie_elsewhere(lay):
    root = lay("raw/a.tif", "raw/b.tif", "masks/b.nii.gz")
    cases, problems = found(root / "raw", root / "masks")
    assert [case.label for case in cases] == [None, root / "masks" / "b.nii.gz"]
    assert problems == []


def test_a_folder_of_labels_given_by_name_replaces_the_one_beside_the_images(lay):
    root = lay("images/a.tif", "labels/a.tif", "second_rater/a.nii")
    cases, _ = found(root, root / "second_rater")
    assert cases[0].label == root / "second_rater" / "a.nii"


def test_volumes_beside_images_and_labels_are_warned_about(lay):
    _, problems = found(lay("images/a.tif", "labels/a.tif", "more/b.tif", "c.tif"))
    (problem,) = problems
    assert problem.severity == "warning"
    assert problem.found.endswith("not used: 2")


@pytest.mark.parametrize("name", [".", "absent", "absent/*.tif"])
def test_a_data_set_without_volumes_is_refused(lay, name):
    with pytest.raises(DatasetError, match=r"no (volume found|such file or folder)"):
        find_cases(f"{lay('notes.txt')}/{name}")


def test_a_missing_folder_of_labels_is_refused(lay):
    root = lay("a.tif")
    with pytest.raises(DatasetError, match="labels: no such file or folder"):
        find_cases(root, root / "labels")


def test_images_alone_are_found_whatever_the_labels(lay):
    root = lay("images/a.tif", "labels/nobody.tif")
    assert ids(find_images(root)) == ["a"]
    with pytest.raises(DatasetError, match="another volume"):
        find_images(lay("images/a.nii"))


def test_labels_alone_are_found_in_a_folder_of_them_or_in_a_data_set(lay):
    root = lay("images/a.tif", "labels/a.tif", "labels/s/b.nii.gz")
    assert set(find_labels(root)) == set(find_labels(root / "labels")) == {"a", "s/b"}


def test_labels_below_the_images_are_no_images(lay):
    root = lay("a.tif", "masks/a.tif")
    cases, problems = found(root, root / "masks")
    assert (ids(cases), problems) == (["a"], [])
    assert cases[0].label == root / "masks" / "a.tif"


@pytest.mark.parametrize("folder", ["labels", "Labels", "masks", "GT"])
def test_a_folder_of_labels_among_the_images_is_refused(lay, folder):
    """Its label maps were once taken for unannotated images."""
    with pytest.raises(DatasetError, match="Give it with --labels"):
        find_cases(lay("raw/a.tif", f"{folder}/a.tif"))


def test_files_that_are_not_read_are_told(lay):
    _, problems = found(
        lay("images/a.tif", "images/b.czi", "images/c.czi", "images/notes.txt", "labels/d.png")
    )
    assert [p.severity for p in problems] == ["warning", "warning"]
    assert [p.found for p in problems] == ["not read: 2 x .czi", "not read: 1 x .png"]


def test_subjects_are_those_of_a_pattern_and_can_be_counted(lay):
    dataset = find_cases(lay("m1_a.tif", "m1_b.tif", "m2_a.tif"), subjects="^(m\\d)_")
    assert [case.subject for case in dataset.cases] == ["m1", "m1", "m2"]
    assert dataset.subjects == ("m1", "m2")


def test_labels_inside_are_in_the_file_of_each_image(lay):
    root = lay("images/a.tif", "images/b.tif")
    dataset = find_cases(root, labels_inside=True)
    assert [case.label for case in dataset.cases] == [case.image for case in dataset.cases]
    with pytest.raises(DatasetError, match="not both"):
        find_cases(lay("labels/a.tif"), labels_inside=True)


def test_a_single_file_or_glob_tells_nothing_of_what_lies_beside_it(lay):
    root = lay("a.tif", "b.czi")
    assert find_cases(root / "a.tif").problems == find_cases(f"{root}/*.tif").problems == ()
