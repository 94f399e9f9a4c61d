"""Scores of folders: what counts, what does not, and what cannot be told."""

import json

import nibabel as nib
import numpy as np
import pytest
from fewvox.data.dataset import DatasetError
from fewvox.data.errors import UserError
from fewvox.data.labels import LabelTable
from fewvox.data.settings import plain
from fewvox.seg.batch_predict import MANIFEST, Manifest, PredictedCase
from fewvox.seg.evaluate import evaluate
from fewvox.seg.instances import InstancesConfig
from fewvox.seg.postprocess import PostprocessConfig, labels_of_masks

SHAPE = (6, 5, 4)


def with_boxes(*boxes):
    """A label map with the value of each box (value, first z, last z + 1)."""
    array = np.zeros(SHAPE, np.uint8)
    for value, first, last in boxes:
        array[first:last, 1:4, 1:3] = value
    return array


@pytest.fixture
def folders(tmp_path, save_nifti):
    """Writes masks and labels of the same names; gives both folders."""

    def write(**cases):
        for case, (mask, label) in cases.items():
            for folder, array in (("masks", mask), ("labels", label)):
                if array is not None:
                    save_nifti(tmp_path / folder / f"{case}.nii.gz", array)
        return tmp_path / "masks", tmp_path / "labels"

    return write


def write_manifest(folder, roles, table=LabelTable(values=(0, 1, 2))):  # noqa: B008
    cases = {
        case: PredictedCase(file=f"{case}.nii.gz", image_hash="0", role=role) for case, role in roles.items()
    }
    manifest = Manifest(model_hashes=("0",), labels=table, cases=cases)
    (folder / MANIFEST).write_text(json.dumps(plain(manifest)))


def means(found, metric="dice"):
    return {m.value: (m.mean, m.cases, m.undefined) for m in found.means if m.metric == metric}


def test_training_and_validation_cases_are_scored_but_never_part_of_a_mean(folders):
    right, wrong = with_boxes((1, 1, 4)), with_boxes((1, 4, 6))
    masks, labels = folders(seen=(right, right), checked=(right, right), new=(wrong, right))
    write_manifest(
        masks, {"seen": "training", "checked": "validation", "new": "unseen"}, LabelTable(values=(0, 1))
    )
    found = evaluate(masks, labels)
    assert found.excluded == ("checked", "seen")
    assert means(found) == {1: (0, 1, 0)}
    assert found.mean() == 0
    assert {s.case: s.dice for s in found.scores} == {"seen": 1, "checked": 1, "new": 0}


def test_labels_may_all_be_marked_as_such(tmp_path, save_nifti):
    save_nifti(tmp_path / "masks/a.nii.gz", with_boxes((1, 1, 4)))
    for case in "ab":
        save_nifti(tmp_path / f"labels/{case}_seg.nii.gz", with_boxes((1, 1, 4)))
    found = evaluate(tmp_path / "masks", tmp_path / "labels")
    assert (found.mean(), found.without_prediction) == (1, ("b",))


def test_scores_without_meaning_are_counted_and_left_out_of_the_mean(folders):
    both = with_boxes((1, 0, 2), (2, 3, 5))
    masks, labels = folders(a=(both, both), b=(with_boxes((1, 0, 2)), with_boxes((1, 0, 2))))
    write_manifest(masks, {"a": "unseen", "b": "unseen"})
    found = evaluate(masks, labels)
    assert means(found) == {1: (1, 2, 0), 2: (1, 1, 1)}
    assert means(found, "hd95") == {1: (0, 2, 0), 2: (0, 1, 1)}
    assert found.mean() == 1


def test_a_class_that_no_case_has_is_undefined_and_not_zero(folders):
    one = with_boxes((1, 0, 2))
    masks, labels = folders(a=(one, one))
    write_manifest(masks, {"a": "unseen"})
    found = evaluate(masks, labels)
    assert means(found)[2] == (None, 0, 1)
    assert found.mean() == 1


def test_a_class_that_is_missed_costs_dice_and_leaves_hd95_undefined(folders):
    masks, labels = folders(a=(with_boxes((1, 0, 2)), with_boxes((1, 0, 2), (2, 3, 5))))
    found = evaluate(masks, labels)
    assert means(found)[2] == (0, 1, 0)
    assert means(found, "hd95")[2] == (None, 0, 1)
    assert found.mean() == 0.5


