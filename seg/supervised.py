"""The task of learning to segment from labelled patches."""

from torch import nn

from ..data.labels import LabelKind
from ..data.loader import PatchBatch
from .engine.step import StepResult
from .keeping import Keeper
from .losses import dice_cross_entropy, overlapping_dice_cross_entropy
from .networks.network import Network


class Supervised(nn.Module):
    """The task of segmenting labelled patches."""

    def __init__(self, network: Network, kind: LabelKind = "classes", keeper: Keeper | None = None) -> None:
        super().__init__()
        self.network, self.keeper = network, keeper
        self.loss = overlapping_dice_cross_entropy if kind == "overlapping" else dice_cross_entropy

    def forward(self, batch: PatchBatch, step: int) -> StepResult:  # noqa: ARG002 (every task gets it)
        """Dice and cross-entropy of the network on a batch, and what it costs to leave where it started."""
        encoded = self.network.encode(batch.images)
        logits = self.network.output(self.network.decode(encoded)[-1])
        loss, logs = self.loss(logits, batch.labels.long())
        kept = self.keeper.loss(self.network, batch.images, encoded) if self.keeper is not None else {}
        for name, term in kept.items():
            loss, logs = loss + term, {**logs, name: term.detach()}
        return StepResult(loss=loss, logs=logs)
