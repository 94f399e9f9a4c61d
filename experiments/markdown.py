"""Tables and intervals in Markdown, as recorded results have them."""

from collections.abc import Iterable, Sequence

from .results import Interval


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A line for the head, one that parts it, and one for each row."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def in_brackets(interval: Interval, sign: str = "") -> str:
    """The mean, and the interval in brackets; all with their sign where `sign` is +."""
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"