def test_a_mask_of_another_shape_is_a_problem_and_stops_nothing(folders):
    one = with_boxes((1, 0, 2))
    masks, labels = folders(a=(np.zeros((6, 5, 3), np.uint8), one), b=(one, one))
    found = evaluate(masks, labels)
    assert [(p.case, p.severity) for p in found.problems] == [("a", "error")]
    assert "shape (6, 5, 3), but (6, 5, 4)" in found.problems[0].found
    assert means(found) == {1: (1, 1, 0)}


def test_an_unreadable_mask_is_a_problem_and_stops_nothing(folders):
    one = with_boxes((1, 0, 2))
    masks, labels = folders(a=(one, one), b=(one, one))
    (masks / "a.nii.gz").write_bytes(b"")
    found = evaluate(masks, labels)
    assert [p.case for p in found.problems] == ["a"]
    assert found.mean() == 1


def test_masks_of_another_program_are_scored_by_the_values_of_the_labels(folders):
    masks, labels = folders(a=(with_boxes((5, 0, 3)), with_boxes((5, 0, 2), (9, 4, 6))))
    found = evaluate(masks, labels)
    assert {s.value: s.dice for s in found.scores} == {5: pytest.approx(0.8), 9: 0}
    assert {s.role for s in found.scores} == {"unknown"}
    assert found.excluded == ()
    assert found.mean() == pytest.approx(0.4)


def test_instances_are_scored_as_foreground(folders):
    mask, label = with_boxes((1, 0, 4)), with_boxes((17, 0, 2), (3, 2, 4))
    masks, labels = folders(a=(mask, label))
    assert evaluate(masks, labels, label_kind="instances").mean() == 1
    write_manifest(masks, {"a": "unseen"}, LabelTable(kind="instances"))
    found = evaluate(masks, labels)
    assert means(found) == {1: (1, 1, 0)}


def test_cases_without_a_partner_are_listed(folders):
    one = with_boxes((1, 0, 2))
    masks, labels = folders(a=(one, one), b=(one, None), c=(None, one))
    found = evaluate(masks, labels)
    assert (found.without_label, found.without_prediction) == (("b",), ("c",))


def test_folders_without_a_common_case_are_refused(folders):
    one = with_boxes((1, 0, 2))
    masks, labels = folders(b=(one, None), c=(None, one))
    with pytest.raises(DatasetError, match="none named as one of the 1 labels"):
        evaluate(masks, labels)


def test_distances_are_in_the_unit_of_the_files(folders):
    masks, labels = folders(a=(with_boxes((1, 0, 1)), with_boxes((1, 3, 4))))
    found = evaluate(masks, labels)
    assert (found.unit, found.scores[0].hd95) == ("mm", 6)


def test_the_mean_is_that_over_classes_of_the_means_over_cases(folders):
    masks, labels = folders(
        a=(with_boxes((1, 0, 2)), with_boxes((1, 0, 2))),
        b=(with_boxes((1, 0, 2)), with_boxes((1, 2, 4))),
        c=(with_boxes((2, 0, 2)), with_boxes((2, 0, 2))),
    )
    found = evaluate(masks, labels)
    assert means(found) == {1: (0.5, 2, 0), 2: (1, 1, 0)}
    assert found.mean() == 0.75


def test_progress_is_told_for_every_case(folders):
    one, calls = with_boxes((1, 0, 2)), []
    evaluate(*folders(a=(one, one), b=(one, one)), progress=lambda *n: calls.append(n))
    assert calls == [(1, 2), (2, 2)]


def test_a_label_value_that_the_model_does_not_know_is_a_class_it_misses(folders):
    masks, labels = folders(new=(with_boxes((1, 1, 3)), with_boxes((1, 1, 3), (7, 4, 6))))
    write_manifest(masks, {"new": "unseen"}, LabelTable(values=(0, 1)))
    assert means(evaluate(masks, labels)) == {1: (1, 1, 0), 7: (0, 1, 0)}


def test_without_any_score_the_unit_is_not_mixed(folders):
    masks, labels = folders(new=(with_boxes((1, 1, 3))[:-1], with_boxes((1, 1, 3))))
    found = evaluate(masks, labels)
    assert (len(found.problems), found.unit, found.mean()) == (1, "voxel", None)


def test_a_mask_that_the_manifest_lacks_is_part_of_no_mean(folders):
    right = with_boxes((1, 1, 4))
    masks, labels = folders(listed=(right, right), unlisted=(with_boxes((1, 4, 6)), right))
    write_manifest(masks, {"listed": "unseen"}, LabelTable(values=(0, 1)))
    found = evaluate(masks, labels)
    assert (found.excluded, means(found)) == (("unlisted",), {1: (1, 1, 0)})


