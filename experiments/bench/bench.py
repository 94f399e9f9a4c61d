"""What the parts of a training take on this machine, beside what other tools that are installed take.

All data are synthetic and made anew. Ours and a peer's runs take turns in one process, and the medians are
compared: ratios say more than seconds, which are those of one machine on one day.
"""

from collections.abc import Callable

from ...data.errors import UserError
from .figure import RUNS, Figure
from .methods import method_figures
from .predict import predict_figures
from .store import store_figures
from .supply import supply_figures
from .train import train_figures

PARTS: dict[str, Callable[[int], list[Figure]]] = {
    "store": store_figures,
    "supply": supply_figures,
    "train": train_figures,
    "predict": predict_figures,
    "methods": method_figures,
}


def bench(what: str, runs: int = RUNS) -> tuple[Figure, ...]:
    """The figures of one of `PARTS`, or of "all"; raises UserError for another name."""
    if what not in (*PARTS, "all"):
        raise UserError(
            f"bench {what}",
            found="nothing of that name is measured",
            rule=f"There are: {', '.join(PARTS)}, all",
            remedy="Choose one of them",
        )
    chosen = PARTS.values() if what == "all" else [PARTS[what]]
    return tuple(figure for part in chosen for figure in part(runs))
