"""The cases of a data set: which volumes there are, which label belongs to which, and whose they are."""

import csv
import difflib
import glob
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import UserError
from .formats.files import SUFFIXES, is_volume, strip_suffix
from .problems import Problem

_LABEL_FOLDERS = {"labels", "label", "masks", "mask", "labelstr", "segmentations", "annotations", "gt"}
# what lies beside volumes and is meant to
_TEXTS = {".txt", ".md", ".json", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".py"}


class DatasetError(UserError):
    """A data set that cannot be found or told apart."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One volume of a data set.

    `id` is its path below the image folder without suffix, with forward slashes. `label` is None for an
    unannotated case. Cases of one `subject` stay on one side of every split; without a table of
    subjects every case is its own.
    """

    id: str
    image: Path
    label: Path | None
    subject: str


def find_cases(
    data: str | Path, labels: str | Path | None = None, subjects: str | Path | None = None
) -> tuple[list[Case], list[Problem]]:
    """The cases in `data`, sorted by id, and what is wrong with their names.

    Args:
        data: a folder or glob of volumes, one volume, or a folder that holds `images/` (and `labels/`).
        labels: folder of the label maps, each named as its image is; found beside `images/` if absent.
        subjects: CSV table with the columns `case` and `subject`.

    Raises:
        DatasetError: nothing is there, or the table of subjects does not fit.
    """
    root, images, beside, unused = _image_files(data)
    label_root = Path(labels) if labels is not None else beside
    if label_root is not None:
        images = [path for path in images if label_root.resolve() not in path.resolve().parents]
    else:
        _refuse_labels_among(images, root)
    label_files = _label_files(label_root) if label_root is not None else {}
    image_ids, problems = _by_id(images, root)
    problems += _unread(root, label_root)
    cases = [
        Case(id=case, image=path, label=label_files.pop(case, None), subject=case)
        for case, path in sorted(image_ids.items())
    ]
    free = [case.id for case in cases if case.label is None]
    problems += [_label_without_image(path, case, free) for case, path in sorted(label_files.items())]
    if unused:
        problems.append(
            Problem(
                severity="warning",
                case="",
                where=str(unused[0].parent),
                found=f"volumes outside images/ and labels/ that are not used: {len(unused)}",
                rule="Beside images/ and labels/ no other folder is read",
                remedy="Move them into images/ to use them as unannotated volumes",
            )
        )
    if subjects is not None:
        cases = _with_subjects(cases, Path(subjects))
    return cases, problems


def _refuse_labels_among(images: list[Path], root: Path) -> None:
    """Without this, label maps in a folder of their own would become unannotated images."""
    for path in images:
        for part in path.relative_to(root).parts[:-1]:
            if part.casefold() in _LABEL_FOLDERS:
                raise DatasetError(
                    path.parent,
                    found=f"a folder called '{part}' among the images, and no --labels",
                    rule="Labels are in labels/ beside images/, or in the folder that --labels names",
                    remedy="Give it with --labels, or rename it if it holds images",
                )


def _unread(root: Path, label_root: Path | None) -> list[Problem]:
    """A warning for each folder with files that are no volume this version reads."""
    problems = []
    for folder in [root] if label_root is None or root in label_root.parents else [root, label_root]:
        names = [p.name for p in folder.rglob("*") if _is_unread(p)]
        kinds = Counter(Path(name).suffix or name for name in names)
        if kinds:
            problems.append(
                Problem(
                    severity="warning",
                    case="",
                    where=str(folder),
                    found="not read: " + ", ".join(f"{n} x {kind}" for kind, n in sorted(kinds.items())),
                    rule=f"Volumes are {', '.join(SUFFIXES)}; links to folders are not followed",
                    remedy="Save them as one of these, if they are volumes",
                )
            )
    return problems


def _is_unread(path: Path) -> bool:
    if path.name.startswith(".") or path.suffix.lower() in _TEXTS:
        return False
    return (path.is_symlink() and path.is_dir()) or (path.is_file() and not is_volume(path))


def find_images(data: str | Path) -> list[Case]:
    """The volumes in `data`, sorted by id, whatever labels there are; raises DatasetError."""
    root, images, _, _ = _image_files(data)
    found, problems = _by_id(images, root)
    _refuse(problems)
    return [Case(id=case, image=path, label=None, subject=case) for case, path in sorted(found.items())]


def find_labels(labels: str | Path) -> dict[str, Path]:
    """Label maps by case id, in a folder of them or in `labels/` of a data set; raises DatasetError."""
    root = Path(labels)
    return _label_files(root / "labels" if (root / "labels").is_dir() else root)