def test_images_given_for_labels_are_refused(folders):
    grey = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)
    masks, labels = folders(new=(with_boxes((1, 1, 4)), grey))
    write_manifest(masks, {"new": "unseen"}, LabelTable(values=(0, 1)))
    found = evaluate(masks, labels)
    assert "these look like images" in str(found.problems[0]).lower()
    assert found.scores == ()


def test_only_the_wanted_cases_are_read_and_listed(folders):
    right, wrong = with_boxes((1, 1, 4)), with_boxes((1, 4, 6))
    masks, labels = folders(a=(right, right), b=(wrong, right), c=(wrong, None), d=(None, right))
    (masks / "b.nii.gz").write_bytes(b"")
    calls = []
    found = evaluate(masks, labels, only=("a",), progress=lambda *n: calls.append(n))
    assert ({s.case for s in found.scores}, found.mean(), calls) == ({"a"}, 1, [(1, 1)])
    assert (found.problems, found.without_label, found.without_prediction) == ((), (), ())


def test_a_wanted_case_without_a_mask_is_listed_and_without_any_it_is_refused(folders):
    one = with_boxes((1, 0, 2))
    masks, labels = folders(a=(one, one), b=(None, one), c=(one, one))
    assert evaluate(masks, labels, only=("a", "b")).without_prediction == ("b",)
    with pytest.raises(DatasetError, match="0 masks, none named as one of the 1 labels"):
        evaluate(masks, labels, only=("b",))
    with pytest.raises(DatasetError, match="none named"):
        evaluate(masks, labels, only=())


def open_outside(label, *slices, value=255):
    """The label with all but these slices unannotated."""
    kept = np.isin(np.arange(len(label)), slices)[:, None, None]
    return np.where(kept, label, value)


def scores_of(found, case):
    return {s.value: (s.dice, s.iou, s.hd95) for s in found.scores if s.case == case}


def test_what_nobody_annotated_is_not_scored(folders):
    """The mask is right where somebody looked, and wrong everywhere else."""
    right = with_boxes((1, 0, 2), (2, 3, 5))
    wrong = with_boxes((1, 0, 6))
    wrong[3:5] = right[3:5]
    masks, labels = folders(a=(wrong, open_outside(right, 0, 1, 3, 4)))
    write_manifest(masks, {"a": "unseen"}, LabelTable(values=(0, 1, 2), ignore=255))
    assert scores_of(evaluate(masks, labels), "a") == {1: (1, 1, 0), 2: (1, 1, 0)}


@pytest.mark.parametrize(("value", "dtype"), [(255, np.uint8), (-1, np.int16), (3, np.float32)])
def test_scores_are_those_of_the_annotated_part_alone(folders, value, dtype):
    mask, label = with_boxes((1, 0, 3), (2, 4, 5)), with_boxes((1, 0, 2), (2, 4, 6))
    masks, labels = folders(
        whole=(mask, open_outside(label.astype(dtype), *range(5), value=value)),
        cut=(open_outside(mask, *range(5), value=0), open_outside(label, *range(5), value=0)),
    )
    found = evaluate(masks, labels, ignore=value)
    assert scores_of(found, "whole") == scores_of(found, "cut")
    assert scores_of(found, "whole")[2][:2] == (1, 1)


def test_the_told_value_stands_above_that_of_the_manifest(folders):
    label = with_boxes((1, 0, 2))
    masks, labels = folders(a=(label, open_outside(label, 0, value=9)))
    write_manifest(masks, {"a": "unseen"}, LabelTable(values=(0, 1), ignore=255))
    assert scores_of(evaluate(masks, labels, ignore=9), "a") == {1: (1, 1, 0)}
    assert 9 in scores_of(evaluate(masks, labels), "a")


def test_a_label_without_any_annotated_voxel_gives_no_score(folders):
    both = with_boxes((1, 0, 2), (2, 3, 5))
    masks, labels = folders(a=(both, np.full(SHAPE, 255, np.uint8)), b=(both, both))
    write_manifest(masks, {"a": "unseen", "b": "unseen"}, LabelTable(values=(0, 1, 2), ignore=255))
    found = evaluate(masks, labels)
    assert scores_of(found, "a") == {1: (None, None, None), 2: (None, None, None)}
    assert means(found) == {1: (1, 1, 1), 2: (1, 1, 1)}
    (masks / MANIFEST).unlink()
    assert scores_of(evaluate(masks, labels, ignore=255), "a") == scores_of(found, "a")


def test_instances_are_scored_where_somebody_annotated(folders):
    label = open_outside(with_boxes((17, 0, 2), (3, 2, 4)), 0, 1, 2, 3, 4, value=1)
    masks, labels = folders(a=(with_boxes((1, 0, 6)), label))
    write_manifest(masks, {"a": "unseen"}, LabelTable(kind="instances", ignore=1))
    assert scores_of(evaluate(masks, labels), "a")[1][0] == pytest.approx(2 * 4 / (4 + 5))


