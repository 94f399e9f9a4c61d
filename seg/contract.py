"""Whether volumes are prepared for a network as those were that it was trained on.

Compared are spacing, orientation, what channels mean, and what is done to their grey values. Interpolation is
not: it follows from the spacing. More channels or fewer are no mismatch, nor are the same names in another
order, as a transfer adapts the weights to both.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ..data.plan import SPACING_TOLERANCE, Plan, Preprocessing, Window
from ..data.units import factor
from ..data.volume import Shape, Triple, is_named
from .channels import counterparts
from .checkpoint import Checkpoint
from .source import Contract, Open, source_of
from .transfer import TransferError
from .transfer_report import Mismatch

# standard deviations that a grey value may come to lie from where the other CT window puts it
WINDOW_TOLERANCE = 0.05
# a patch so many times as long shows surroundings that the network never saw, or lacks those it learned from
PATCH_RATIO = 2.0
# Volumes can be resampled to voxels so many times as long before too little of them is left ...
_MAX_LOST = 4.0
# ... and to voxels so many times as short before most of them is invented: thick slices are not rare.
_MAX_INVENTED = 8.0
NOT_TOLD = "not told"
_Words = Callable[[Preprocessing], str]
_Differences = Callable[[Preprocessing, Preprocessing], list[Mismatch]]


def check(contract: Contract, plan: Plan, where: str | Path, *, accept: bool) -> tuple[Mismatch, ...]:
    """What differs between the volumes of a source and those of `plan`, where that is accepted.

    Raises TransferError with all of it and the ways out where it is not.
    """
    found = mismatches(contract, plan)
    if found and not accept:
        raise _refusal(where, found, ways_out(contract, plan))
    return found


def check_preprocessing(checkpoint: Checkpoint, plan: Plan) -> None:
    """Raises TransferError unless a checkpoint's network can be shown volumes of `plan` as it is.

    Nothing adapts its weights, so that channels have to be those it was trained on, in their order.
    """
    contract = source_of(checkpoint).contract
    theirs, ours = checkpoint.info.plan.preprocessing, plan.preprocessing
    found = mismatches(contract, plan)
    in_place = tuple((c,) for c in range(len(theirs.channels)))
    if channels_of(theirs, ours) != in_place and all(m.what != "channels" for m in found):
        found = (*found, Mismatch(what="channels", theirs=_channels(theirs), ours=_channels(ours)))
    if found:
        remedy = "Prepare a store with its plan: `fewvox prepare DATA --from-checkpoint RUN --out NEW`"
        raise _refusal(checkpoint.path, found, remedy)


def _refusal(where: str | Path, found: tuple[Mismatch, ...], remedy: str) -> TransferError:
    return TransferError(
        where,
        found="\n".join(["its volumes were prepared otherwise", *lines(found)]) + "\n",
        rule="Volumes are prepared alike before and after the hand-off, or a gain turns into a loss",
        remedy=remedy,
    )


def lines(found: tuple[Mismatch, ...]) -> list[str]:
    """Mismatches as a person reads them, a line for each."""
    return [f"  {m.what}: {m.theirs} there, {m.ours} here" for m in found]


def ways_out(contract: Contract, plan: Plan) -> str:
    """What can be done about mismatches: adopt how the source was prepared where one can, or accept them."""
    accept = "with --accept-mismatch, which stands in the transfer report"
    theirs = contract.preprocessing
    if theirs is None or contract.unknown:
        return f"Find out how its volumes were prepared, prepare yours so, and fine-tune {accept}"
    if not is_adoptable(theirs, plan.preprocessing):
        return (
            f"The voxel sizes are too far apart to prepare your volumes at {_spacing(theirs)}: take weights "
            f"from a pretraining on volumes more like yours, or fine-tune {accept}"
        )
    return (
        "Prepare your volumes as its own were (`fewvox prepare DATA --from-checkpoint RUN --out NEW`), or "
        f"fine-tune on them as they are {accept}"
    )


def mismatches(contract: Contract, plan: Plan) -> tuple[Mismatch, ...]:
    """All that differs between the volumes of a source and those of `plan`, or that cannot be checked."""
    found: list[Mismatch] = []
    for what, (words, differences) in _ASPECTS.items():
        if contract.preprocessing is None or what in contract.unknown:
            found.append(Mismatch(what=what, theirs=NOT_TOLD, ours=words(plan.preprocessing)))
        else:
            found += differences(contract.preprocessing, plan.preprocessing)
    return tuple(found)


def patch_warning(contract: Contract, plan: Plan) -> str | None:
    """A warning where a patch shows much more or less of the world than in pretraining, else None."""
    theirs, ours = contract.preprocessing, plan.preprocessing
    if theirs is None or contract.patch is None or {"patch", "spacing"} & {*contract.unknown}:
        return None
    scale = scales(theirs, ours)
    if scale is None:
        return None
    ratios = [p * s / q for p, q, s in zip(plan.training.patch, contract.patch, scale, strict=True)]
    if max(*ratios, *(1 / r for r in ratios)) <= PATCH_RATIO:
        return None
    most = max(ratios, key=lambda r: max(r, 1 / r))
    return (
        f"patch: {_extent(contract.patch, theirs)} there, {_extent(plan.training.patch, ours)} here, up to "
        f"{_times(most, 'larger', 'smaller')}: the network sees other surroundings than it learned from "
        "(--set patch=[Z,Y,X] changes it)"
    )


def scales(theirs: Preprocessing, ours: Preprocessing) -> Triple | None:
    """Our spacing (z, y, x) in multiples of theirs; None where one of them is unknown or has no unit."""
    if theirs.spacing is None and ours.spacing is None:
        return 1.0, 1.0, 1.0
    if theirs.spacing is None or ours.spacing is None or (theirs.unit is None) != (ours.unit is None):
        return None
    f = factor(ours.unit, theirs.unit) if ours.unit and theirs.unit else 1.0
    z, y, x = (f * a / b for a, b in zip(ours.spacing, theirs.spacing, strict=True))
    return z, y, x


def is_adoptable(theirs: Preprocessing, ours: Preprocessing) -> bool:
    """Whether volumes of our spacing can be resampled to theirs and still show what they are of."""
    scale = scales(theirs, ours)
    return scale is None or all(1 / _MAX_LOST <= s <= _MAX_INVENTED for s in scale)


def channels_of(theirs: Preprocessing, ours: Preprocessing) -> tuple[tuple[int, ...], ...]:
    """For each of our channels the places of those of theirs that its weights are made of in a transfer."""
    return counterparts(ours.channels, theirs.channels, len(theirs.channels)).places


def _spacing(how: Preprocessing) -> str:
    return "unknown" if how.spacing is None else f"{_by(how.spacing)} {how.unit or '(no unit)'}"


def _other_spacing(theirs: Preprocessing, ours: Preprocessing) -> list[Mismatch]:
    scale = scales(theirs, ours)
    if scale is not None and all(abs(s - 1) <= SPACING_TOLERANCE for s in scale):
        return []
    told = ""
    if scale is not None:
        told = f" ({_times(max(scale, key=lambda s: max(s, 1 / s)), 'coarser', 'finer')})"
    return [Mismatch(what="spacing", theirs=_spacing(theirs), ours=_spacing(ours) + told)]


def _orientation(how: Preprocessing) -> str:
    return {"RAS": "axes turned to RAS", "stored": "axes as stored in the files"}[how.orientation]


def _other_orientation(theirs: Preprocessing, ours: Preprocessing) -> list[Mismatch]:
    if theirs.orientation == ours.orientation:
        return []
    return [Mismatch(what="orientation", theirs=_orientation(theirs), ours=_orientation(ours))]


def _channels(how: Preprocessing) -> str:
    return ", ".join(how.channels)


def _other_channels(theirs: Preprocessing, ours: Preprocessing) -> list[Mismatch]:
    """Channels without a name say nothing; a side may have more, but not each what the other lacks."""
    a, b = ({name.casefold() for name in how.channels if is_named(name)} for how in (theirs, ours))
    if not a or not b or a <= b or b <= a:
        return []
    return [Mismatch(what="channels", theirs=_channels(theirs), ours=_channels(ours))]


def _normalisation(how: Preprocessing) -> str:
    schemes = [_scheme(how, c) for c in range(len(how.channels))]
    return schemes[0] if len(set(schemes)) == 1 else ", ".join(schemes)


def _scheme(how: Preprocessing, channel: int) -> str:
    window = _window(how, channel)
    told = (
        f" from {window.low:g} to {window.high:g}, mean {window.mean:g}, std {window.std:g}" if window else ""
    )
    return how.normalisation[channel] + told


def _other_normalisation(theirs: Preprocessing, ours: Preprocessing) -> list[Mismatch]:
    found = []
    for c, of_theirs in enumerate(channels_of(theirs, ours)):
        other = [t for t in of_theirs if not _alike(theirs, t, ours, c)]
        if other:
            what = "normalisation" if len(ours.channels) == 1 else f"normalisation of {ours.channels[c]}"
            found.append(Mismatch(what=what, theirs=_scheme(theirs, other[0]), ours=_scheme(ours, c)))
    return found


def _alike(theirs: Preprocessing, t: int, ours: Preprocessing, c: int) -> bool:
    if theirs.normalisation[t] != ours.normalisation[c]:
        return False
    a, b = _window(theirs, t), _window(ours, c)
    return a == b or (a is not None and b is not None and windows_apart(a, b) <= WINDOW_TOLERANCE)


def _window(how: Preprocessing, channel: int) -> Window | None:
    return how.windows[channel] if how.windows else None


def windows_apart(a: Window, b: Window) -> float:
    """How far at most one grey value comes to lie apart through two windows, in standard deviations."""
    # both are straight lines between these values, and flat beyond them
    values = np.array([a.low, a.high, b.low, b.high])
    through = [(values.clip(w.low, w.high) - w.mean) / w.std for w in (a, b)]
    return float(np.abs(through[0] - through[1]).max())


def _extent(patch: Shape, how: Preprocessing) -> str:
    if how.spacing is None:
        return f"{_by(patch)} voxels"
    return f"{_by(n * s for n, s in zip(patch, how.spacing, strict=True))} {how.unit or '(no unit)'}"


def _times(ratio: float, more: str, less: str) -> str:
    """0.15 with "coarser" and "finer" as "6.7 times finer"."""
    times = max(ratio, 1 / ratio)
    return f"{f'{times:.3g}' if times < 100 else f'{times:,.0f}'} times {more if ratio > 1 else less}"


def _by(values: Iterable[float]) -> str:
    return " x ".join(f"{v:.4g}" for v in values)


# of each aspect how it is told, and what differs
_ASPECTS: dict[Open, tuple[_Words, _Differences]] = {
    "spacing": (_spacing, _other_spacing),
    "orientation": (_orientation, _other_orientation),
    "channels": (_channels, _other_channels),
    "normalisation": (_normalisation, _other_normalisation),
}