def _image_files(data: str | Path) -> tuple[Path, list[Path], Path | None, list[Path]]:
    """Root of the ids, image files, the label folder beside them, and volumes that nobody reads."""
    path = Path(data)
    if path.is_file():
        return path.parent, [path], None, []
    if not path.is_dir():
        return *_globbed(str(data)), None, []
    if (path / "imagesTr").is_dir() and not (path / "images").is_dir():
        raise DatasetError(
            path,
            found="a folder with imagesTr/",
            rule="This version reads folders of volumes and images/ + labels/ pairs",
            remedy=f"Give the folders: {path / 'imagesTr'} --labels {path / 'labelsTr'}",
        )
    root = path / "images" if (path / "images").is_dir() else path
    beside = path / "labels" if root != path and (path / "labels").is_dir() else None
    images = _volumes_below(root)
    if not images:
        raise _nothing(path)
    read = {root, beside}
    unused = [] if root == path else [p for p in _volumes_below(path) if not read & set(p.parents)]
    return root, images, beside, unused


def _globbed(pattern: str) -> tuple[Path, list[Path]]:
    found = sorted(Path(p) for p in glob.glob(pattern, recursive=True) if is_volume(Path(p)))
    if not found:
        raise _nothing(pattern)
    return Path(os.path.commonpath([p.parent for p in found])), found


def _nothing(where: object) -> DatasetError:
    return DatasetError(
        where,
        found="no volume found",
        rule="Volumes are .nii, .nii.gz, .tif or .tiff files",
        remedy="Check the path, or give a glob in quotes such as 'scans/**/*.nii.gz'",
    )


def _label_files(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise DatasetError(
            root,
            found="no such folder",
            rule="--labels is a folder of label maps named as their images are",
            remedy="Check the path",
        )
    found, problems = _by_id(_volumes_below(root), root)
    _refuse(problems)
    return found


def _refuse(problems: list[Problem]) -> None:
    for p in problems[:1]:
        raise DatasetError(p.where, found=p.found, rule=p.rule, remedy=p.remedy)


def _volumes_below(root: Path) -> list[Path]:
    hidden = (
        path
        for path in root.rglob("*")
        if is_volume(path) and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    return sorted(hidden)


def _by_id(paths: list[Path], root: Path) -> tuple[dict[str, Path], list[Problem]]:
    ids = [strip_suffix(path.relative_to(root).as_posix()) for path in paths]
    # on a file system that ignores case, `Case01` and `case01` would share a folder of the store
    twice = {folded for folded, n in Counter(case.casefold() for case in ids).items() if n > 1}
    problems = [
        Problem(
            severity="error",
            case=case,
            where=str(path),
            found=f"its name without suffix, '{case}', is that of another volume too",
            rule="The path without suffix names a case and must be unique, whether in upper or lower case",
            remedy="Rename one of them or move it away",
        )
        for case, path in zip(ids, paths, strict=True)
        if case.casefold() in twice
    ]
    return dict(zip(ids, paths, strict=True)), problems


def _label_without_image(path: Path, case: str, free: list[str]) -> Problem:
    folded = {name.casefold(): name for name in free}
    near = difflib.get_close_matches(case.casefold(), folded, n=1, cutoff=0.6)
    hint = f" (did you mean '{folded[near[0]]}'?)" if near else ""
    return Problem(
        severity="error",
        case=case,
        where=str(path),
        found=f"no image is called '{case}'{hint}",
        rule="A label has the name of its image, suffix apart",
        remedy="Rename the label or the image, or take the label away",
    )


def _with_subjects(cases: list[Case], table: Path) -> list[Case]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            # Excel writes semicolons where the comma is the decimal sign
            delimiter = ";" if ";" in file.readline() else ","
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter)
            rows, columns = list(reader), list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            table,
            found=f"not readable ({error})",
            rule="The table of subjects is a CSV file",
            remedy="Check the path and the file",
        ) from error
    if not {"case", "subject"} <= set(columns):
        raise DatasetError(
            table,
            found=f"the columns {', '.join(columns) or '(none)'}",
            rule="The table of subjects has the columns case and subject",
            remedy="Give it the header line 'case,subject'",
        )
    subject: dict[str, str] = {}
    for row in rows:
        case, whose = strip_suffix((row["case"] or "").strip()), (row["subject"] or "").strip()
        if subject.setdefault(case, whose) != whose:
            raise DatasetError(
                table,
                found=f"'{case}' belongs to '{subject[case]}' and to '{whose}'",
                rule="A case is of one subject, or its split would leak",
                remedy="Correct one of the lines",
            )
    missing = [case.id for case in cases if not subject.get(case.id)]
    if missing:
        raise DatasetError(
            table,
            found=f"{len(missing)} cases have no subject: {', '.join(missing[:5])}",
            rule="Where subjects are given every case has one, or its split would leak",
            remedy="Add a line for each, named as the volume without suffix",
        )
    return [replace(case, subject=subject[case.id]) for case in cases]
