"""How good a network is while it learns, on the cases that validate."""

from ..data.labels import IGNORED, LabelTable
from ..data.plan import Plan
from ..data.store import Store
from .metrics import dice
from .networks.network import Network
from .predict import Model, Predictor


class Validator:
    """Dice on whole validation volumes, in the store's geometry; "score" is the mean over classes."""

    def __init__(self, store: Store, cases: tuple[str, ...], plan: Plan, network: Network) -> None:
        self.store, self.cases, self.table = store, cases, plan.labels or LabelTable()
        self.predictor = Predictor(models=(Model(network=network, plan=plan),))

    def __call__(self) -> dict[str, float]:
        """Mean Dice per class over the cases where it is defined, each over its annotated voxels."""
        found: dict[int, list[float]] = {c: [] for c in range(1, self.table.classes)}
        for case in self.cases:
            true = self.store.label(case)[:]
            predicted = self.predictor.classes(self.store.image(case)[:])
            predicted[true == IGNORED] = 0
            for c, values in found.items():
                score = dice(self.table.members(predicted, c), self.table.members(true, c))
                values += [score] if score is not None else []
        means = {f"dice/{c}": sum(v) / len(v) for c, v in found.items() if v}
        return {"score": sum(means.values()) / len(means), **means} if means else {}
