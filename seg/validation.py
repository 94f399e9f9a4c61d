"""How good a network is while it learns, on the cases that validate."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.augment.chain import preset
from ..data.labels import IGNORED, LabelTable
from ..data.loader import PatchConfig, PatchSampler
from ..data.plan import Plan
from ..data.store import Store
from .engine.memory import told_in_validation
from .metrics import dice
from .networks.network import Network
from .predict import Model, Predictor

# as many as 16 cases have one each
_PATCHES = 16


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A slice (1, Y, X) of a case, with what is true and what was predicted: also (K, 1, Y, X)."""

    case: str
    image: np.ndarray
    true: np.ndarray
    predicted: np.ndarray


class Validator:
    """Dice on whole validation volumes, in the store's geometry; "score" is the mean over classes.

    `seen` is a slice of the first case as it was predicted last.
    """

    def __init__(self, store: Store, cases: tuple[str, ...], plan: Plan, network: Network) -> None:
        self.store, self.cases, self.table = store, cases, plan.labels or LabelTable()
        self.predictor = Predictor(models=(Model(network=network, plan=plan),))
        self.seen: Slice | None = None

    def __call__(self) -> dict[str, float]:
        """Mean Dice per class over the cases where it is defined, each over its annotated voxels."""
        found: dict[int, list[float]] = {c: [] for c in range(1, self.table.classes)}
        for case in self.cases:
            with told_in_validation(case):
                image, true = self.store.image(case)[:], self.store.label(case)[:]
                predicted = self.predictor.classes(image)
            predicted[true == IGNORED] = 0
            if case == self.cases[0]:
                self.seen = fullest_slice(case, image[0], true, predicted)
            for c, values in found.items():
                score = dice(self.table.members(predicted, c), self.table.members(true, c))
                values += [score] if score is not None else []
        means = {f"dice/{c}": sum(v) / len(v) for c, v in found.items() if v}
        return {"score": sum(means.values()) / len(means), **means} if means else {}


class PatchValidator:
    """Dice on patches of the validation cases, always the same ones: cheap, and no measure of a volume.

    Half of the patches are centred on foreground. The voxels of all are counted together. No checkpoint is
    chosen by it.
    """

    def __init__(self, store: Store, cases: tuple[str, ...], plan: Plan, network: Network, seed: int) -> None:
        self.network, self.table = network, plan.labels or LabelTable()
        batch = plan.training.batch
        self.batches = math.ceil(_PATCHES / batch)
        self.sampler = PatchSampler(
            store, cases, plan.training.patch, batch, PatchConfig(augment=preset("none")), seed
        )

    def __call__(self) -> dict[str, float]:
        """Dice of each class that is there or predicted, and under "dice" their mean."""
        counts = np.sum([self._counted(index) for index in range(self.batches)], axis=0)
        scores = {
            f"dice/{c}": 2 * both / total for c, (both, total) in enumerate(counts.tolist(), start=1) if total
        }
        return {"dice": sum(scores.values()) / len(scores), **scores} if scores else {}

    @torch.inference_mode()
    def _counted(self, index: int) -> np.ndarray:
        """Of each class of a batch (K, 2): voxels that truth and prediction share, and the sum of theirs."""
        batch = self.sampler.batch(index)
        logits = self.network.eval()(batch.images.to(next(self.network.parameters()).device))
        counts = np.zeros((self.table.classes - 1, 2), int)
        for item, labels in zip(logits, batch.labels.numpy(), strict=True):
            counts += shared_voxels(item, labels, self.table)
        return counts


def shared_voxels(logits: Tensor, labels: np.ndarray, table: LabelTable) -> np.ndarray:
    """Of each class (K, 2): voxels that labels and prediction share, and the sum of both, where annotated.

    `logits` and `labels` are of a piece, (K, Z, Y, X) and (Z, Y, X), or both (K, Z, Y, X) where classes
    overlap. Twice the first by the second is the Dice of what pieces have together.
    """
    predicted = classes_of(logits, table)
    predicted[labels == IGNORED] = 0
    counts = np.zeros((table.classes - 1, 2), int)
    for c in range(1, table.classes):
        true, found = table.members(labels, c), table.members(predicted, c)
        counts[c - 1] = np.count_nonzero(true & found), np.count_nonzero(true) + np.count_nonzero(found)
    return counts


def classes_of(logits: Tensor, table: LabelTable) -> np.ndarray:
    """Class numbers (Z, Y, X) of logits (K, Z, Y, X); (K, Z, Y, X) of 0 and 1 where classes overlap."""
    chosen = logits > 0 if table.kind == "overlapping" else logits.argmax(dim=0)
    return chosen.cpu().numpy().astype(np.int16)


def fullest_slice(case: str, image: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> Slice:
    """The slice of an image (Z, Y, X) that has most of the true foreground; that alone is kept."""
    foreground = (true > 0).reshape(-1, *image.shape).any(axis=0).sum(axis=(1, 2))
    # of several as full ones the middle
    fullest = np.flatnonzero(foreground == foreground.max())
    middle = int(fullest[len(fullest) // 2])
    z = slice(middle, middle + 1)
    image, true, predicted = (array[..., z, :, :].copy() for array in (image, true, predicted))
    return Slice(case=case, image=image, true=true, predicted=predicted)
