"""How far a training is, and how good it has been: what must be remembered beside weights and optimiser."""

import math
from dataclasses import dataclass


@dataclass
class Progress:
    """Counters of a training.

    `skipped` steps gave no use, `bad_in_a_row` of them lately; `overflows` were the loss scale's fault.
    `smoothed` is the smoothed score, `best` the highest so far, `since_best` the validations after it.
    """

    step: int = 0
    skipped: int = 0
    bad_in_a_row: int = 0
    overflows: int = 0
    smoothed: float | None = None
    best: float | None = None
    since_best: int = 0

    def made(self, *, useful: bool, overflow: bool) -> None:
        """Counts a step."""
        self.step += 1
        if useful:
            self.bad_in_a_row = 0
        elif overflow:
            self.overflows += 1
        else:
            self.skipped += 1
            self.bad_in_a_row += 1

    def overflown(self) -> dict[str, float]:
        """The number of overflows by its name, where there were any."""
        return {"overflows": self.overflows} if self.overflows else {}

    def validated(self, score: float | None, smoothing: float) -> float | None:
        """Takes in a score; gives the smoothed one, or None where the score is none or not finite.

        Exponential smoothing as nnU-Net has it: `smoothing` times the old and the rest of the new. A score
        that is not finite leaves the smoothed one as it was, and counts as one that is not better.
        """
        self.since_best += 1
        if score is None or not math.isfinite(score):
            return None
        before = score if self.smoothed is None else self.smoothed
        self.smoothed = smoothing * before + (1 - smoothing) * score
        if self.best is None or self.smoothed > self.best:
            self.best, self.since_best = self.smoothed, 0
        return self.smoothed

    def stops(self, early_stop: int | None) -> bool:
        """Whether so many validations have passed without a better score."""
        return early_stop is not None and self.since_best >= early_stop
