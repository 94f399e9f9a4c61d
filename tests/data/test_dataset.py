"""Images find their labels by name; whatever fits no name is told."""

from pathlib import Path

import pytest
from fewvox.data.dataset import DatasetError, find_cases, find_images, find_labels


@pytest.fixture
def lay(tmp_path):
    """Makes empty files below a folder and gives it (names decide, no voxel is read)."""

    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def ids(cases) -> list[str]:
    return [case.id for case in cases]


def test_labels_are_paired_by_name_whatever_the_suffix(lay):
    root = lay("images/b.tif", "images/a.nii.gz", "images/c.nii", "labels/a.nii", "labels/b.ome.tif")
    cases, problems = find_cases(root)
    labels = [case.label.name if case.label else None for case in cases]
    assert (ids(cases), labels, problems) == (["a", "b", "c"], ["a.nii", "b.ome.tif", None], [])


def test_ids_of_nested_folders_have_forward_slashes(lay):
    cases, problems = find_cases(lay("images/s1/t0/a.nii.gz", "images/s2/a.nii.gz", "labels/s2/a.nii.gz"))
    assert (ids(cases), problems) == (["s1/t0/a", "s2/a"], [])
    assert [case.label is not None for case in cases] == [False, True]


def test_without_a_table_every_case_is_its_own_subject(lay):
    cases, _ = find_cases(lay("a.tif", "b.tif"))
    assert [case.subject for case in cases] == ["a", "b"]


def test_hidden_files_and_folders_are_not_seen(lay):
    cases, _ = find_cases(
        lay("a.tif", "._a.tif", ".DS_Store", ".cache/b.tif", "s/.hidden/c.tif", "notes.txt")
    )
    assert ids(cases) == ["a"]


def test_a_hidden_folder_above_the_data_hides_nothing(lay):
    cases, _ = find_cases(lay(".data/a.tif") / ".data")
    assert ids(cases) == ["a"]


def test_a_label_without_image_is_an_error_with_a_hint_at_the_near_miss(lay):
    cases, problems = find_cases(lay("images/Brain_01.nii.gz", "labels/brain-01.nii.gz"))
    (problem,) = problems
    assert problem.severity == "error"
    assert "did you mean 'Brain_01'?" in problem.found
    assert cases[0].label is None


def test_no_hint_points_at_an_image_that_has_its_label(lay):
    _, problems = find_cases(lay("images/scan01.tif", "labels/scan01.tif", "labels/scan02.tif"))
    assert [p.found for p in problems] == ["no image is called 'scan02'"]


@pytest.mark.parametrize("second", ["a.tif", "A.tif"])
def test_two_volumes_of_one_name_are_both_told(lay, second):
    _, problems = find_cases(lay("a.nii.gz", second, "b.tif"))
    assert [p.severity for p in problems] == ["error", "error"]
    assert {Path(p.where).name for p in problems} == {"a.nii.gz", second}


def test_two_labels_of_one_name_are_refused(lay):
    with pytest.raises(DatasetError, match="another volume"):
        find_cases(lay("images/a.tif", "labels/a.tif", "labels/a.nii"))


def test_a_glob_takes_what_it_matches(lay):
    root = lay("s1/raw/a.tif", "s1/raw/a.txt", "s1/mask/a.tif", "s2/raw/a.tif", "s2/raw/b.nii")
    assert ids(find_cases(str(root / "*" / "raw" / "*.tif"))[0]) == ["s1/raw/a", "s2/raw/a"]
    assert ids(find_cases(str(root / "**" / "*.nii"))[0]) == ["b"]


def test_one_file_is_a_data_set_of_one(lay):
    cases, problems = find_cases(lay("a.nii.gz", "b.nii.gz") / "a.nii.gz")
    assert (ids(cases), problems) == (["a"], [])


def test_labels_may_lie_elsewhere(lay):
    root = lay("raw/a.tif", "raw/b.tif", "masks/b.nii.gz")
    cases, problems = find_cases(root / "raw", root / "masks")
    assert [case.label for case in cases] == [None, root / "masks" / "b.nii.gz"]
    assert problems == []


def test_a_folder_of_labels_given_by_name_replaces_the_one_beside_the_images(lay):
    root = lay("images/a.tif", "labels/a.tif", "second_rater/a.nii")
    cases, _ = find_cases(root, root / "second_rater")
    assert cases[0].label == root / "second_rater" / "a.nii"


