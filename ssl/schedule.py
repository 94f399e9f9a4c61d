"""How far a training has gone on its way from a start to an end, and numbers that follow."""

import math
from typing import Annotated, Literal

from pydantic import Field

from ..data.settings import settings


@settings
class Course:
    """In which way a training goes from a start to an end.

    `cosine` is slow at both ends. `polynomial` leaves (1 - t) ** `power` of the way to go at the share t of
    the training: a power above 1 makes the start fast and the end slow, one below 1 the other way round.
    """

    shape: Literal["linear", "cosine", "polynomial"] = "linear"
    power: Annotated[float, Field(gt=0, le=10)] = 2.0

    def passed(self, progress: float) -> float:
        """The share of the way that is behind at the share `progress` of the training: 0 to 1."""
        if self.shape == "cosine":
            return (1 - math.cos(math.pi * progress)) / 2
        return 1 - (1 - progress) ** (self.power if self.shape == "polynomial" else 1)


@settings
class Schedule(Course):
    """A number that goes from `start` to `end` over the training."""

    start: float
    end: float

    def at(self, progress: float) -> float:
        """The number at the share `progress` of the training."""
        return self.start + (self.end - self.start) * self.passed(progress)
