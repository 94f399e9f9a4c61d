"""The cases of a data set: which volumes there are, which label belongs to which, and whose they are."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from .case_files import cases_of
from .cases import Case, Dataset
from .errors import DatasetError
from .folders import Folder, look
from .layouts import Layout, labels_in, layout_of, refuse_label_folders, unread
from .pairing import labels_by_id, with_labels, with_regions
from .problems import Problem
from .subjects import with_subjects
from .volume import is_named


def find_cases(
    data: str | Path,
    labels: str | Path | None = None,
    subjects: str | Path | None = None,
    regions: str | Path | None = None,
    *,
    labels_inside: bool = False,
) -> Dataset:
    """The cases in `data`, sorted by id, and what is wrong with their names.

    Args:
        data: a folder or glob of volumes, one volume, a folder that holds `images/` (and `labels/`), or one
            of the Medical Segmentation Decathlon or nnU-Net (`dataset.json`, `imagesTr/`, `labelsTr/`).
        labels: folder or glob of the label maps, each named as its image is; found beside the images when
            None.
        subjects: CSV table with the columns `case` and `subject`, or a regular expression with one group.
        regions: folder or glob of masks of what was annotated, each named as its image is.
        labels_inside: each label is in the file of its image.

    Raises:
        DatasetError: nothing is there, images and labels are mixed, or subjects do not fit.
        UserError: dataset.json cannot be used.
    """
    layout = layout_of(data)
    label_folder = layout.labels if labels is None else look(labels, layout.images.root)
    region_folder = None if regions is None else look(regions, layout.images.root)
    apart = [folder for folder in (label_folder, region_folder) if folder is not None]
    images = layout.images.without(*apart)
    if not images.volumes:
        raise _nothing_but_masks(images)
    if label_folder is None:
        refuse_label_folders(images)
    dataset = cases_of(layout, images, label_folder)
    if label_folder is not None and (labels is not None or layout.listed is None):
        dataset = with_labels(dataset, label_folder)
    if labels_inside:
        dataset = _with_labels_inside(dataset, label_folder)
    if region_folder is not None:
        dataset = with_regions(dataset, region_folder)
    problems = [*dataset.problems, *unread(layout, images, apart)]
    if labels is None:
        problems += _miscounted(layout, dataset)
    cases = dataset.cases if subjects is None else with_subjects(dataset.cases, subjects)
    return replace(dataset, cases=cases, problems=tuple(problems))


def find_images(data: str | Path, channels: Sequence[str] = ()) -> list[Case]:
    """The volumes in `data`, sorted by id, whatever labels there are.

    `channels` are the names of those that a model expects: files that are a channel each must be as many, and
    names that dataset.json tells must be the same. Raises DatasetError, naming both, where they are not.
    """
    layout = layout_of(data)
    dataset = cases_of(layout, layout.images, layout.labels, tuple(channels))
    for p in dataset.problems:
        if p.severity == "error":
            raise DatasetError(p.where, found=p.found, rule=p.rule, remedy=p.remedy)
    _refuse_other_channels(data, dataset.channels, tuple(channels))
    return list(dataset.cases)


def find_labels(labels: str | Path, ids: Collection[str] = ()) -> dict[str, Path]:
    """Label maps by case id, in a folder or glob of them or in that of a data set; raises DatasetError.

    Labels whose names end in a mark ("_seg") are found under those of `ids` that they fit without it.
    """
    return labels_by_id(labels_in(labels), ids)


def _nothing_but_masks(images: Folder) -> DatasetError:
    return DatasetError(
        images.root,
        found="every volume of it is among the labels too",
        rule="Images and labels are different files",
        remedy="Give a glob of the labels, such as --labels 'DATA/*_seg.nii.gz', or a folder of their own",
    )


def _with_labels_inside(dataset: Dataset, labels: Folder | None) -> Dataset:
    if labels is not None:
        raise DatasetError(
            labels.root,
            found="a folder of labels",
            rule="Labels are inside the files of the images, or in a folder of their own, not both",
            remedy="Leave out the name of the labels inside, or move the folder away",
        )
    return replace(dataset, cases=tuple(replace(case, label=case.image) for case in dataset.cases))


def _miscounted(layout: Layout, dataset: Dataset) -> list[Problem]:
    """An error where dataset.json tells of another number of training cases, and nothing else explains it."""
    told = layout.description
    if told is None or told.count is None or layout.part:
        return []
    found = sum(case.label is not None for case in dataset.cases)
    if found == told.count or any(problem.severity == "error" for problem in dataset.problems):
        return []
    return [
        Problem(
            severity="error",
            case="",
            where=str(told.path),
            found=f'"numTraining" is {told.count}, and there are {found} cases with a label',
            rule="dataset.json tells the number of training cases",
            remedy="Restore the files that are missing, or correct the number",
        )
    ]


def _refuse_other_channels(data: object, found: tuple[str, ...], expected: tuple[str, ...]) -> None:
    told = [name.casefold() for name in found], [name.casefold() for name in expected]
    nameless = not any(is_named(name) for name in expected)
    if not found or not expected or told[0] == told[1] or (nameless and len(found) == len(expected)):
        return
    raise DatasetError(
        data,
        found=f"the channels {', '.join(found)}, as dataset.json tells",
        rule=f"The model expects {', '.join(expected)}, in this order",
        remedy="Give the channels that the model was trained on, numbered in its order",
    )
