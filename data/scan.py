"""Reading every voxel of every case once, and telling all that is wrong in one pass."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from .agreement import disagreements
from .cases import Case, Dataset
from .dataset import find_cases
from .examine import examine
from .fingerprint import CaseFacts, Fingerprint
from .label_rules import judge_labels
from .labels import LabelKind
from .problems import Problem, Severity
from .reading import AS_FOUND, ScanOptions, refuse_unknown


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a scan found: the cases that could be read, what they are, and every problem.

    `label_kind` and `ignore` are what the labels turned out to be; `options` those with which to read again.
    """

    cases: tuple[Case, ...]
    fingerprint: Fingerprint
    problems: tuple[Problem, ...]
    label_kind: LabelKind = "classes"
    ignore: int | None = None
    options: ScanOptions = AS_FOUND

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that must be solved before anything is prepared."""
        return self._of("error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems worth a look that stop nothing."""
        return self._of("warning")

    @property
    def records(self) -> tuple[str, ...]:
        """What is corrected, and what the user told to accept, as sentences."""
        return tuple(f"{p.severity}: {p}" for p in (*self._of("corrected"), *self._of("accepted")))

    def _of(self, severity: Severity) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.severity == severity)


def scan(
    data: str | Path,
    labels: str | Path | None = None,
    *,
    subjects: str | Path | None = None,
    regions: str | Path | None = None,
    options: ScanOptions = AS_FOUND,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Reads all volumes of a data set and reports all problems at once; writes nothing.

    Args:
        data, labels, subjects, regions: as in `find_cases`.
        options: what is to be assumed where files are silent, and done about what is wrong.
        progress: called with (cases read, cases in all).

    Raises:
        DatasetError: there is no data set to read.
    """
    inside = options.label.dataset is not None and labels is None
    dataset = find_cases(data, labels, subjects, regions, labels_inside=inside)
    if options.ignore is None and dataset.ignore is not None:
        options = replace(options, ignore=dataset.ignore)
    refuse_unknown(options, dataset.cases)
    if options.classes is None and dataset.label_names:
        values = set(dataset.label_names.values()) - {options.ignore}
        options = replace(options, classes=len({0, *values}))
    problems, facts = [*dataset.problems, *_unions(dataset)], list[CaseFacts]()
    # decompression and hashing release the interpreter
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        alone = threading.Lock()
        examined = pool.map(lambda case: examine(case, options, alone), dataset.cases)
        for done, (found, wrong) in enumerate(examined, start=1):
            problems += wrong
            facts += [found] if found is not None else []
            if progress is not None:
                progress(done, len(dataset.cases))
    rules = judge_labels(facts, options)
    problems += [*disagreements(rules.facts), *rules.problems]
    readable = {f.id for f in facts}
    return Scan(
        cases=tuple(case for case in dataset.cases if case.id in readable),
        fingerprint=replace(Fingerprint.of(rules.facts), background=rules.background, aliases=rules.aliases),
        problems=tuple(problems),
        label_kind=rules.kind,
        ignore=options.ignore,
        options=options,
    )


def _unions(dataset: Dataset) -> list[Problem]:
    """Classes that dataset.json makes of several values are not learned as such."""
    return [
        Problem(
            severity="error",
            case="",
            where="dataset.json",
            found=f"the class '{name}' of the values {', '.join(map(str, values))}",
            rule="A class is one value of a label map, or a channel of its own where classes overlap",
            remedy="Name each value, or save the classes as channels (--label-kind overlapping)",
        )
        for name, values in dataset.class_regions.items()
    ]
