"""Reading one case to its last voxel, and telling all that is wrong with it."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .cases import Case
from .errors import UserError
from .fingerprint import CaseFacts
from .formats.alike import is_turned
from .geometry import differences
from .hashing import ContentHash
from .intensities import Intensity, IntensityMeter
from .label_voxels import LabelCounts, count_labels, label_voxels
from .problems import Problem
from .reading import (
    Finite,
    ScanOptions,
    as_told,
    made_finite,
    nonfinite,
    not_finite,
    open_image,
    open_label,
    open_region,
    open_stored_label,
)
from .slabs import Channel, parts
from .sources import source_hash
from .volume import OpenVolume

NOT_ALONE = nullcontext()
# no camera or scanner has that many for one slice alone; tifffile writes them where it is told no axes
_MANY_CHANNELS = 4


def examine(
    case: Case, options: ScanOptions, alone: AbstractContextManager[object] = NOT_ALONE
) -> tuple[CaseFacts | None, list[Problem]]:
    """What one case holds, or None where its image cannot be used, and its problems.

    Volumes that stay on disk are read while `alone` is held: one at a time keeps memory low.
    """
    try:
        image = open_image(case, options)
        with NOT_ALONE if isinstance(image.array, np.ndarray) else alone:
            measured = _measure(case, image, options)
    except UserError as error:
        return None, [Problem.from_error(case.id, error), *_unreadable_label(case, options)]
    problems = _image_problems(case, image, measured, options)
    label = _Label()
    if case.label is not None:
        label = _examine_label(case, case.label, image, options)
    facts = CaseFacts(
        id=case.id,
        subject=case.subject,
        shape=image.shape,
        spacing=image.spacing,
        unit=image.unit,
        orientation=image.orientation,
        turned=is_turned(image),
        channels=image.channels,
        dtype=str(image.array.dtype),
        intensities=measured.intensities,
        label_voxels=None if label.counts is None else label.counts.voxels,
        annotated_voxels=0 if label.counts is None else label.counts.annotated,
        label_dtype=label.dtype,
        label_channels=label.channels,
        image_hash=source_hash(case.images),
        label_hash=None if case.label is None or label.counts is None else source_hash(case.label),
        content_hash=measured.content_hash,
        replaced_voxels=measured.replaced,
        corrections=tuple(p.found for p in (*problems, *label.problems) if p.severity == "corrected"),
        notes=(*image.notes, *label.notes),
    )
    return facts, [*problems, *label.problems]


@dataclass(frozen=True, kw_only=True)
class _Measured:
    intensities: tuple[Intensity, ...]
    content_hash: str
    replaced: int


@dataclass(frozen=True, kw_only=True)
class _Label:
    counts: LabelCounts | None = None
    dtype: str | None = None
    channels: int = 0
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def _measure(case: Case, image: OpenVolume, options: ScanOptions) -> _Measured:
    """One pass over all voxels; raises UserError when some are not finite and nothing is to replace them."""
    _check_replacement(case, image, options)
    array = image.array.array if isinstance(image.array, Finite) else image.array
    channels, *extent = array.shape
    digest, bad = ContentHash(array.shape), 0
    meters = [IntensityMeter(math.prod(extent)) for _ in range(channels)]
    for c, meter in enumerate(meters):
        for _, part in parts(Channel(whole=array, number=c)):
            wrong = nonfinite(part)
            bad += wrong
            finite = made_finite(part, options.replace_nonfinite or 0.0) if wrong else part
            meter.add(finite)
            digest.add(finite)
    if bad and options.replace_nonfinite is None:
        raise not_finite(case.image, bad, math.prod(array.shape))
    return _Measured(
        intensities=tuple(meter.result() for meter in meters), content_hash=digest.result(), replaced=bad
    )


def _check_replacement(case: Case, image: OpenVolume, options: ScanOptions) -> None:
    value, dtype = options.replace_nonfinite, image.array.dtype
    if value is not None and dtype.kind == "f" and abs(value) > float(np.finfo(dtype).max):
        raise UserError(
            "--replace-nonfinite",
            found=f"{value:g}, for voxels of type {dtype} in {case.image}",
            rule="What stands for voxels that are not finite is a number that the type of the file holds",
            remedy="Give a smaller number",
        )


def _unreadable_label(case: Case, options: ScanOptions) -> list[Problem]:
    """The label of a case whose image is broken is read all the same: one pass names every bad file."""
    if case.label is None:
        return []
    try:
        _count(case, open_stored_label(case.label, options), None, options)
    except UserError as error:
        return [Problem.from_error(case.id, error)]
    return []


def _count(case: Case, label: OpenVolume, region: OpenVolume | None, options: ScanOptions) -> LabelCounts:
    values = label_voxels(label, case.label, options.label_kind, options.ignore)
    return count_labels(values, region and region.array, options.label_kind)


def _examine_label(case: Case, path: Path, image: OpenVolume, options: ScanOptions) -> _Label:
    problems: list[Problem] = []
    try:
        label = open_label(path, image, options)
        problems += _mismatches(case, path, image, label, options)
        region = open_region(case, image, options)
        if region is not None and case.region is not None:
            problems += _mismatches(case, case.region, image, region, options)
            if region.shape != label.shape:
                return _Label(problems=tuple(problems))
        counts = _count(case, label, region, options)
    except UserError as error:
        return _Label(problems=(*problems, Problem.from_error(case.id, error)))
    problems += _label_corrections(case, label, counts, options)
    return _Label(
        counts=counts,
        dtype=str(label.array.dtype),
        channels=label.array.shape[0],
        problems=tuple(problems),
        notes=_of_label(label.notes),
    )


def _of_label(notes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"label: {note}" for note in notes)


def correction(
    where: object, case: str, options: ScanOptions, *, found: str, rule: str, done: str
) -> Problem:
    """What is mended, or an error where the user wants nothing mended."""
    return Problem(
        severity="corrected" if options.fix else "error",
        case=case,
        where=str(where),
        found=found,
        rule=rule,
        remedy=done if options.fix else f"Correct the file, or leave --no-fix out ({done})",
    )


def _image_problems(
    case: Case, image: OpenVolume, measured: _Measured, options: ScanOptions
) -> list[Problem]:
    problems = []
    if any(i.lowest == i.highest for i in measured.intensities):
        problems.append(_constant(case, measured.intensities))
    if image.shape[0] == 1 and len(image.channels) > _MANY_CHANNELS:
        problems.append(_flat(case, image))
    if measured.replaced:
        problems.append(
            Problem(
                severity="corrected",
                case=case.id,
                where=str(case.image),
                found=f"{measured.replaced} voxels are NaN, infinite or beyond float32",
                rule="Every voxel of an image is a finite number",
                remedy=f"They are read as {options.replace_nonfinite:g}",
            )
        )
    return problems


def _label_corrections(
    case: Case, label: OpenVolume, counts: LabelCounts, options: ScanOptions
) -> list[Problem]:
    problems = []
    if counts.rounded:
        problems.append(
            correction(
                case.label,
                case.id,
                options,
                found=f"{counts.rounded} voxels of the label are nearly whole numbers",
                rule="Label values are whole numbers",
                done="they are rounded",
            )
        )
    if label.array.shape[0] > 1 and options.label_kind != "overlapping":
        problems.append(
            correction(
                case.label,
                case.id,
                options,
                found=f"a label of {label.array.shape[0]} channels, one of them set in each voxel (one-hot)",
                rule="A label map has one channel of whole numbers",
                done="channels become the numbers 0, 1, ...",
            )
        )
    return problems


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


def _flat(case: Case, image: OpenVolume) -> Problem:
    return Problem(
        severity="warning",
        case=case.id,
        where=str(case.image),
        found=f"a single slice of {len(image.channels)} channels",
        rule="Slices that a file calls channels are no volume",
        remedy="Name the axes with --axes ZYX if these are slices; nothing to do if they are channels",
    )


def _mismatches(
    case: Case, path: Path, image: OpenVolume, label: OpenVolume, options: ScanOptions
) -> list[Problem]:
    """Where a label or a region is not the piece of space that its image is; all differing fields."""
    found = []
    for field, of_label, of_image in differences(as_told(label, case, options), image):
        accepted = options.accept_geometry and not field.startswith("shape")
        remedy = "Export it again from the image it was drawn on"
        if not field.startswith("shape"):
            remedy += ", or say --accept-geometry to take it voxel by voxel"
        found.append(
            Problem(
                severity="accepted" if accepted else "error",
                case=case.id,
                where=str(path),
                found=f"{field} {of_label}, but {of_image} in {case.image}",
                rule=f"A label has the {field} of its image",
                remedy=remedy,
            )
        )
    return found
