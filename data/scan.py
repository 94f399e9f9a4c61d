"""Reading every voxel of every case once, and telling all that is wrong in one pass."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .dataset import Case, find_cases
from .errors import UserError
from .fingerprint import CaseFacts, Fingerprint, Intensity
from .formats.files import read_volume
from .hashing import content_hash, file_hash
from .labels import LabelKind, count_values, label_map
from .problems import Problem
from .volume import Triple, Volume

# ITK and nnU-Net compare geometries at about this tolerance; float32 headers differ in the 7th digit
_SPACING_TOLERANCE = 1e-3
# spacing this many times off the median of the data set is a unit mix-up, not another protocol
_OUTLIER = 20.0
# as many label values, or as uneven ones, are rarely classes
_MANY_CLASSES = 64
_FEW_CLASSES = 4


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a scan found: the cases that could be read, what they are, and every problem."""

    cases: tuple[Case, ...]
    fingerprint: Fingerprint
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that must be solved before anything is prepared."""
        return tuple(p for p in self.problems if p.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems worth a look that stop nothing."""
        return tuple(p for p in self.problems if p.severity == "warning")


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """What the files cannot tell: a spacing (z, y, x) in `unit` for those without, the kind of labels.

    With `label_kind` None, labels are classes, and an error says so where they look like numbered objects.
    """

    spacing: Triple | None = None
    unit: str | None = None
    label_kind: LabelKind | None = None


