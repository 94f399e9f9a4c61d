"""Which cases train, validate and test: by seed, by subject, the same on every machine.

Subjects are ranked by a hash of seed and name, so that a split depends neither on the order of files nor on
a random generator's version. A data set that grows gets another test set; a run's split.json keeps the old.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import UserError
from .store import StoredCase

# below this many labels a validation case would cost more than it tells
MIN_LABELS_TO_VALIDATE = 8


@dataclass(frozen=True, kw_only=True)
class Split:
    """Case ids; no subject stands in two of the three."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def ranked_subjects(cases: Sequence[StoredCase], seed: int, purpose: str) -> list[str]:
    """The subjects of `cases` in an order that only `seed`, `purpose` and their names decide."""
    subjects = {case.subject for case in cases}
    return sorted(subjects, key=lambda s: hashlib.sha256(f"{purpose}:{seed}:{s}".encode()).digest())


def whole_subjects(cases: Sequence[StoredCase], subjects: list[str], count: int) -> tuple[str, ...]:
    """At least `count` of the cases, subject by subject in the given order."""
    chosen: list[str] = []
    for subject in subjects:
        if len(chosen) >= count:
            break
        chosen += [case.id for case in cases if case.subject == subject]
    return tuple(sorted(chosen))


def few_labels(cases: Sequence[StoredCase], count: int, seed: int) -> tuple[str, ...]:
    """`count` cases of as many subjects; those of a smaller count are among those of a larger one."""
    subjects = ranked_subjects(cases, seed, "labels")
    if count > len(subjects):
        raise UserError(
            f"--labelled {count}",
            found=f"{len(subjects)} subjects with labels are left for training",
            rule="Each labelled volume is of another subject",
            remedy=f"Ask for at most {len(subjects)}, or for fewer test volumes",
        )
    by_subject = {s: sorted(c.id for c in cases if c.subject == s) for s in subjects[:count]}
    return tuple(ids[_pick(seed, s, len(ids))] for s, ids in by_subject.items())


def folds(cases: Sequence[StoredCase], count: int, seed: int) -> list[tuple[str, ...]]:
    """The ids of the cases in `count` parts of whole subjects, which are dealt out in turn."""
    subjects = ranked_subjects(cases, seed, "folds")
    if not 2 <= count <= len(subjects):
        raise UserError(
            f"--folds {count}",
            found=f"{len(subjects)} subjects with labels are left for training and validation",
            rule="Each of at least 2 folds validates on subjects of its own",
            remedy=f"Ask for 2 to {len(subjects)} folds" if len(subjects) > 1 else "Label more subjects",
        )
    return [whole_subjects(cases, subjects[number::count], len(cases)) for number in range(count)]


def split(
    cases: Sequence[StoredCase],
    *,
    test: int,
    labelled: int | None,
    seed: int,
    split_seed: int = 0,
    fold: tuple[int, int] | None = None,
) -> Split:
    """A fixed test set, and few-label training and validation sets of the other subjects.

    Without a fold, a fifth of the labels validates where there are `MIN_LABELS_TO_VALIDATE`, and none below.

    Args:
        cases: the annotated cases of a store.
        test: at least this many test cases, the same for every `seed`.
        labelled: how many labels training and validation have together; None for all that are left.
        seed: decides which.
        split_seed: decides the test set and the folds.
        fold: (3, 5) validates on the fourth of five folds of the labels, however few they are; over all
            folds each label validates once.
    """
    if not cases:
        raise UserError(
            "the store",
            found="none of its cases has a label",
            rule="A network is trained on labelled cases",
            remedy="Prepare a data set with labels (labels/ beside images/, or --labels)",
        )
    held_out = set(whole_subjects(cases, ranked_subjects(cases, split_seed, "test"), test))
    held_subjects = {case.subject for case in cases if case.id in held_out}
    rest = [case for case in cases if case.subject not in held_subjects]
    if not rest:
        raise UserError(
            f"--test {test}",
            found="no labelled case is left to train on",
            rule=f"Test and training share no subject, and {len(cases)} cases are labelled",
            remedy="Ask for fewer test volumes",
        )
    known = few_labels(rest, labelled, seed) if labelled is not None else tuple(c.id for c in rest)
    if fold is None:
        validation = _validation(rest, known, seed)
    else:
        validation = _fold([case for case in rest if case.id in set(known)], *fold, split_seed)
    return Split(
        train=tuple(sorted(set(known) - set(validation))),
        validation=validation,
        test=tuple(sorted(held_out)),
    )


def without_subjects_of(cases: Sequence[StoredCase], held_out: Sequence[str]) -> tuple[str, ...]:
    """The ids of the cases whose subject has none of the `held_out` cases, in their order."""
    subjects = {case.subject for case in cases if case.id in set(held_out)}
    return tuple(sorted(case.id for case in cases if case.subject not in subjects))


def _validation(rest: Sequence[StoredCase], known: tuple[str, ...], seed: int) -> tuple[str, ...]:
    """A fifth of the labels, whole subjects, when there are enough of them."""
    if len(known) < MIN_LABELS_TO_VALIDATE:
        return ()
    cases = [case for case in rest if case.id in set(known)]
    subjects = ranked_subjects(cases, seed, "validation")
    if len(subjects) < 2:
        return ()
    return whole_subjects(cases, subjects[:-1], len(known) // 5)


def _fold(cases: Sequence[StoredCase], number: int, count: int, seed: int) -> tuple[str, ...]:
    parts = folds(cases, count, seed)
    if not 0 <= number < count:
        raise UserError(
            f"--fold {number}",
            found=f"there are {count} folds",
            rule=f"Folds are counted from 0 to {count - 1}",
            remedy="Choose one of them, or another number of --folds",
        )
    return parts[number]


def _pick(seed: int, subject: str, count: int) -> int:
    return int(hashlib.sha256(f"pick:{seed}:{subject}".encode()).hexdigest(), 16) % count
