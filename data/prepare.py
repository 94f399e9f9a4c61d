"""From a scanned data set to a store."""

import math
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from .atomic import new_folder
from .dataset import Case
from .errors import UserError
from .fingerprint import CaseFacts
from .formats.files import read_volume
from .hashing import file_hash
from .labels import LabelTable, label_map
from .plan import Plan
from .preprocess import preprocess
from .resample import coarsen_image, coarsen_labels, pyramid, resample_labels, resampled_shape
from .scan import Scan, ScanOptions, read_image
from .settings import write_yaml
from .store import PLAN_FILE, Store, StoredCase, StoreError, case_folder, write_array, write_index
from .volume import Shape

# what nnU-Net keeps per class and case too
MAX_POSITIONS = 10_000


def prepare(
    scanned: Scan,
    plan: Plan,
    out: str | Path,
    *,
    options: ScanOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Store:
    """Writes a store of all scanned cases and opens it; it appears whole or not at all.

    Raises:
        UserError: the scan has errors, `out` exists, the disk is too small, a source changed since the
            scan, or a case does not fit the plan.
    """
    options = options or ScanOptions()
    out = Path(out)
    if scanned.errors:
        raise StoreError(
            scanned.errors[0].where,
            found=f"{scanned.errors[0].found} (and {len(scanned.errors) - 1} more problems)",
            rule="Only a data set whose scan shows no error is prepared",
            remedy="Run `fewvox scan` on it and solve what it lists",
        )
    check_disk(out, bytes_needed(scanned, plan))
    with new_folder(out) as partial:
        write_yaml(
            partial / PLAN_FILE, plan, "How this data set is prepared and trained on; see docs/formats.md."
        )
        facts = {f.id: f for f in scanned.fingerprint.cases}
        stored: list[StoredCase] = []
        with ThreadPoolExecutor(_workers()) as pool:
            jobs = pool.map(lambda c: _prepare_case(c, facts[c.id], plan, partial, options), scanned.cases)
            for case in jobs:
                stored.append(case)
                if progress is not None:
                    progress(len(stored), len(scanned.cases))
        write_index(partial, plan, stored)
    return Store.open(out)


def bytes_needed(scanned: Scan, plan: Plan) -> int:
    """Most bytes the store can take: images in float32 and labels at all levels, uncompressed."""
    total = 0
    for f in scanned.fingerprint.cases:
        voxels = sum(
            math.prod(shape) for _, shape in pyramid(_shape_in_plan(f, plan), plan.preprocessing.spacing)
        )
        total += voxels * (4 * len(f.channels) + (f.label_voxels is not None))
    return total


def memory_needed(scanned: Scan, plan: Plan) -> int:
    """Bytes of memory that preparing takes beside the program itself, an estimate.

    Each worker holds about five float32 copies of its volume: as read, resampled, normalised, one being
    compressed, and the labels with their positions (measured: 3.6 without resampling).
    """
    largest = max(
        math.prod(shape) * len(f.channels)
        for f in scanned.fingerprint.cases
        for shape in (f.shape, _shape_in_plan(f, plan))
    )
    return 5 * 4 * largest * min(_workers(), len(scanned.cases))


def check_disk(out: Path, needed: int) -> None:
    """Raises UserError when the disk that `out` will lie on has less than `needed` bytes free."""
    folder = next(p for p in [out.absolute(), *out.absolute().parents] if p.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            out,
            found=f"{free / 2**30:.1f} GiB free on its disk",
            rule=f"Up to {needed / 2**30:.1f} GiB are needed",
            remedy="Free some space or choose a folder on another disk",
        )


def _workers() -> int:
    # two at a time keep memory low; compression and hashing release the interpreter
    return min(2, os.cpu_count() or 1)


def _prepare_case(case: Case, facts: CaseFacts, plan: Plan, store: Path, options: ScanOptions) -> StoredCase:
    _check_unchanged(case.image, facts.image_hash)
    volume = read_image(case.image, options)
    image = preprocess(volume, plan.preprocessing, case.image)
    labels, lost = None, ()
    if case.label is not None and plan.labels is not None:
        _check_unchanged(case.label, facts.label_hash)
        labels, lost = _class_numbers(case.label, plan.labels, image.shape[1:])
    folder = case_folder(store, case.id)
    folder.mkdir(parents=True)
    return StoredCase(
        id=case.id,
        subject=case.subject,
        shape=image.shape[1:],
        levels=_write_levels(folder, image, labels, plan),
        labelled=labels is not None,
        source_shape=volume.shape,
        source_spacing=volume.spacing,
        source_unit=volume.unit,
        image_hash=facts.image_hash,
        label_hash=facts.label_hash,
        content_hash=facts.content_hash,
        foreground_voxels={} if labels is None else _write_foreground(folder, labels, facts.content_hash),
        lost_classes=lost,
        notes=volume.notes,
    )


def _check_unchanged(path: Path, expected: str | None) -> None:
    if file_hash(path) != expected:
        raise StoreError(
            path,
            found="the file changed after the scan",
            rule="What is prepared is what was checked",
            remedy="Run the command again when nobody writes to the data",
        )


def _class_numbers(path: Path, table: LabelTable, shape: Shape) -> tuple[np.ndarray, tuple[int, ...]]:
    """Class numbers (Z, Y, X) at `shape`, and the classes that no voxel is left of."""
    values = label_map(read_volume(path), path)
    unknown = np.setdiff1d(values, table.values) if table.kind == "classes" else np.array([])
    if unknown.size:
        raise StoreError(
            path,
            found=f"the label value {unknown[0]}",
            rule=f"The plan has the values {', '.join(map(str, table.values))}",
            remedy="Correct the label, or add the value to `labels.values` of the plan",
        )
    before = table.encode(values)
    after = resample_labels(before, shape, table.classes)
    return after, tuple(int(c) for c in np.setdiff1d(before, after))


def _write_levels(
    folder: Path, image: np.ndarray, labels: np.ndarray | None, plan: Plan
) -> tuple[tuple[int, int, int], ...]:
    """Writes all levels, finest first; returns the factor of each against the finest."""
    factors = [factor for factor, _ in pyramid(image.shape[1:], plan.preprocessing.spacing)]
    for level, factor in enumerate(factors):
        if level > 0:
            z, y, x = (now // before for now, before in zip(factor, factors[level - 1], strict=True))
            image = coarsen_image(image, (z, y, x))
            labels = None if labels is None else coarsen_labels(labels, (z, y, x))
        write_array(folder / f"image_{level}.b2nd", image)
        if labels is not None:
            write_array(folder / f"label_{level}.b2nd", labels)
    return tuple(factors)


def _write_foreground(folder: Path, labels: np.ndarray, seed: str) -> dict[int, int]:
    """Writes positions of each class, drawn by the case's own hash; returns voxels per class."""
    rng = np.random.default_rng(int(seed[:16], 16))
    counts, positions = {}, {}
    for c in range(1, int(labels.max()) + 1):
        found = np.argwhere(labels == c).astype(np.int32)
        if not len(found):
            continue
        counts[c] = len(found)
        if len(found) > MAX_POSITIONS:
            found = found[np.sort(rng.choice(len(found), MAX_POSITIONS, replace=False))]
        positions[str(c)] = found
    np.savez_compressed(folder / "foreground.npz", **positions)
    return counts


def _shape_in_plan(facts: CaseFacts, plan: Plan) -> Shape:
    target = plan.preprocessing.spacing
    if target is None:
        return facts.shape
    if facts.spacing is None or (facts.unit is None) != (plan.preprocessing.unit is None):
        raise StoreError(
            facts.id,
            found="no voxel spacing" if facts.spacing is None else f"a spacing in {facts.unit or 'no unit'}",
            rule=f"The plan resamples to {target} {plan.preprocessing.unit or '(no unit)'} (z, y, x)",
            remedy="Give it with --spacing Z,Y,X --unit um, or save it in the file",
        )
    return resampled_shape(facts.shape, facts.spacing_in(plan.preprocessing.unit), target, 0.0)
