"""From a volume to a mask in the volume's own geometry."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..data.formats.files import write_like
from ..data.plan import Plan
from ..data.preprocess import preprocess
from ..data.resample import resample
from ..data.volume import Shape, Volume
from .networks.unet import UNet
from .sliding_window import stitch


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A trained network with the plan it was trained on."""

    network: UNet
    plan: Plan
    overlap: float = 0.5

    @torch.inference_mode()
    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Class probabilities (K, Z, Y, X) float32 of a preprocessed image (C, Z, Y, X)."""
        device = next(self.network.parameters()).device
        self.network.eval()
        logits = stitch(
            lambda window: self.network(window.to(device)),
            torch.from_numpy(image),
            self.plan.training.patch,
            overlap=self.overlap,
        )
        return logits.softmax(dim=0).numpy()

    def classes(self, image: np.ndarray, shape: Shape | None = None) -> np.ndarray:
        """Class numbers (Z, Y, X) of a preprocessed image, at `shape` where that is another.

        Probabilities, not classes, are interpolated, so that borders stay where they were.
        """
        probabilities = self.probabilities(image)
        if shape is not None:
            probabilities = resample(probabilities, shape)
        return probabilities.argmax(axis=0).astype(np.min_scalar_type(len(probabilities) - 1))

    def mask(self, volume: Volume, where: object) -> np.ndarray:
        """The label map (Z, Y, X) of a volume as read, in the values of the user's own labels."""
        if self.plan.labels is None:
            raise ValueError("the plan has no label table; only a fine-tuned model predicts masks")
        image = preprocess(volume, self.plan.preprocessing, where)
        return self.plan.labels.decode(self.classes(image, volume.shape))

    def write_mask(self, volume: Volume, where: object, out: Path) -> None:
        """Writes the mask of a volume to `out`, in the format and geometry of its source."""
        out.parent.mkdir(parents=True, exist_ok=True)
        write_like(out, self.mask(volume, where), volume.source)
