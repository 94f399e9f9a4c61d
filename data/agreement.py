"""Where the cases of a data set do not fit each other."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from .fingerprint import CaseFacts
from .geometry import short
from .problems import Problem

# this many times off the median of the data set is a mix-up, not another protocol
_OUTLIER = 20.0


def disagreements(facts: Sequence[CaseFacts]) -> list[Problem]:
    """Problems of channels, orientations, spacings, units, copies, and cases unlike all others."""
    return [
        *_odd_channels(facts),
        *_mixed_orientations(facts),
        *_odd_spacings(facts),
        *_copies(facts),
        *_unlike_others(facts),
    ]


def _odd_channels(facts: Sequence[CaseFacts]) -> list[Problem]:
    """Another number of channels or another order is an error, other names are worth a look."""
    usual = _commonest(f.channels for f in facts)
    problems = []
    for f in facts:
        if f.channels == usual:
            continue
        same = len(f.channels) == len(usual) and sorted(f.channels) != sorted(usual)
        problems.append(
            Problem(
                severity="warning" if same else "error",
                case=f.id,
                where=f.id,
                found=f"{len(f.channels)} channels ({', '.join(f.channels)})",
                rule=f"The other cases have {len(usual)} ({', '.join(usual)}), and all must have the same",
                remedy="Look whether they show the same; they are taken by their order"
                if same
                else "Add the missing channel, put them in one order, or take the case away",
            )
        )
    return problems


def _mixed_orientations(facts: Sequence[CaseFacts]) -> list[Problem]:
    """Files that know their orientation among others: as stored they fit, turned they may not."""
    oriented = [f for f in facts if f.orientation == "RAS"]
    if not oriented or len(oriented) == len(facts):
        return []
    first = next(f for f in facts if f.orientation == "stored")
    turned = [f for f in oriented if f.turned]
    if not turned:
        return [
            Problem(
                severity="warning",
                case=first.id,
                where=first.id,
                found="a file that knows no orientation",
                rule=f"{len(oriented)} other cases know theirs; all are taken as they are stored",
                remedy="Look whether all show the specimen from the same side",
            )
        ]
    return [
        Problem(
            severity="error",
            case=f.id,
            where=f.id,
            found="axes that were turned to RAS",
            rule=f"'{first.id}' knows no orientation, and what was turned does not mix with what was not",
            remedy="Convert all volumes to NIfTI with their orientation, or none",
        )
        for f in turned
    ]


def _odd_spacings(facts: Sequence[CaseFacts]) -> list[Problem]:
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
                    found=f"spacing {short(f.spacing or (0, 0, 0))} {f.unit}",
                    rule=f"It is within {_OUTLIER:g} times of the median, {short(tuple(median))} {unit}",
                    remedy="Correct the spacing or its unit in the file",
                )
            )
    return problems


def _copies(facts: Sequence[CaseFacts]) -> list[Problem]:
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


def _unlike_others(facts: Sequence[CaseFacts]) -> list[Problem]:
    """Volumes far larger or smaller than the median, and grey values of quite another scale."""
    voxels = {f.id: float(np.prod(f.shape)) for f in facts}
    problems = [_unlike(found, "voxels") for found in [_outliers(voxels)] if found]
    for c in range(min((len(f.channels) for f in facts), default=0)):
        spreads = {f.id: f.intensities[c].std for f in facts if f.intensities[c].std > 0}
        found = _outliers(spreads)
        if found:
            problems.append(_unlike(found, "grey values"))
    return problems


def _outliers(values: dict[str, float]) -> list[str]:
    if len(values) < 3:
        return []
    median = float(np.median(list(values.values())))
    return sorted(k for k, v in values.items() if not 1 / _OUTLIER <= v / median <= _OUTLIER)


def _unlike(cases: list[str], what: str) -> Problem:
    names = ", ".join(cases[:5]) + (f" and {len(cases) - 5} more" if len(cases) > 5 else "")
    found = "number of voxels" if what == "voxels" else "spread of the grey values"
    return Problem(
        severity="warning",
        case=cases[0],
        where=names,
        found=f"a {found} over {_OUTLIER:g} times off the median of the data set",
        rule=f"The {what} of a data set are alike",
        remedy="Look whether these cases belong to it; nothing to do if they do",
    )


def _commonest(values: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    listed = list(values)
    return max(sorted(set(listed)), key=listed.count, default=())