def overlapping(*boxes):
    """A channel with 1 in the box of each class, (K, Z, Y, X)."""
    return np.stack([with_boxes((1, first, last)) for first, last in boxes])


@pytest.fixture
def stacks(tmp_path, save_tiff):
    """Writes masks and labels of overlapping classes; gives both folders."""

    def write(**cases):
        for case, pair in cases.items():
            for folder, array in zip(("masks", "labels"), pair, strict=True):
                save_tiff(tmp_path / folder / f"{case}.tif", array, (2.0, 1.0, 1.0), "um")
        return tmp_path / "masks", tmp_path / "labels"

    return write


@pytest.mark.parametrize("manifest", [True, False])
def test_overlapping_classes_are_scored_channel_by_channel(stacks, manifest):
    masks, labels = stacks(a=(overlapping((0, 4), (2, 4)), 255 * overlapping((0, 4), (2, 6))))
    if manifest:
        write_manifest(masks, {"a": "unseen"}, LabelTable(kind="overlapping", values=(0, 1, 2)))
    found = evaluate(masks, labels, label_kind=None if manifest else "overlapping")
    assert {s.value: s.dice for s in found.scores} == {1: 1, 2: pytest.approx(2 / 3)}
    assert ({s.value: s.hd95 for s in found.scores}[2], found.unit) == (pytest.approx(4), "um")


def test_overlapping_classes_are_scored_where_every_channel_is_annotated(stacks):
    label = overlapping((0, 4), (2, 6))
    label[1, 4:] = 7
    masks, labels = stacks(a=(overlapping((0, 6), (2, 4)), label))
    write_manifest(masks, {"a": "unseen"}, LabelTable(kind="overlapping", values=(0, 1, 2), ignore=7))
    assert scores_of(evaluate(masks, labels), "a") == {1: (1, 1, 0), 2: (1, 1, 0)}


def test_an_unannotated_value_is_no_number_of_an_overlapping_class(stacks):
    both = overlapping((0, 4), (2, 4))
    masks, labels = stacks(a=(both, both))
    write_manifest(masks, {"a": "unseen"}, LabelTable(kind="overlapping", values=(0, 1, 2), ignore=2))
    assert set(scores_of(evaluate(masks, labels), "a")) == {1, 2}


def test_another_number_of_channels_is_a_problem(stacks):
    masks, labels = stacks(a=(overlapping((0, 4)), overlapping((0, 4), (2, 6))))
    found = evaluate(masks, labels, label_kind="overlapping")
    assert (found.scores, len(found.problems)) == ((), 1)
    assert "1 channels, but 2 in" in found.problems[0].found


def test_probability_maps_beside_masks_are_neither_scored_nor_missed(folders):
    one = with_boxes((1, 0, 2))
    masks, labels = folders(a=(one, one), a_probabilities=(np.full(SHAPE, 0.25, np.float32), None))
    write_manifest(masks, {"a": "unseen"}, LabelTable(values=(0, 1)))
    found = evaluate(masks, labels)
    assert (found.without_label, found.problems, found.mean()) == ((), (), 1)


def test_a_label_that_lies_elsewhere_than_its_mask_is_not_scored(tmp_path, save_nifti):
    """Flipped voxels of one header would have met those of another place."""
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[1:3, 1:3, 1:3] = 1
    save_nifti(tmp_path / "masks/a.nii.gz", mask)
    (tmp_path / "labels").mkdir()
    nib.save(nib.Nifti1Image(mask.T, np.diag((-1.0, 1, 2, 1))), tmp_path / "labels/a.nii.gz")
    found = evaluate(tmp_path / "masks", tmp_path / "labels")
    assert (found.scores, [p.found.split(" ")[0] for p in found.problems]) == ((), ["origin"])
    found = evaluate(tmp_path / "masks", tmp_path / "labels", accept_geometry=True)
    assert (found.problems, found.mean()) == ((), 1.0)


def test_voxels_outside_of_the_regions_are_not_scored(tmp_path, save_nifti):
    mask, region = np.ones((4, 5, 6), np.uint8), np.ones((4, 5, 6), np.uint8)
    label = mask.copy()
    label[0], region[0] = 0, 0
    for folder, array in (("masks", mask), ("labels", label), ("regions", region)):
        save_nifti(tmp_path / folder / "a.nii.gz", array)
    assert (evaluate(tmp_path / "masks", tmp_path / "labels").mean() or 0) < 1
    assert evaluate(tmp_path / "masks", tmp_path / "labels", regions=tmp_path / "regions").mean() == 1


