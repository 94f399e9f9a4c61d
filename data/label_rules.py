"""What the label values of a data set mean, and what of them is mended."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .examine import correction
from .fingerprint import CaseFacts
from .labels import LabelKind
from .problems import Problem
from .reading import ScanOptions

# as many label values, or as uneven ones, are rarely classes
_MANY_CLASSES = 64
_FEW_CLASSES = 4
_WHITE = 255


@dataclass(frozen=True, kw_only=True)
class LabelRules:
    """Facts with their labels mended, and what the values mean (as in `LabelTable`)."""

    facts: tuple[CaseFacts, ...]
    kind: LabelKind
    background: int = 0
    aliases: dict[int, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def judge_labels(facts: Sequence[CaseFacts], options: ScanOptions) -> LabelRules:
    """What all labels together tell."""
    facts, white = _one_white(facts, options)
    labelled = [f for f in facts if f.label_voxels is not None]
    rules = LabelRules(
        facts=tuple(facts), kind=options.label_kind or "classes", aliases={_WHITE: 1} if white else {}
    )
    if not labelled:
        return rules
    found = sorted(set().union(*(f.label_voxels or {} for f in labelled)))
    if options.ignore == 0:
        rules = replace(rules, background=min(found, default=0))
    problems = [*white, *_ignored_nowhere(labelled, options), *_empty(labelled, rules.background)]
    if any(p.severity == "error" for p in problems):
        return replace(rules, problems=tuple(problems))
    if options.label_kind in ("instances", "overlapping"):
        return replace(rules, problems=(*problems, *_odd_channel_counts(labelled, options)))
    values = sorted({rules.background, *found})
    if options.classes == 2 and len(values) > 2:
        return _as_two(rules, labelled, found, problems, options)
    if options.classes is not None and len(values) > options.classes:
        problems += _too_many(labelled, values, options.classes)
    elif options.label_kind is None and options.classes is None and _look_like_objects(labelled):
        problems.append(_objects(labelled))
    else:
        problems += [*_rare_values(labelled), *_gaps(values, options), *_too_few(values, options)]
    return replace(rules, problems=tuple(problems))


def _one_white(facts: Sequence[CaseFacts], options: ScanOptions) -> tuple[Sequence[CaseFacts], list[Problem]]:
    """Masks of 0 and 255 among masks of 0 and 1: both mean the same, and 255 becomes 1."""
    values = [set(f.label_voxels) - {0} for f in facts if f.label_voxels is not None]
    if set().union(*values) != {1, _WHITE} or any(len(v) > 1 for v in values):
        return facts, []
    mended, problems = [], []
    for f in facts:
        if f.label_voxels is None or _WHITE not in f.label_voxels:
            mended.append(f)
            continue
        problem = correction(
            f.id,
            f.id,
            options,
            found=f"a mask of 0 and {_WHITE}",
            rule="Other masks of the data set have 0 and 1",
            done=f"{_WHITE} is read as 1",
        )
        problems.append(problem)
        counts = {1 if value == _WHITE else value: n for value, n in f.label_voxels.items()}
        mended.append(replace(f, label_voxels=counts, corrections=(*f.corrections, problem.found)))
    return mended, problems


def _ignored_nowhere(labelled: Sequence[CaseFacts], options: ScanOptions) -> list[Problem]:
    if options.ignore is None or not labelled or any(f.annotated_share < 1 for f in labelled):
        return []
    return [
        Problem(
            severity="warning",
            case="",
            where="labels",
            found=f"no voxel of the value {options.ignore}, which stands for unannotated",
            rule="Every other value counts as annotated",
            remedy="Correct --ignore-value, or nothing to do if everything was annotated",
        )
    ]


def _as_two(
    rules: LabelRules,
    labelled: Sequence[CaseFacts],
    values: Sequence[int],
    problems: list[Problem],
    options: ScanOptions,
) -> LabelRules:
    """Two classes are expected and more values found: the commonest is background, the rest foreground."""
    background = _voxels(labelled).most_common(1)[0][0]
    problem = correction(
        "labels",
        "",
        options,
        found=f"{len(values)} values where two classes are expected ({_told(values)})",
        rule="Two classes are background and foreground",
        done=f"{background}, the commonest, is background, and all other values are foreground",
    )
    return replace(
        rules,
        kind="instances",
        background=background,
        problems=(*problems, problem),
    )


def _voxels(labelled: Sequence[CaseFacts]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for f in labelled:
        counts.update(f.label_voxels or {})
    return counts


def _told(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:12])) + (", ..." if len(values) > 12 else "")


def _gaps(values: Sequence[int], options: ScanOptions) -> list[Problem]:
    first, count = values[0], len(values)
    if list(values) == list(range(first, first + count)):
        return []
    return [
        correction(
            "labels",
            "",
            options,
            found=f"the values {_told(values)}",
            rule="Classes are numbered without gaps",
            done=f"they are learned as 0 to {count - 1}, and masks are written with these values again",
        )
    ]


def _too_many(labelled: Sequence[CaseFacts], values: Sequence[int], expected: int) -> list[Problem]:
    counts = _voxels(labelled)
    # the background is a class even where no voxel has it
    rare = set(sorted(values[1:], key=lambda value: -counts[value])[expected - 1 :])
    return [
        Problem(
            severity="error",
            case=f.id,
            where=f.id,
            found=f"the label value {value} ({n} voxels), one of {len(values)} in the data set",
            rule=f"{expected} classes are expected, background included",
            remedy="Correct these voxels, or expect more --classes",
        )
        for f in labelled
        for value, n in sorted((f.label_voxels or {}).items())
        if value in rare
    ]


def _too_few(values: Sequence[int], options: ScanOptions) -> list[Problem]:
    if options.classes is None or len(values) >= options.classes:
        return []
    return [
        Problem(
            severity="warning",
            case="",
            where="labels",
            found=f"{len(values)} values ({_told(values)})",
            rule=f"{options.classes} classes are expected, background included",
            remedy="Nothing to do if the others are rare; a network does not learn them from these labels",
        )
    ]


def _odd_channel_counts(labelled: Sequence[CaseFacts], options: ScanOptions) -> list[Problem]:
    """Labels of overlapping classes that have not the channels of the others, or those expected."""
    if options.label_kind != "overlapping":
        return []
    usual = Counter(f.label_channels for f in labelled).most_common(1)[0][0]
    expected = usual if options.classes is None else options.classes - 1
    return [
        Problem(
            severity="error",
            case=f.id,
            where=f.id,
            found=f"a label of {f.label_channels} channels",
            rule=f"Labels have {expected}, one for each class but the background",
            remedy="Add the missing channels, empty ones if the case has nothing of the class",
        )
        for f in labelled
        if f.label_channels != expected
    ]


def _empty(labelled: Sequence[CaseFacts], background: int) -> list[Problem]:
    empty = [f for f in labelled if not f.foreground(background)]
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
    return [
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


def _look_like_objects(labelled: Sequence[CaseFacts]) -> bool:
    """Whether labels number objects: many values, 1 to n with another n in each, or most in one case only."""
    values = [sorted(v for v in f.label_voxels or {} if v > 0) for f in labelled]
    highest = [v[-1] if v else 0 for v in values]
    if len(set().union(*values)) > _MANY_CLASSES:
        return True
    consecutive = all(len(v) == n for v, n in zip(values, highest, strict=True))
    if consecutive and len(set(highest)) > 1 and max(highest) > _FEW_CLASSES:
        return True
    cases_with = Counter(value for of_case in values for value in of_case)
    once = sum(count == 1 for count in cases_with.values())
    return len(labelled) > 1 and once > _FEW_CLASSES and once > len(cases_with) / 2


def _objects(labelled: Sequence[CaseFacts]) -> Problem:
    counts = [sum(value > 0 for value in f.label_voxels or {}) for f in labelled]
    return Problem(
        severity="error",
        case="",
        where="labels",
        found=f"{min(counts)} to {max(counts)} values above 0 in a label, as if objects were numbered",
        rule="A class has the same value in every label; numbered objects are learned as label > 0",
        remedy="Say which it is: --label-kind instances for numbered objects, or --label-kind classes",
    )


def _rare_values(labelled: Sequence[CaseFacts]) -> list[Problem]:
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
