"""From a volume to a mask in the volume's own geometry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from ..data.errors import UserError
from ..data.formats.files import write_like
from ..data.labels import LabelKind, LabelTable
from ..data.plan import Plan
from ..data.preprocess import preprocess
from ..data.resample import resample
from ..data.settings import settings
from ..data.volume import Volume
from .networks.network import Network
from .sliding_window import stitch

# what makes the values that are written of class numbers (Z, Y, X), or (K, Z, Y, X) of 0 and 1
Finish = Callable[[np.ndarray, Volume], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained network with the plan it was trained on."""

    network: Network
    plan: Plan


@settings
class PredictConfig:
    """How volumes are predicted.

    `overlap` is the least share of a window's extent that lies in the next one. With `mirror` the output is
    the mean over the eight flips of the three axes. A voxel is of a class whose probability is above
    `threshold` where classes overlap (None: 0.5) or there is one beside the background (None: the likelier
    of the two). `batch` is the number of windows at once, chosen when
    None. `memory_gib` is what a prediction may take in memory, in GiB; None: what is free.
    """

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    mirror: bool = False
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    batch: Annotated[int, Field(ge=1)] | None = None
    memory_gib: Annotated[float, Field(gt=0)] | None = None


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Trained networks whose probabilities are averaged, each with the plan it was trained on.

    Raises UserError where they differ in classes or channels.
    """

    models: tuple[Model, ...]
    config: PredictConfig = PredictConfig()

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("a prediction has at least one model")
        for model in self.models[1:]:
            _refuse_unlike(self.models[0].plan, model.plan)
        _refuse_threshold(self.config, self.models[0].plan)

    @torch.inference_mode()
    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Class probabilities (K, Z, Y, X) float32 of a preprocessed image (C, Z, Y, X), by a single model.

        They sum to 1, the background first; where classes may overlap, each channel has its own and there is
        none for the background.
        """
        (model,) = self.models
        return self._by(model, image)

    def _by(self, model: Model, image: np.ndarray) -> np.ndarray:
        device = next(model.network.parameters()).device
        model.network.eval()
        logits = stitch(
            lambda window: model.network(window.to(device)),
            torch.from_numpy(image).float(),
            model.plan.training.patch,
            overlap=self.config.overlap,
        )
        return (logits.sigmoid() if self._overlapping else logits.softmax(dim=0)).numpy()

    def classes(self, image: np.ndarray) -> np.ndarray:
        """Class numbers (Z, Y, X) of a preprocessed image; (K, Z, Y, X) of 0 and 1 where they may overlap."""
        return self.chosen(self.probabilities(image))

    def chosen(self, probabilities: np.ndarray) -> np.ndarray:
        """Class numbers of probabilities: the likeliest, or those above the threshold where they overlap."""
        threshold = self.config.threshold
        if self._overlapping:
            return (probabilities > (threshold or 0.5)).astype(np.uint8)
        if threshold is not None:
            return (probabilities[1] > threshold).astype(np.uint8)
        return probabilities.argmax(axis=0).astype(np.min_scalar_type(len(probabilities) - 1))

    @torch.inference_mode()
    def probabilities_of(self, volume: Volume, where: object) -> np.ndarray:
        """Class probabilities (K, Z, Y, X) float32 of a volume as read, on its own voxels.

        Probabilities, not classes, are interpolated, so that borders stay where they were.
        """
        each = (
            resample(self._by(m, preprocess(volume, m.plan.preprocessing, where)), volume.shape)
            for m in self.models
        )
        total = next(each)
        for other in each:
            total += other
        total /= len(self.models)
        return total

    def mask(self, volume: Volume, where: object) -> np.ndarray:
        """The label map of a volume as read, in the values of the user's own labels.

        (Z, Y, X), or (K, Z, Y, X) of 0 and 1 where classes may overlap.
        """
        return self._table.decode(self.chosen(self.probabilities_of(volume, where)))

    def write_mask(
        self,
        volume: Volume,
        where: object,
        out: Path,
        maps: Path | None = None,
        finish: Finish | None = None,
    ) -> None:
        """Writes the mask of a volume to `out`, in the format and geometry of its source.

        Its probabilities, float32 (K, Z, Y, X), are written to `maps` where that is given; `finish` makes
        its values of the class numbers, in the type that they need; those of the labels when None.
        """
        table = self._table
        probabilities = self.probabilities_of(volume, where)
        out.parent.mkdir(parents=True, exist_ok=True)
        if maps is not None:
            write_like(maps, probabilities, volume.source)
        numbers = self.chosen(probabilities)
        write_like(out, finish(numbers, volume) if finish else table.decode(numbers), volume.source)

    @property
    def _table(self) -> LabelTable:
        labels = self.models[0].plan.labels
        if labels is None:
            raise ValueError("the plan has no label table; only a fine-tuned model predicts masks")
        return labels

    @property
    def _overlapping(self) -> bool:
        return kind_of(self.models[0].plan) == "overlapping"


def kind_of(plan: Plan) -> LabelKind:
    """What a plan's labels are; "classes" without any."""
    return plan.labels.kind if plan.labels else "classes"


def _refuse_unlike(first: Plan, other: Plan) -> None:
    for name, a, b in (
        ("channels", first.preprocessing.channels, other.preprocessing.channels),
        ("labels", _meaning(first), _meaning(other)),
    ):
        if a != b:
            raise UserError(
                "models of one prediction",
                found=f"{name} {a} in one and {b} in another",
                rule="Models that are averaged have the same channels and classes",
                remedy="Predict with each of them into a folder of its own",
            )


def _refuse_threshold(config: PredictConfig, plan: Plan) -> None:
    if config.threshold is not None and plan.labels is not None and not _takes_threshold(plan.labels):
        raise UserError(
            f"threshold {config.threshold}",
            found=f"{plan.labels.classes - 1} classes of which a voxel has one",
            rule="A threshold decides where classes may overlap, or where there is one beside the background",
            remedy="Leave it out: each voxel gets its likeliest class",
        )


def _takes_threshold(labels: LabelTable) -> bool:
    return labels.kind == "overlapping" or labels.classes == 2


def _meaning(plan: Plan) -> tuple[object, ...]:
    return (plan.labels.kind, plan.labels.values) if plan.labels else ()