def test_a_tolerance_is_in_the_unit_of_the_files(folders):
    masks, labels = folders(a=(with_boxes((1, 0, 3)), with_boxes((1, 1, 4))))
    for tolerance, perfect in ((None, True), (2.0, True), (1.9, False)):
        found = evaluate(masks, labels, tolerance=tolerance)
        assert ((means(found, "nsd")[1][0] == 1), found.tolerance) == (perfect, tolerance)


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_a_tolerance_that_is_no_length_is_refused(folders, tolerance):
    with pytest.raises(UserError, match="Give such a number"):
        evaluate(*folders(a=(with_boxes((1, 0, 3)),) * 2), tolerance=tolerance)


def counts(scores):
    match = scores.matches[0]
    return match.true_positives, match.false_positives, match.false_negatives


def test_objects_are_matched_whatever_their_numbers_and_semantic_scores_stay(folders):
    label = with_boxes((17, 0, 2), (3, 2, 4))
    masks, labels = folders(
        a=(with_boxes((5, 0, 2), (9, 2, 4)), label), b=(with_boxes((7, 0, 4), (8, 5, 6)), label)
    )
    found = evaluate(masks, labels, objects=True)
    assert {o.case: counts(o) for o in found.objects} == {"a": (2, 0, 0), "b": (1, 1, 1)}
    assert (counts(found.all_objects), found.all_objects.count_error) == ((3, 1, 1), 0)
    assert scores_of(found, "a")[1][0] == 1
    assert evaluate(masks, labels, label_kind="instances").all_objects is None


def test_a_mask_without_numbers_has_its_components_as_objects(folders):
    masks, labels = folders(a=(with_boxes((1, 0, 2), (1, 4, 6)), with_boxes((17, 0, 2), (3, 4, 6))))
    assert counts(evaluate(masks, labels, objects=True).all_objects) == (2, 0, 0)


def test_objects_of_training_cases_are_in_no_sum_and_unannotated_ones_are_not_counted(folders):
    label = open_outside(with_boxes((17, 0, 2), (3, 2, 4)), 0, 1, 2, 3, value=1)
    mask = with_boxes((5, 0, 2), (9, 2, 4), (6, 4, 6))
    masks, labels = folders(new=(mask, label), seen=(with_boxes((5, 0, 1)), label))
    write_manifest(masks, {"new": "unseen", "seen": "training"}, LabelTable(kind="instances", ignore=1))
    found = evaluate(masks, labels, objects=True)
    assert (counts(found.all_objects), len(found.objects)) == ((2, 0, 0), 2)


def test_objects_of_classes_are_refused(folders):
    with pytest.raises(UserError, match="labels of kind classes"):
        evaluate(*folders(a=(with_boxes((1, 0, 3)),) * 2), label_kind="classes", objects=True)


def of_objects(table, value=None):
    """What a manifest tells of masks whose objects are numbered."""
    config = InstancesConfig(method="watershed", value=value)
    return labels_of_masks(PostprocessConfig(instances=config), table)


@pytest.mark.parametrize(
    "table",
    [LabelTable(values=(1, 2), ignore=0), LabelTable(kind="instances", background=1, ignore=0)],
    ids=["classes", "instances"],
)
@pytest.mark.parametrize("told", [None, "instances"])
def test_numbered_objects_are_scored_against_labels_whose_background_is_not_0(folders, table, told):
    label = np.where(with_boxes((2, 1, 4)) == 2, np.uint8(2), np.uint8(1))
    label[0] = 0  # nobody's
    masks, labels = folders(case=(with_boxes((1, 0, 2), (2, 2, 4)), label))
    write_manifest(masks, {"case": "unseen"}, of_objects(table))
    found = evaluate(masks, labels, label_kind=told)
    assert (found.problems, means(found)) == ((), {1: (1, 1, 0)})


def test_a_class_beside_numbered_objects_is_never_taken_for_one(folders):
    masks, labels = folders(case=(with_boxes((1, 1, 2), (2, 2, 4)), with_boxes((1, 1, 4), (2, 4, 6))))
    write_manifest(masks, {"case": "unseen"}, of_objects(LabelTable(values=(0, 1, 2)), value=1))
    refused = evaluate(masks, labels)
    assert refused.scores == ()
    assert "the value 2, another class" in str(refused.problems[0])
    counted = evaluate(masks, labels, label_kind="instances", objects=True)
    assert counted.objects[0].true == 2
