"""The cases of a layout: their image files, by the list in dataset.json or by their names."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .cases import Case, Dataset
from .channel_files import are_channels, by_channel, complete
from .dataset_json import Description, Listed
from .folders import Folder
from .formats.files import strip_suffix
from .layouts import Layout
from .pairing import refuse_masks_among
from .problems import Problem
from .sidecars import sidecar_of


def cases_of(
    layout: Layout, images: Folder, labels: Folder | None, channels: tuple[str, ...] = ()
) -> Dataset:
    """The cases sorted by id, with labels only where dataset.json lists them, and what it tells.

    Args:
        layout: where the data set lies.
        images: its images.
        labels: its label maps; their names can show that a number at the end of a name is no channel.
        channels: names of the channels that a model expects; none outside of prediction.
    """
    told = layout.description
    if told is None:
        dataset = _plain(layout, images, labels, channels)
    elif layout.listed is not None:
        files = (*images.volumes, *(labels.volumes if labels else ()))
        dataset = _listed(told, layout.listed, files)
    elif told.ending is not None:
        dataset = _numbered(told, images, told.ending)
    else:
        dataset = _plain(layout, images, labels, channels)
    cases = (replace(case, sidecar=_sidecar(case)) for case in sorted(dataset.cases, key=lambda c: c.id))
    if told is None:
        return replace(dataset, cases=tuple(cases))
    return replace(
        dataset,
        cases=tuple(replace(case, channels=told.channels, axes=_axes(case, told)) for case in cases),
        channels=told.channels,
        label_names=told.label_names,
        class_regions=told.class_regions,
        ignore=told.ignore,
        description=told.text,
    )


def _plain(layout: Layout, images: Folder, labels: Folder | None, channels: tuple[str, ...]) -> Dataset:
    """A file a case, or a channel where the folder or the model makes that sure."""
    files, problems = images.by_id()
    refuse_masks_among(files)
    cases = {case: (path,) for case, path in files.items()}
    if _are_channels(layout, files, labels, channels):
        numbered = by_channel(files)
        count = 1 + max(number for of_case in numbered.values() for number in of_case)
        names = channels or tuple(f"channel{n}" for n in range(count))
        cases, wrong = complete(numbered, names)
        problems += wrong
    return _dataset(cases, problems)


def _are_channels(
    layout: Layout, files: Mapping[str, Path], labels: Folder | None, channels: tuple[str, ...]
) -> bool:
    if len(channels) > 1 and are_channels(files, several=True):
        return True
    # one case of many files is rather a series of cases, and so are numbers that the labels have too
    one_series = len(by_channel(files)) == 1 and len(files) > 1
    same_names = labels is not None and bool(files.keys() & labels.by_id()[0].keys())
    return layout.numbered and not one_series and not same_names and are_channels(files, several=False)


def _numbered(told: Description, images: Folder, ending: str) -> Dataset:
    """nnU-Net's cases: every channel a file."""
    named = tuple(path for path in images.volumes if path.name.endswith(ending))
    files, problems = Folder(root=images.root, volumes=named).by_id()
    numbered = by_channel(files)
    cases, wrong = complete(numbered, told.channels)
    used = {path for of_case in numbered.values() for path in of_case.values()}
    return _dataset(cases, [*problems, *wrong, *_extra(told.path, set(images.volumes) - used)])


def _listed(told: Description, listed: Sequence[Listed], files: Iterable[Path]) -> Dataset:
    """The cases of a list; a listed file that is missing is an error, another one is told."""
    counts = Counter(item.id.casefold() for item in listed)
    problems = [_listed_twice(told.path, item.id) for item in listed if counts[item.id.casefold()] > 1]
    cases: list[Case] = []
    for item in listed:
        images, wrong = _files_of(item, told)
        problems += wrong
        label = item.label if item.label.exists() else None
        if label is None:
            problems.append(_missing(item.id, item.label))
        if images:
            cases.append(Case(id=item.id, images=images, label=label, subject=item.id))
    used = {path for item in listed for path in (item.label, *item.images, *_channel_paths(item, told))}
    return Dataset(cases=tuple(cases), problems=(*problems, *_extra(told.path, set(files) - used)))


def _files_of(item: Listed, told: Description) -> tuple[tuple[Path, ...], list[Problem]]:
    """The images of a listed case; version 1 of nnU-Net lists x and means x_0000, x_0001, ..."""
    absent = [path for path in item.images if not path.exists()]
    if not absent and len(item.images) in (1, len(told.channels)):
        return item.images, []
    there = {n: path for n, path in enumerate(_channel_paths(item, told)) if path.exists()}
    if not there and absent:
        return (), [_missing(item.id, path) for path in absent]
    whole, problems = complete({item.id: there or dict(enumerate(item.images))}, told.channels)
    return whole.get(item.id, ()), problems


def _channel_paths(item: Listed, told: Description) -> tuple[Path, ...]:
    if len(item.images) != 1:
        return ()
    (path,) = item.images
    stem = strip_suffix(path.name)
    return tuple(path.with_name(f"{stem}_{n:04}{path.name[len(stem) :]}") for n in range(len(told.channels)))


def _dataset(files: Mapping[str, tuple[Path, ...]], problems: list[Problem]) -> Dataset:
    cases = tuple(Case(id=case, images=paths, subject=case) for case, paths in files.items())
    return Dataset(cases=cases, problems=tuple(problems))


def _sidecar(case: Case) -> Path | None:
    """CASE.json, or that of the first channel where each is a file."""
    stem = case.image.with_name(strip_suffix(case.image.name))
    return sidecar_of(stem, case.image.with_name(Path(case.id).name))


def _axes(case: Case, told: Description) -> str | None:
    """The decathlon keeps several modalities in one NIfTI file, as its last axis."""
    several = len(case.images) < len(told.channels)
    return "XYZC" if several and case.image.name.lower().endswith((".nii", ".nii.gz")) else None


def _missing(case: str, path: Path) -> Problem:
    return Problem(
        severity="error",
        case=case,
        where=str(path),
        found="no such file",
        rule="Every file that dataset.json lists is there",
        remedy="Restore it, or take its case out of dataset.json",
    )


def _listed_twice(path: Path, case: str) -> Problem:
    return Problem(
        severity="error",
        case=case,
        where=str(path),
        found=f"'{case}' is listed more than once",
        rule="A case is listed once, whether in upper or lower case",
        remedy="Take one of the two out, or rename it",
    )


def _extra(path: Path, files: set[Path]) -> list[Problem]:
    if not files:
        return []
    names = ", ".join(sorted(file.name for file in files)[:5])
    return [
        Problem(
            severity="warning",
            case="",
            where=str(path),
            found=f"volumes that are not used: {len(files)} ({names})",
            rule="Cases are those that dataset.json lists, or else the files that it names the ending of",
            remedy="List them or rename them, if they are cases",
        )
    ]