def test_volumes_beside_images_and_labels_are_warned_about(lay):
    _, problems = find_cases(lay("images/a.tif", "labels/a.tif", "more/b.tif", "c.tif"))
    (problem,) = problems
    assert problem.severity == "warning"
    assert problem.found.endswith("not used: 2")


def test_a_decathlon_layout_says_what_to_give_instead(lay):
    with pytest.raises(DatasetError, match="imagesTr --labels"):
        find_cases(lay("imagesTr/a.nii.gz", "labelsTr/a.nii.gz"))


@pytest.mark.parametrize("name", [".", "absent", "absent/*.tif"])
def test_a_data_set_without_volumes_is_refused(lay, name):
    with pytest.raises(DatasetError, match="no volume found"):
        find_cases(f"{lay('notes.txt')}/{name}")


def test_a_missing_folder_of_labels_is_refused(lay):
    root = lay("a.tif")
    with pytest.raises(DatasetError, match="no such folder"):
        find_cases(root, root / "labels")


def subjects(root: Path, text: str, encoding="utf-8") -> Path:
    path = root / "subjects.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_subjects_come_from_the_table(lay, encoding):
    root = lay("a.nii.gz", "s/b.nii.gz", "c.nii.gz")
    table = subjects(root, "case,age,subject\na,7,müller\ns/b.nii.gz,8,müller\nc,9,z\nelse,1,z\n", encoding)
    cases, _ = find_cases(root, subjects=table)
    assert {case.id: case.subject for case in cases} == {"a": "müller", "c": "z", "s/b": "müller"}


@pytest.mark.parametrize("rows", ["a,x\n", "a,x\nb,\n", "a,x\nb\n"])
def test_a_case_without_subject_is_refused_by_its_name(lay, rows):
    root = lay("a.tif", "b.tif")
    with pytest.raises(DatasetError, match="1 cases have no subject: b"):
        find_cases(root, subjects=subjects(root, "case,subject\n" + rows))


@pytest.mark.parametrize("text", ["", "case\n", "volume,subject\na,x\n"])
def test_a_table_without_its_columns_is_refused(lay, text):
    root = lay("a.tif")
    with pytest.raises(DatasetError, match="columns"):
        find_cases(root, subjects=subjects(root, text))


def test_a_missing_table_is_refused(lay):
    root = lay("a.tif")
    with pytest.raises(DatasetError, match="not readable"):
        find_cases(root, subjects=root / "subjects.csv")


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
    cases, problems = find_cases(root, root / "masks")
    assert (ids(cases), problems) == (["a"], [])
    assert cases[0].label == root / "masks" / "a.tif"


def test_a_case_of_two_subjects_is_refused_and_spaces_do_not_make_another_subject(lay, tmp_path):
    root, table = lay("images/a.tif", "images/b.tif"), tmp_path / "subjects.csv"
    table.write_text("case,subject\na,x \nb, x\na,x\n")
    cases, _ = find_cases(root, subjects=table)
    assert [case.subject for case in cases] == ["x", "x"]
    table.write_text("case,subject\na,x\na,y\nb,y\n")
    with pytest.raises(DatasetError, match="'a' belongs to 'x' and to 'y'"):
        find_cases(root, subjects=table)


@pytest.mark.parametrize("folder", ["labels", "Labels", "masks", "GT"])
def test_a_folder_of_labels_among_the_images_is_refused(lay, folder):
    """Its label maps were once taken for unannotated images."""
    with pytest.raises(DatasetError, match="Give it with --labels"):
        find_cases(lay("raw/a.tif", f"{folder}/a.tif"))


def test_files_that_are_not_read_are_told(lay):
    _, problems = find_cases(
        lay("images/a.tif", "images/b.czi", "images/c.czi", "images/notes.txt", "labels/d.png")
    )
    assert [p.severity for p in problems] == ["warning", "warning"]
    assert [p.found for p in problems] == ["not read: 2 x .czi", "not read: 1 x .png"]


def test_a_table_with_semicolons_is_read(lay, tmp_path):
    (tmp_path / "s.csv").write_text("case;subject\na;x\n")
    cases, _ = find_cases(lay("images/a.tif"), subjects=tmp_path / "s.csv")
    assert cases[0].subject == "x"
