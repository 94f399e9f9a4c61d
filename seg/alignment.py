"""Which level of a network answers to which level of the one its weights come from.

Levels are aligned by what they see: the spacing of a level is that of the volumes times the strides above
it, and of all whole shifts of one network's levels against the other's that one is taken which brings the
spacings nearest, axis by axis. A filter then meets structures of the size it was trained on. Where spacings
hardly differ a shift costs more than it gives, as features double from level to level.
"""

# Shapes: L = levels.

from dataclasses import dataclass

import numpy as np

from ..data.plan import Preprocessing
from ..data.units import factor
from ..data.volume import Triple
from .networks.topology import Topology
from .source import Contract

# levels are only shifted where unshifted ones differ by this factor: nearer ones see nearly the same
WORTH_A_SHIFT = 1.5
# levels that no shift brings nearer than this factor (MRI in mm, microscopy in um) see nothing alike
ALIKE = 2.0


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Level i of `ours` answers to level i + `shift` of `theirs` levels; `note` tells by which rule."""

    ours: int
    theirs: int
    shift: int
    note: str

    def level(self, block: str) -> int:
        """The level here, 0 the finest, of "encoder.0", "decoder.0" (the coarsest) or "output"."""
        part, _, index = block.partition(".")
        if part == "output":
            return 0
        return int(index) if part == "encoder" else self.ours - 2 - int(index)

    def counterpart(self, block: str) -> str | None:
        """The block there that answers to one here; None where it has none."""
        part, level = block.partition(".")[0], self.level(block) + self.shift
        if part == "output":
            return block if level == 0 else None
        coarsest = self.theirs - 1 if part == "encoder" else self.theirs - 2
        if not 0 <= level <= coarsest:
            return None
        return f"{part}.{level if part == 'encoder' else coarsest - level}"

    def missing(self, block: str) -> str:
        """Why a block has no counterpart."""
        if block == "output":
            return "the finest levels do not answer to each other"
        way = "fine" if self.level(block) + self.shift < 0 else "coarse"
        return f"the checkpoint has no level as {way} as this one"


def align(ours: Topology, volumes: Preprocessing, theirs: Topology, contract: Contract) -> Alignment:
    """How the levels of a network for `volumes` answer to those of one trained under `contract`.

    The finest levels answer to each other where a spacing is unknown, and where no shift that leaves half of
    the smaller network's levels a counterpart brings the spacings within a factor of `ALIKE`.
    """
    here, there = _spacing(volumes), _spacing(contract.preprocessing, known="spacing" not in contract.unknown)
    unknown = [side for side, spacing in (("here", here), ("there", there)) if spacing is None]
    sizes = {"ours": len(ours.features), "theirs": len(theirs.features)}
    if here is None or there is None:
        told = f"finest with finest: the spacing is unknown {' and '.join(unknown)}"
        return Alignment(**sizes, shift=0, note=f"levels aligned {told}")
    a, b = _levels(ours, here), _levels(theirs, there)
    shift = _nearest(a, b)
    if shift is None:
        told = f"{_told(here)} here and {_told(there)} there are too far apart"
        return Alignment(**sizes, shift=0, note=f"levels aligned finest with finest: {told}")
    i, j = max(0, -shift), max(0, shift)
    pair = f"level {i} here ({_told(here, a[i])}) is level {j} there ({_told(there, b[j])})"
    return Alignment(**sizes, shift=shift, note=f"levels aligned by resolution: {pair}")


def _spacing(volumes: Preprocessing | None, *, known: bool = True) -> tuple[Triple, str] | None:
    if volumes is None or volumes.spacing is None or volumes.unit is None or not known:
        return None
    return volumes.spacing, volumes.unit


def _levels(topology: Topology, spacing: tuple[Triple, str]) -> np.ndarray:
    """Spacings (L, 3) of the levels in metres, finest first."""
    strides = np.cumprod([(1, 1, 1), *topology.strides], axis=0)
    return strides * np.array(spacing[0]) * factor(spacing[1], "m")


def _nearest(ours: np.ndarray, theirs: np.ndarray) -> int | None:
    """The shift that brings spacings (L, 3) nearest; None where none brings them near."""
    half = min(len(ours), len(theirs)) / 2
    distances = {}
    for shift in range(-len(ours) + 1, len(theirs)):
        a, b = ours[max(0, -shift) :], theirs[max(0, shift) :]
        n = min(len(a), len(b))
        if n >= half:
            # rounded: of equal distances the smallest shift is taken
            distances[shift] = round(float(np.abs(np.log2(a[:n] / b[:n])).mean()), 6)
    best = min(distances, key=lambda shift: (distances[shift], abs(shift)))
    if distances[best] >= np.log2(ALIKE):
        return None
    return best if distances[0] >= round(float(np.log2(WORTH_A_SHIFT)), 6) else 0


def _told(spacing: tuple[Triple, str], level: np.ndarray | None = None) -> str:
    values = spacing[0] if level is None else level / factor(spacing[1], "m")
    return f"{' x '.join(f'{v:.3g}' for v in values)} {spacing[1]}"