def scan(
    data: str | Path,
    labels: str | Path | None = None,
    *,
    subjects: str | Path | None = None,
    options: ScanOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Reads all volumes of a data set and reports all problems at once; writes nothing.

    Args:
        data, labels, subjects: as in `find_cases`.
        options: what is to be assumed where files are silent.
        progress: called with (cases read, cases in all).

    Raises:
        DatasetError: there is no data set to read.
    """
    options = options or ScanOptions()
    dataset = find_cases(data, labels, subjects)
    cases, problems = dataset.cases, list(dataset.problems)
    facts: list[CaseFacts] = []
    # two at a time keeps memory low; decompression and hashing release the interpreter
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for done, (found, wrong) in enumerate(pool.map(lambda c: examine(c, options), cases), start=1):
            problems += wrong
            facts += [found] if found is not None else []
            if progress is not None:
                progress(done, len(cases))
    problems += [*_disagreements(facts), *_label_problems(facts, options.label_kind)]
    readable = {f.id for f in facts}
    return Scan(
        cases=tuple(case for case in cases if case.id in readable),
        fingerprint=Fingerprint.of(facts),
        problems=tuple(problems),
    )


def read_image(path: Path, options: ScanOptions) -> Volume:
    """The image in `path`, every voxel a finite float32; `options` give a spacing to one without."""
    volume = read_volume(path)
    if volume.spacing is None and options.spacing is not None:
        volume = replace(volume, spacing=options.spacing, unit=options.unit)
    with np.errstate(over="ignore"):
        bad = volume.array.size - np.count_nonzero(np.isfinite(volume.array.astype(np.float32, copy=False)))
    if bad:
        raise UserError(
            path,
            found=f"{bad} of {volume.array.size} voxels are NaN, infinite or beyond float32",
            rule="Every voxel of an image is a finite number",
            remedy="Replace these voxels in a copy of the file, or leave the case out",
        )
    return volume


def examine(case: Case, options: ScanOptions) -> tuple[CaseFacts | None, list[Problem]]:
    """What one case holds, or None where its image cannot be used, and its problems."""
    try:
        image = read_image(case.image, options)
    except UserError as error:
        return None, [Problem.from_error(case.id, error), *_unreadable_label(case)]
    problems = []
    intensities = tuple(_intensity(channel) for channel in image.array)
    if any(i.lowest == i.highest for i in intensities):
        problems.append(_constant(case, intensities))
    label_voxels = label_hash = None
    if case.label is not None:
        try:
            label = read_volume(case.label)
            label_voxels = count_values(label_map(label, case.label))
            label_hash = file_hash(case.label)
            problems += _mismatches(case, image, label)
        except UserError as error:
            problems.append(Problem.from_error(case.id, error))
    facts = CaseFacts(
        id=case.id,
        subject=case.subject,
        shape=image.shape,
        spacing=image.spacing,
        unit=image.unit,
        orientation=image.orientation,
        channels=image.channels,
        dtype=str(image.array.dtype),
        intensities=intensities,
        label_voxels=label_voxels,
        image_hash=file_hash(case.image),
        label_hash=label_hash,
        content_hash=content_hash(image.array),
        notes=image.notes,
    )
    return facts, problems


def _unreadable_label(case: Case) -> list[Problem]:
    """The label of a case whose image is broken is read all the same: one pass names every bad file."""
    if case.label is None:
        return []
    try:
        label_map(read_volume(case.label), case.label)
    except UserError as error:
        return [Problem.from_error(case.id, error)]
    return []


def _intensity(channel: np.ndarray) -> Intensity:
    low, middle, high = np.percentile(channel, (0.5, 50, 99.5))
    return Intensity(
        lowest=float(channel.min()),
        percentile_0_5=float(low),
        median=float(middle),
        percentile_99_5=float(high),
        highest=float(channel.max()),
        mean=float(channel.mean(dtype=np.float64)),
        std=float(channel.std(dtype=np.float64)),
    )


def _constant(case: Case, intensities: tuple[Intensity, ...]) -> Problem:
    values = ", ".join(f"{i.lowest:g}" for i in intensities if i.lowest == i.highest)
    return Problem(
        severity="warning",
        case=case.id,
        where=str(case.image),
        found=f"every voxel of a channel is {values}",
        rule="An image shows something",
        remedy="Leave the case out if this is not meant",
    )


def _mismatches(case: Case, image: Volume, label: Volume) -> list[Problem]:
    """Where label and image are not the same piece of space; all differing fields, not only the first."""

    def problem(field: str, of_label: object, of_image: object) -> Problem:
        return Problem(
            severity="error",
            case=case.id,
            where=str(case.label),
            found=f"{field} {of_label}, but {of_image} in {case.image}",
            rule=f"A label has the {field} of its image",
            remedy="Export the label again from the image it was drawn on",
        )

    if label.shape != image.shape:
        return [problem("shape (z, y, x)", label.shape, image.shape)]
    label = label.in_unit(image.unit)
    if image.spacing is None or label.spacing is None:  # masks are often saved without any
        return []
    found = []
    if not np.allclose(label.spacing, image.spacing, rtol=_SPACING_TOLERANCE):
        found.append(problem("spacing (z, y, x)", _short(label.spacing), _short(image.spacing)))
    if np.abs(np.subtract(label.origin, image.origin)).max() > 0.1 * min(image.spacing):
        found.append(problem("origin (z, y, x)", _short(label.origin), _short(image.origin)))
    if np.abs(np.subtract(label.direction, image.direction)).max() > _SPACING_TOLERANCE:
        found.append(problem("direction", label.direction, image.direction))
    return found


def _short(vector: Triple) -> str:
    return "(" + ", ".join(f"{v:.6g}" for v in vector) + ")"


def _disagreements(facts: list[CaseFacts]) -> list[Problem]:
    """Where cases do not fit each other: channels, spacing known or not, units, copies."""
    return [
        *_odd_channels(facts),
        *_mixed_orientations(facts),
        *_odd_spacings(facts),
        *_copies(facts),
    ]


def _odd_channels(facts: list[CaseFacts]) -> list[Problem]:
    usual = _commonest(f.channels for f in facts)
    return [
        Problem(
            severity="error",
            case=f.id,
            where=f.id,
            found=f"{len(f.channels)} channels ({', '.join(f.channels)})",
            rule=f"The other cases have {len(usual)} ({', '.join(usual)}), and all must have the same",
            remedy="Add the missing channel, or take the case away",
        )
        for f in facts
        if f.channels != usual
    ]


def _mixed_orientations(facts: list[CaseFacts]) -> list[Problem]:
    oriented = [f for f in facts if f.orientation == "RAS"]
    if not oriented or len(oriented) == len(facts):
        return []
    first = next(f for f in facts if f.orientation == "stored")
    return [
        Problem(
            severity="error",
            case=first.id,
            where=first.id,
            found="a file that knows no orientation",
            rule=f"{len(oriented)} other cases know theirs and are turned to RAS; the two do not mix",
            remedy="Convert all volumes to NIfTI with their orientation, or none",
        )
    ]


def _odd_spacings(facts: list[CaseFacts]) -> list[Problem]:
    known = [f for f in facts if f.spacing is not None]
    unknown = [f for f in facts if f.spacing is None]
    if not known:
        return []
    problems = [
        Problem(
            severity="error",
            case=f.id,
            where=f.id,
            found="no voxel spacing in the file",
            rule=f"{len(known)} other cases have one, and known and unknown spacings do not mix",
            remedy="Give it with --spacing Z,Y,X --unit um, or save it in the file",
        )
        for f in unknown
    ]
    if len({f.unit is None for f in known}) > 1:
        first = next(f for f in known if f.unit is None)
        problems.append(
            Problem(
                severity="error",
                case=first.id,
                where=first.id,
                found="a spacing without unit",
                rule="Other cases tell the unit of theirs, and the two do not mix",
                remedy="Save the unit in the file",
            )
        )
        return problems
    unit = known[0].unit
    spacings = np.array([f.spacing_in(unit) for f in known])
    median = np.median(spacings, axis=0)
    for f, ratio in zip(known, spacings / median, strict=True):
        if ratio.max() > _OUTLIER or ratio.min() < 1 / _OUTLIER:
            problems.append(
                Problem(
                    severity="error",
                    case=f.id,
                    where=f.id,
                    found=f"spacing {_short(f.spacing or (0, 0, 0))} {f.unit}",
                    rule=f"It is within {_OUTLIER:g} times of the median, {_short(tuple(median))} {unit}",
                    remedy="Correct the spacing or its unit in the file",
                )
            )
    return problems


def _copies(facts: list[CaseFacts]) -> list[Problem]:
    by_content: dict[str, list[CaseFacts]] = defaultdict(list)
    for f in facts:
        by_content[f.content_hash].append(f)
    return [
        Problem(
            severity="error",
            case=copy.id,
            where=copy.id,
            found=f"the same voxels as '{first.id}'",
            rule="A volume is in a data set once, or it could stand on both sides of a split",
            remedy="Take one of the two away",
        )
        for first, *rest in by_content.values()
        for copy in rest
    ]


def _label_problems(facts: list[CaseFacts], kind: LabelKind | None) -> list[Problem]:
    labelled = [f for f in facts if f.label_voxels is not None]
    if not labelled:
        return []
    empty = [f for f in labelled if f.foreground_voxels == 0]
    if len(empty) == len(labelled):
        return [
            Problem(
                severity="error",
                case="",
                where="labels",
                found=f"all {len(labelled)} labels are empty",
                rule="A network learns from labels with foreground",
                remedy="Check that the labels were exported with their values",
            )
        ]
    problems = [
        Problem(
            severity="warning",
            case=f.id,
            where=f.id,
            found="an empty label",
            rule="Most labels of the data set have foreground",
            remedy="Nothing to do if the volume shows none",
        )
        for f in empty
    ]
    if kind == "instances":
        return problems
    if kind is None and _look_like_objects(labelled):
        return [*problems, _objects(labelled)]
    return problems + _rare_values(labelled)


def _look_like_objects(labelled: list[CaseFacts]) -> bool:
    """Whether labels number objects: many values, 1 to n with another n in each, or most in one case only."""
    values = [sorted(v for v in f.label_voxels or {} if v > 0) for f in labelled]
    highest = [v[-1] if v else 0 for v in values]
    if len(set().union(*values)) > _MANY_CLASSES:
        return True
    consecutive = all(v == list(range(1, n + 1)) for v, n in zip(values, highest, strict=True))
    if consecutive and len(set(highest)) > 1 and max(highest) > _FEW_CLASSES:
        return True
    cases_with = Counter(value for of_case in values for value in of_case)
    once = sum(count == 1 for count in cases_with.values())
    return len(labelled) > 1 and once > _FEW_CLASSES and once > len(cases_with) / 2


def _objects(labelled: list[CaseFacts]) -> Problem:
    counts = [sum(value > 0 for value in f.label_voxels or {}) for f in labelled]
    return Problem(
        severity="error",
        case="",
        where="labels",
        found=f"{min(counts)} to {max(counts)} values above 0 in a label, as if objects were numbered",
        rule="A class has the same value in every label; numbered objects are learned as label > 0",
        remedy="Say which it is: --label-kind instances for numbered objects, or --label-kind classes",
    )


def _rare_values(labelled: list[CaseFacts]) -> list[Problem]:
    cases_with: dict[int, list[CaseFacts]] = defaultdict(list)
    for f in labelled:
        for value in f.label_voxels or {}:
            cases_with[value].append(f)
    return [
        Problem(
            severity="warning",
            case=found[0].id,
            where=found[0].id,
            found=f"the label value {value} ({found[0].voxels_of(value)} voxels) in no other case",
            rule="A class occurs in more than one of five or more labels",
            remedy="Correct the label if the value is a slip; otherwise it is trained as a class of its own",
        )
        for value, found in sorted(cases_with.items())
        if len(found) == 1 and len(labelled) >= 5
    ]


def _commonest(values: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    listed = list(values)
    return max(sorted(set(listed)), key=listed.count, default=())
