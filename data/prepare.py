"""From a scanned data set to a store.

Cases are made one by one in a hidden folder beside the store, which gets the store's name when all are
there. What a killed process finished is kept by the next one: each case has a `case.json`, written last, that
tells by what recipe it was made and what its files hold.
"""

import errno
import json
import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from .atomic import settle, sync_below, write_text
from .case_arrays import BOX, READ_BYTES, write_coarser, write_foreground, write_image, write_labels
from .cases import Case
from .claims import claimed
from .errors import UserError
from .fingerprint import CaseFacts
from .formats.lazy import WHOLE_BYTES
from .hashing import settings_hash
from .plan import SPACING_TOLERANCE, Plan
from .preprocess import check_fits, target_shape
from .reading import ScanOptions, class_numbers, open_image
from .resample import pyramid, resampled_shape
from .scan import Scan
from .settings import plain, read_json, write_yaml
from .sources import source_hash
from .store import (
    PLAN_FILE,
    STORE_FILE,
    Store,
    StoredCase,
    StoreError,
    case_folder,
    source_file,
    stored_file,
    write_index,
)
from .volume import OpenVolume, Shape

CASE_FILE = "case.json"


def prepare(
    scanned: Scan,
    plan: Plan,
    out: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Store:
    """Writes a store of all scanned cases and opens it; it appears whole or not at all.

    A store that is there already is returned when it was made of the same files in the same way.

    Raises:
        UserError: the scan has errors, `out` is something else, the disk is too small, a source changed
            since the scan, a case does not fit the plan, or another process prepares the same store.
    """
    out = Path(out)
    if scanned.errors:
        raise StoreError(
            scanned.errors[0].where,
            found=f"{scanned.errors[0].found} (and {len(scanned.errors) - 1} more problems)",
            rule="Only a data set whose scan shows no error is prepared",
            remedy="Run `fewvox scan` on it and solve what it lists",
        )
    works = _works(scanned, plan)
    unfinished, needed = out.with_name(f".{out.name}.unfinished"), bytes_needed(scanned, plan)
    if not out.exists():
        check_disk(out, needed - _bytes_below(unfinished))
    with claimed(out, "prepares a store"):
        if out.exists():
            return _same_store(out, works)
        unfinished.mkdir(exist_ok=True)
        _drop_others(unfinished, works)
        with _told_when_full(out, needed):
            cases = _all_cases(works, unfinished, progress)
            write_yaml(
                unfinished / PLAN_FILE,
                plan,
                "How this data set is prepared and trained on; see docs/formats.md.",
            )
            write_index(unfinished, plan, cases, scanned.records)
            settle(unfinished, out)
    return Store.open(out)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """All that one case of a store is made by."""

    case: Case
    facts: CaseFacts
    plan: Plan
    options: ScanOptions

    @property
    def recipe(self) -> str:
        """The hash of it; two cases of one recipe are the same to the last bit."""
        facts = plain(self.facts)
        told = {key: facts[key] for key in ("id", "subject", "image_hash", "label_hash")}
        region = None if self.case.region is None else source_hash(self.case.region)
        o = self.options
        choices = [plain(o.image), plain(o.label), o.replace_nonfinite, o.accept_geometry]
        return settings_hash([told, region, self.plan.store_hash, choices, facts["spacing"], facts["unit"]])


def _works(scanned: Scan, plan: Plan) -> list[_Work]:
    facts = {f.id: f for f in scanned.fingerprint.cases}
    return [_Work(case=c, facts=facts[c.id], plan=plan, options=scanned.options) for c in scanned.cases]


def check_place(out: Path) -> None:
    """Raises UserError where `out` is something else than a store."""
    if out.exists() and not (out / STORE_FILE).is_file():
        raise UserError(
            out,
            found="it exists already, and is no store",
            rule="What is there is never written over",
            remedy="Choose another --out, or delete this one",
        )


def _same_store(out: Path, works: Sequence[_Work]) -> Store:
    """The store in `out`, when nothing differs from what would be made; raises UserError otherwise."""
    check_place(out)
    store = Store.open(out)
    wanted = {work.case.id: work.recipe for work in works}
    found = {case.id: case.recipe for case in store.cases.values()}
    differing = sorted(case for case in wanted.keys() | found.keys() if wanted.get(case) != found.get(case))
    if differing:
        raise StoreError(
            out,
            found=f"it was made otherwise or of other files: {_listed(differing)}",
            rule="A store is never written over",
            remedy="Choose another --out, or delete this one",
        )
    store.check(found)
    return store


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _drop_others(unfinished: Path, works: Sequence[_Work]) -> None:
    """Takes away what no case of this store would use, as of another data set or plan."""
    kept = {case_folder(unfinished, w.case.id) for w in works if _finished(w, unfinished) is not None}
    for file in (unfinished / "cases").rglob("*"):
        if file.is_file() and file.parent not in kept:
            file.unlink()


def _finished(work: _Work, store: Path) -> StoredCase | None:
    """The case as an earlier process finished it, if it did so by the same recipe and nothing is damaged."""
    folder = case_folder(store, work.case.id)
    if not (folder / CASE_FILE).is_file():
        return None
    stored = read_json(folder / CASE_FILE, StoredCase)
    whole = all(
        (folder / name).is_file() and stored_file(folder / name) == file
        for name, file in stored.files.items()
    )
    return stored if whole and stored.recipe == work.recipe else None


def _all_cases(
    works: Sequence[_Work], store: Path, progress: Callable[[int, int], None] | None
) -> list[StoredCase]:
    # the largest volumes come one by one, whatever the workers
    alone = threading.Lock()
    stored: list[StoredCase] = []
    with ThreadPoolExecutor(workers_for([_worker_bytes(work.facts) for work in works])) as pool:
        jobs = [pool.submit(_case, work, store, alone) for work in works]
        try:
            for job in jobs:
                stored.append(job.result())
                if progress is not None:
                    progress(len(stored), len(works))
        finally:
            for job in jobs:
                job.cancel()
    return stored


def _case(work: _Work, store: Path, alone: threading.Lock) -> StoredCase:
    finished = _finished(work, store)
    if finished is not None:
        return finished
    large = math.prod(work.facts.shape) * np.dtype(work.facts.dtype).itemsize > WHOLE_BYTES
    with alone if large else nullcontext():
        return _made(work, store)


def _made(work: _Work, store: Path) -> StoredCase:
    case, facts, plan = work.case, work.facts, work.plan
    _check_unchanged(case.images, facts.image_hash)
    folder = case_folder(store, case.id)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    volume = open_image(case, work.options)
    check_fits(volume, plan.preprocessing, case.image)
    shape = target_shape(volume, plan.preprocessing, case.image)
    factors = [factor for factor, _ in pyramid(shape, plan.preprocessing.spacing)]
    write_image(folder, volume.array, shape, plan.preprocessing, facts.intensities)
    write_coarser(folder, factors)
    counts: dict[int, int] = {}
    if case.label is not None and plan.labels is not None:
        _check_unchanged([case.label], facts.label_hash)
        numbers = class_numbers(case, volume, plan.labels, work.options)
        write_labels(folder, numbers, shape)
        counts = write_foreground(folder, facts.content_hash)
    return _finish(folder, work, volume, shape, factors, counts)


def _finish(
    folder: Path,
    work: _Work,
    volume: OpenVolume,
    shape: Shape,
    factors: Sequence[tuple[int, int, int]],
    counts: dict[int, int],
) -> StoredCase:
    """Writes case.json when everything else lies safely on the disk."""
    case, facts, labelled = work.case, work.facts, (folder / "label_0.b2nd").is_file()
    # once more: what was read is what is noted
    _check_unchanged(case.images, facts.image_hash)
    beside = [] if case.sidecar is None else [case.sidecar]
    sources = [source_file(path, "image") for path in (*case.images, *beside)]
    if labelled and case.label is not None:
        _check_unchanged([case.label], facts.label_hash)
        sources += [source_file(path, "label") for path in (case.label, case.region) if path is not None]
    stored = StoredCase(
        id=case.id,
        subject=case.subject,
        shape=shape,
        levels=tuple(factors),
        labelled=labelled,
        annotated_share=facts.annotated_share if labelled else 1.0,
        source_shape=volume.shape,
        source_spacing=volume.spacing,
        source_unit=volume.unit,
        image_hash=facts.image_hash,
        label_hash=facts.label_hash,
        content_hash=facts.content_hash,
        recipe=work.recipe,
        foreground_voxels={c: n for c, n in counts.items() if c > 0},
        lost_classes=_lost(work, counts) if labelled else (),
        corrections=facts.corrections,
        notes=volume.notes,
        sources=tuple(sources),
        files={path.name: stored_file(path) for path in sorted(folder.iterdir())},
    )
    sync_below(folder)
    write_text(folder / CASE_FILE, json.dumps(plain(stored), indent=1))
    return stored


def _lost(work: _Work, counts: dict[int, int]) -> tuple[int, ...]:
    """Classes that the label has and no voxel is left of."""
    table = work.plan.labels
    if table is None or work.facts.label_voxels is None:
        return ()
    values = [v for v, n in work.facts.label_voxels.items() if n]
    had = values if table.kind == "overlapping" else table.encode(np.array(values, dtype=np.int64)).tolist()
    return tuple(sorted({c for c in had if c > 0} - {c for c, n in counts.items() if n}))


def _check_unchanged(paths: Sequence[Path], expected: str | None) -> None:
    if source_hash(paths) != expected:
        raise StoreError(
            paths[0],
            found="the file changed after the scan",
            rule="What is prepared is what was checked",
            remedy="Run the command again when nobody writes to the data",
        )


def bytes_needed(scanned: Scan, plan: Plan) -> int:
    """Most bytes the store can take: images in float32 at all levels and labels, uncompressed."""
    total = 0
    for f in scanned.fingerprint.cases:
        shape = _shape_in_plan(f, plan)
        voxels = sum(math.prod(level) for _, level in pyramid(shape, plan.preprocessing.spacing))
        labels = 0 if plan.labels is None or f.label_voxels is None else _label_bytes(plan, f)
        total += 4 * len(f.channels) * voxels + labels * math.prod(shape)
    # chunks that do not compress have headers
    return total + total // 100


def _label_bytes(plan: Plan, facts: CaseFacts) -> int:
    if plan.labels is None:
        return 0
    return plan.labels.dtype.itemsize * (facts.label_channels if plan.labels.kind == "overlapping" else 1)


def memory_needed(scanned: Scan) -> int:
    """Bytes of memory that preparing takes beside the program itself, an estimate."""
    needs = [_worker_bytes(f) for f in scanned.fingerprint.cases]
    return max(needs) * min(workers_for(needs), len(needs))


def workers_for(needs: Sequence[int]) -> int:
    """How many cases are made at once: one a core, as far as half of the free memory goes."""
    fitting = psutil.virtual_memory().available // 2 // max(needs)
    return max(1, min(os.cpu_count() or 1, fitting))


def _worker_bytes(facts: CaseFacts) -> int:
    """The file as it is read, its voxels, the labels as numbers, and some boxes in float32."""
    voxels = math.prod(facts.shape) * len(facts.channels)
    return 3 * min(voxels * np.dtype(facts.dtype).itemsize, READ_BYTES) + 32 * math.prod(BOX)


def check_disk(out: Path, needed: int) -> None:
    """Raises UserError when the disk that `out` will lie on has less than `needed` bytes free."""
    folder = next(p for p in [out.absolute(), *out.absolute().parents] if p.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            out,
            found=f"{free / 2**20:.0f} MiB free on its disk",
            rule=f"Up to {needed / 2**20:.0f} MiB are needed",
            remedy="Free some space or choose a folder on another disk",
        )


@contextmanager
def _told_when_full(out: Path, needed: int) -> Iterator[None]:
    """Tells a full disk from other failures to write; blosc2 does not say which it met."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        free, number = shutil.disk_usage(out.parent).free, getattr(error, "errno", None)
        full = number in (errno.ENOSPC, errno.EDQUOT) or free < 2**20
        if isinstance(error, OSError) and not full:
            raise
        raise StoreError(
            out,
            found=f"{'no space left on its disk' if full else f'it cannot be written to ({error})'}, "
            f"{free / 2**20:.1f} MiB free",
            rule=f"The whole store takes up to {needed / 2**20:.0f} MiB",
            remedy="Free some space, or ask for a larger quota, and run the same command again: "
            "finished cases are kept",
        ) from error


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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
    return resampled_shape(facts.shape, facts.spacing_in(plan.preprocessing.unit), target, SPACING_TOLERANCE)
