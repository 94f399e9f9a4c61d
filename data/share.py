"""A process's share of every batch, where several train together."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """Share `index` (from 0) of `of` equal ones, of which a batch of all processes is made."""

    index: int = 0
    of: int = 1

    def items(self, step: int, size: int) -> range:
        """The numbers of this share's `size` items of the batch of a step, where step follows step."""
        first = (step * self.of + self.index) * size
        return range(first, first + size)


WHOLE = Share()
