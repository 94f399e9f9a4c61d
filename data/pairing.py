"""Which mask belongs to which image: by name, never by position in a list."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from .cases import Dataset
from .errors import DatasetError
from .folders import Folder
from .problems import Problem

# ends of the stem alone: "a_seg/b" is no mask
_MASK_MARK = re.compile(r"(?<=[^/])[_.\- ](seg|segmentation|labels?|masks?|gt|annotations?)$", re.IGNORECASE)
_IMAGE_MARK = re.compile(r"(?<=[^/])[_.\- ](img|image|raw|0000)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """The image of each mask, both by id, and what was cut off their names to find it."""

    image_of: dict[str, str]
    image_mark: str
    mask_mark: str


def pair(images: Collection[str], masks: Collection[str]) -> Pairing:
    """Masks named as their images, else with a mark that all of them end in ("_seg", and "_img" of images).

    The first way in which any mask finds its image is kept for all.
    """
    for image_mark, mask_mark in product(
        ("", _common(images, _IMAGE_MARK)), ("", _common(masks, _MASK_MARK))
    ):
        named = {image.removesuffix(image_mark): image for image in images}
        keys = {mask: mask.removesuffix(mask_mark) for mask in masks}
        found = {mask: named[key] for mask, key in keys.items() if key in named}
        if found:
            return Pairing(image_of=found, image_mark=image_mark, mask_mark=mask_mark)
    return Pairing(image_of={}, image_mark="", mask_mark="")


def _common(ids: Iterable[str], mark: re.Pattern[str]) -> str:
    """What `mark` finds at the end of every id; "" when they do not all end alike."""
    ends = {match[0] if (match := mark.search(name)) else "" for name in ids}
    return ends.pop() if len(ends) == 1 else ""


def with_labels(dataset: Dataset, folder: Folder) -> Dataset:
    """The data set with the labels of a folder; one without image is an error among its problems."""
    files, problems = folder.by_id()
    _refuse(problems)
    pairing = pair([case.id for case in dataset.cases], files)
    label_of = {image: files[mask] for mask, image in pairing.image_of.items()}
    cases = tuple(replace(case, label=label_of.get(case.id)) for case in dataset.cases)
    free = [case.id for case in cases if case.label is None]
    # a case that lacks a channel is told already
    known = pairing.image_of.keys() | {problem.case for problem in dataset.problems}
    alone = [_mask_without_image("label", files[m], m, free) for m in sorted(files.keys() - known)]
    problems = [*_marks(pairing, folder.root), *alone]
    return replace(dataset, cases=cases, problems=(*dataset.problems, *problems))


def with_regions(dataset: Dataset, folder: Folder) -> Dataset:
    """The data set with the masks of what was annotated; one without labelled image is an error."""
    files, problems = folder.by_id()
    _refuse(problems)
    labelled = [case.id for case in dataset.cases if case.label is not None]
    pairing = pair(labelled, files)
    region_of = {image: files[mask] for mask, image in pairing.image_of.items()}
    cases = tuple(replace(case, region=region_of.get(case.id)) for case in dataset.cases)
    whole = [case for case in labelled if case not in region_of]
    alone = sorted(files.keys() - pairing.image_of.keys())
    problems = [_mask_without_image("region", files[m], m, whole) for m in alone]
    if whole:
        problems.append(
            Problem(
                severity="warning",
                case=whole[0],
                where=str(folder.root),
                found=f"no region for {len(whole)} labels: {', '.join(whole[:5])}",
                rule="A label without region is taken as annotated everywhere",
                remedy="Add a region for each that was annotated in part",
            )
        )
    return replace(dataset, cases=cases, problems=(*dataset.problems, *problems))


def labels_by_id(folder: Folder, ids: Collection[str]) -> dict[str, Path]:
    """The label maps of a folder by the `ids` that their names fit, else by their own names."""
    files, problems = folder.by_id()
    _refuse(problems)
    pairing = pair(ids, files)
    return {
        pairing.image_of.get(name, name.removesuffix(pairing.mask_mark)): path for name, path in files.items()
    }


def refuse_masks_among(images: Mapping[str, Path]) -> None:
    """Raises DatasetError where a_seg lies beside a: it would be read as an unannotated image."""
    masks = {name: match.start() for name in images if (match := _MASK_MARK.search(name))}
    starts = {
        name[:end]
        for name in images.keys() - masks.keys()
        for end in [len(name), *(m.start() for m in re.finditer(r"[_.\- ]", name))]
    }
    found = sorted(name for name, end in masks.items() if name[:end] in starts)
    if found:
        path = images[found[0]]
        raise DatasetError(
            path,
            found=f"{len(found)} masks among the images, by their names: {', '.join(found[:5])}",
            rule="Label maps stand apart, or they would be read as images that nobody has annotated",
            remedy="Move them to labels/ beside images/, name them apart with --labels "
            f"'{path.parent}/*{found[0][masks[found[0]] :]}*', or rename them if they are images",
        )


def _marks(pairing: Pairing, where: Path) -> list[Problem]:
    cut = " and ".join(
        f"'{mark}' of the {kind}"
        for mark, kind in ((pairing.image_mark, "images"), (pairing.mask_mark, "labels"))
        if mark
    )
    if not cut:
        return []
    return [
        Problem(
            severity="warning",
            case="",
            where=str(where),
            found=f"{len(pairing.image_of)} pairs of image and label found without {cut}",
            rule="A label has the name of its image, but for an ending that all of them have",
            remedy="Nothing to do if these are pairs",
        )
    ]


def _refuse(problems: list[Problem]) -> None:
    for p in problems[:1]:
        raise DatasetError(p.where, found=p.found, rule=p.rule, remedy=p.remedy)


def _mask_without_image(kind: str, path: Path, case: str, free: list[str]) -> Problem:
    folded = {name.casefold(): name for name in free}
    stem = _MASK_MARK.sub("", case).casefold()
    near = difflib.get_close_matches(stem, folded, n=1, cutoff=0.6)
    hint = f" (did you mean '{folded[near[0]]}'?)" if near else ""
    image = "image" if kind == "label" else "image with a label"
    return Problem(
        severity="error",
        case=case,
        where=str(path),
        found=f"no {image} is called '{case}'{hint}",
        rule=f"A {kind} has the name of its image, suffix apart",
        remedy=f"Rename the {kind} or the image, or take the {kind} away",
    )
