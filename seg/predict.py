"""From a volume to a mask in the volume's own geometry."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..data.formats.files import write_like
from ..data.labels import LabelKind, LabelTable
from ..data.plan import Plan
from ..data.preprocess import preprocess
from ..data.resample import resample
from ..data.volume import Volume
from .networks.network import Network
from .sliding_window import stitch


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A trained network with the plan it was trained on."""

    network: Network
    plan: Plan
    overlap: float = 0.5

    @torch.inference_mode()
    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Class probabilities (K, Z, Y, X) float32 of a preprocessed image (C, Z, Y, X).

        They sum to 1, the background first; where classes may overlap, each channel has its own and there is
        none for the background.
        """
        device = next(self.network.parameters()).device
        self.network.eval()
        logits = stitch(
            lambda window: self.network(window.to(device)),
            torch.from_numpy(image).float(),
            self.plan.training.patch,
            overlap=self.overlap,
        )
        return (logits.sigmoid() if self._overlapping else logits.softmax(dim=0)).numpy()

    def classes(self, image: np.ndarray) -> np.ndarray:
        """Class numbers (Z, Y, X) of a preprocessed image; (K, Z, Y, X) of 0 and 1 where they may overlap."""
        return self.chosen(self.probabilities(image))

    def chosen(self, probabilities: np.ndarray) -> np.ndarray:
        """Class numbers of probabilities: the likeliest class, or all above a half where they overlap."""
        if self._overlapping:
            return (probabilities > 0.5).astype(np.uint8)
        return probabilities.argmax(axis=0).astype(np.min_scalar_type(len(probabilities) - 1))

    def probabilities_of(self, volume: Volume, where: object) -> np.ndarray:
        """Class probabilities (K, Z, Y, X) float32 of a volume as read, on its own voxels.

        Probabilities, not classes, are interpolated, so that borders stay where they were.
        """
        image = preprocess(volume, self.plan.preprocessing, where)
        return resample(self.probabilities(image), volume.shape)

    def mask(self, volume: Volume, where: object) -> np.ndarray:
        """The label map of a volume as read, in the values of the user's own labels.

        (Z, Y, X), or (K, Z, Y, X) of 0 and 1 where classes may overlap.
        """
        return self._table.decode(self.chosen(self.probabilities_of(volume, where)))

    def write_mask(self, volume: Volume, where: object, out: Path, maps: Path | None = None) -> None:
        """Writes the mask of a volume to `out`, in the format and geometry of its source.

        Its probabilities, float32 (K, Z, Y, X), are written to `maps` where that is given.
        """
        table = self._table
        probabilities = self.probabilities_of(volume, where)
        out.parent.mkdir(parents=True, exist_ok=True)
        if maps is not None:
            write_like(maps, probabilities, volume.source)
        write_like(out, table.decode(self.chosen(probabilities)), volume.source)

    @property
    def _table(self) -> LabelTable:
        if self.plan.labels is None:
            raise ValueError("the plan has no label table; only a fine-tuned model predicts masks")
        return self.plan.labels

    @property
    def _overlapping(self) -> bool:
        return kind_of(self.plan) == "overlapping"


def kind_of(plan: Plan) -> LabelKind:
    """What a plan's labels are; "classes" without any."""
    return plan.labels.kind if plan.labels else "classes"
