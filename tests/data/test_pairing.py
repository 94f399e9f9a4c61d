"""Masks find their images by name: exactly, or by an ending that all of them have."""

import pytest
from fewvox.data.dataset import find_cases, find_labels
from fewvox.data.errors import DatasetError
from fewvox.data.pairing import pair
from hypothesis import given
from hypothesis import strategies as st

MARKS = ["_seg", "_label", "_labels", "_mask", "_masks", "_gt", "-label", ".seg", "_Segmentation"]


@given(st.sets(st.text("ab1", min_size=1, max_size=4), min_size=1), st.sampled_from(["", *MARKS]), st.data())
def test_i21_pairs_are_made_by_name_whatever_the_order(stems, mark, data):
    images = data.draw(st.permutations(sorted(stems)))
    masks = data.draw(st.permutations([stem + mark for stem in stems]))
    assert pair(images, masks).image_of == {stem + mark: stem for stem in stems}


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_that_all_labels_have_is_accepted_with_a_warning(lay, mark):
    root = lay("images/a.nii.gz", "images/s/b.nii.gz", f"labels/a{mark}.nii", f"labels/s/b{mark}.nii")
    dataset = find_cases(root)
    assert [case.label.name for case in dataset.cases] == [f"a{mark}.nii", f"b{mark}.nii"]
    (problem,) = dataset.problems
    assert problem.severity == "warning"
    assert f"2 pairs of image and label found without '{mark}' of the labels" in problem.found


def test_marks_that_not_all_labels_have_are_errors(lay):
    dataset = find_cases(lay("images/a.tif", "images/b.tif", "labels/a.tif", "labels/b_seg.tif"))
    (problem,) = dataset.problems
    assert (problem.severity, problem.case) == ("error", "b_seg")
    assert "did you mean 'b'?" in problem.found


def test_several_marks_are_none(lay):
    dataset = find_cases(lay("images/a.tif", "images/b.tif", "labels/a_seg.tif", "labels/b_gt.tif"))
    assert [(p.severity, p.case) for p in dataset.problems] == [("error", "a_seg"), ("error", "b_gt")]


def test_a_marked_label_without_image_is_an_error(lay):
    dataset = find_cases(lay("images/a.tif", "labels/a_seg.tif", "labels/b_seg.tif"))
    assert [(p.severity, p.case) for p in dataset.problems] == [("warning", ""), ("error", "b_seg")]


@pytest.mark.parametrize(
    ("image", "label"), [("a_0000", "a"), ("a_img", "a"), ("a_img", "a_seg"), ("a_raw", "a_gt")]
)
def test_marks_of_the_images_are_known_too_and_stay_in_the_id(lay, image, label):
    dataset = find_cases(lay(f"images/{image}.tif", f"labels/{label}.tif"))
    (case,) = dataset.cases
    assert case.id == image
    assert case.label is not None
    assert f"'{image[1:]}' of the images" in dataset.problems[0].found


def test_i21_tokens_in_the_names_of_folders_do_not_matter(lay):
    root = lay("x_seg/images_0000/p_mask/a.tif", "x_seg/images_0000/p/a.tif", "x_seg/y_gt/p_mask/a.tif")
    dataset = find_cases(root / "x_seg" / "images_0000", root / "x_seg" / "y_gt")
    assert [(case.id, case.label is not None) for case in dataset.cases] == [
        ("p/a", False),
        ("p_mask/a", True),
    ]
    assert dataset.problems == ()


@pytest.mark.parametrize(
    "names",
    [
        ("a.nii.gz", "a_seg.nii.gz"),
        ("s/a.tif", "s/a-mask.tif"),
        ("a_t1.nii.gz", "a_t2.nii.gz", "a_seg.nii.gz"),
        ("a_img.tif", "a_label.tif"),
    ],
)
def test_masks_among_the_images_are_refused(lay, names):
    with pytest.raises(DatasetError, match=r"1 masks among the images, by their names: .*Move them"):
        find_cases(lay(*names))


def test_a_name_that_only_looks_like_a_masks_is_an_image(lay):
    cases = find_cases(lay("a.tif", "a/seg.tif", "b_seg.tif", "s_seg/c.tif", "s/c.tif")).cases
    assert [case.id for case in cases] == ["a", "a/seg", "b_seg", "s/c", "s_seg/c"]


@pytest.mark.parametrize("pattern", ["*_seg.tif", "**/*_seg.tif"])
def test_masks_among_the_images_can_be_named_apart_by_a_glob(lay, pattern):
    root = lay("a.tif", "a_seg.tif", "b.tif", "s/c.tif")
    cases = find_cases(root, f"{root}/{pattern}").cases
    assert [(c.id, c.label and c.label.name) for c in cases] == [
        ("a", "a_seg.tif"),
        ("b", None),
        ("s/c", None),
    ]


def test_labels_of_one_folder_below_are_paired_from_the_root_of_the_images(lay):
    root = lay("s/a.tif", "s/a_seg.tif", "b.tif")
    cases = find_cases(root, f"{root}/s/*_seg.tif").cases
    assert [(c.id, c.label is not None) for c in cases] == [("b", False), ("s/a", True)]


def test_one_image_and_one_label_are_a_pair(lay):
    root = lay("a.tif", "a_seg.tif", "b_seg.tif")
    (case,) = find_cases(root / "a.tif", root / "a_seg.tif").cases
    assert case.label == root / "a_seg.tif"


def test_the_folder_of_the_images_given_as_that_of_the_labels_is_refused(lay):
    root = lay("a.tif", "a_seg.tif")
    with pytest.raises(DatasetError, match="every volume of it is among the labels"):
        find_cases(root, root)


def test_regions_are_of_labelled_images(lay):
    names = ("images/a.tif", "images/b.tif", "images/c.tif", "labels/a.tif", "labels/b.tif")
    root = lay(*names, "regions/a_mask.tif", "regions/c_mask.tif")
    dataset = find_cases(root, regions=root / "regions")
    assert [c.region and c.region.name for c in dataset.cases] == ["a_mask.tif", None, None]
    assert [(p.severity, p.case) for p in dataset.problems] == [("error", "c_mask"), ("warning", "b")]


def test_regions_below_the_images_are_no_images(lay):
    root = lay("raw/a.tif", "raw/seen/a.tif", "manual/a.tif")
    (case,) = find_cases(root / "raw", root / "manual", regions=root / "raw" / "seen").cases
    assert case.region == root / "raw" / "seen" / "a.tif"


def test_labels_are_found_under_the_ids_that_they_fit(lay):
    root = lay("a_seg.tif", "b_seg.tif")
    assert set(find_labels(root)) == {"a_seg", "b_seg"}
    assert set(find_labels(root, ids=["a"])) == {"a", "b"}
    assert set(find_labels(root, ids=["a_seg"])) == {"a_seg", "b_seg"}


def test_an_accent_may_be_a_letter_of_its_own(lay):
    """As macOS writes names; the two look alike."""
    composed, parted = "gr\u00f6\u00dfe", "gro\u0308\u00dfe"
    (case,) = find_cases(lay(f"images/{composed}.tif", f"labels/{parted}.tif")).cases
    assert (case.id, case.label.name) == (composed, f"{parted}.tif")
