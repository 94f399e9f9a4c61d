"""Post-processing chosen on validation cases, class by class.

Source: nnU-Net (Isensee et al. 2021, "Empirical parameters"; `determine_postprocessing`): first all that is
no background as one, then each class; a change is made only where it raises the mean Dice and lowers that of
no class. We differ in that noise removal by Otsu is tried too, that a class which neither mask nor label has
counts as 1 rather than nothing, and that cases are those of one split, in the store's geometry.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.labels import IGNORED, LabelTable
from ..data.settings import write_yaml
from ..data.store import Store
from .checkpoint import load
from .components import Keep, kept
from .metrics import dice
from .postprocess import POSTPROCESS, ClassRules, PostprocessConfig, class_values, only_foreground
from .predict import Model, Predictor
from .training import choose_device

# of equals the first is chosen
_KEEPS: tuple[Keep, ...] = ("all", "largest", "otsu")
# mean Dice over cases of each class, (classes,), by what is kept of the foreground and of the class
_Scores = dict[tuple[Keep, Keep], np.ndarray]


def write_choice(run: Path, store: Store, cases: Sequence[str], device: str) -> PostprocessConfig:
    """Chooses what is done to the masks of a finished run, on its validation cases, and writes it there."""
    checkpoint = load(run)
    network = checkpoint.network().to(choose_device(device))
    predictor = Predictor(models=(Model(network=network, plan=checkpoint.info.plan),))
    chosen, evidence = choose_postprocess(store, cases, predictor)
    write_yaml(run / POSTPROCESS, chosen, "\n".join(evidence))
    return chosen


def choose_postprocess(
    store: Store, cases: Sequence[str], predictor: Predictor
) -> tuple[PostprocessConfig, tuple[str, ...]]:
    """What raises the mean Dice of validation cases and lowers that of no class; and the scores, in words."""
    table = store.plan.labels or LabelTable()
    each = [
        _scores_of(predictor.classes(store.image(case)[:]), store.label(case)[:], table) for case in cases
    ]
    scores = {left: np.mean([of_case[left] for of_case in each], axis=0) for left in each[0]}
    foreground = _best_foreground(scores)
    best: list[Keep] = [_best_of_class(scores, foreground, n) for n in range(table.classes - 1)]
    classes = {
        value: ClassRules(keep=keep)
        for value, keep in zip(class_values(table), best, strict=True)
        if keep != "all"
    }
    return PostprocessConfig(foreground=foreground, classes=classes), _told(scores, len(cases), table)


def _best_foreground(scores: _Scores) -> Keep:
    before = scores["all", "all"]
    after = [scores[keep, "all"] for keep in _KEEPS]
    means = [found.mean() if (found >= before).all() else -1.0 for found in after]
    return _KEEPS[int(np.argmax(means))]


def _best_of_class(scores: _Scores, foreground: Keep, n: int) -> Keep:
    found = [scores[foreground, keep][n] for keep in _KEEPS]
    return _KEEPS[int(np.argmax(found))]


def _told(scores: _Scores, cases: int, table: LabelTable) -> tuple[str, ...]:
    values = ", ".join(map(str, class_values(table)))
    return (
        f"Chosen on the {cases} validation cases; see docs/postprocessing.md.",
        f"Mean Dice of the classes {values} where these components are kept:",
        *(
            f"  foreground {foreground}, class {keep}: {' '.join(f'{score:.4f}' for score in found)}"
            for (foreground, keep), found in scores.items()
        ),
    )


def _scores_of(predicted: np.ndarray, true: np.ndarray, table: LabelTable) -> _Scores:
    """Dice of each class of one case, whichever components are kept."""
    ignored = (true == IGNORED).any(axis=0) if table.kind == "overlapping" else true == IGNORED
    scores = {}
    for foreground in _KEEPS:
        left = only_foreground(predicted, foreground, table)
        for keep in _KEEPS:
            scores[foreground, keep] = np.array(
                [
                    _dice(kept(table.members(left, c), keep) & ~ignored, table.members(true, c))
                    for c in range(1, table.classes)
                ]
            )
    return scores


def _dice(predicted: np.ndarray, true: np.ndarray) -> float:
    score = dice(predicted, true)
    return 1.0 if score is None else score
