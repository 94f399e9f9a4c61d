"""The task of learning to segment from labelled patches."""

from torch import Tensor, nn

from ..data.labels import LabelKind
from ..data.loader import PatchBatch
from .deep_supervision import Heads, labels_at
from .engine.step import StepResult
from .keeping import Keeper
from .losses import LossConfig, segmentation_loss
from .networks.network import Network


class Supervised(nn.Module):
    """The task of segmenting labelled patches.

    `heads` are those of deep supervision; they are kept in the training state, not among the weights.
    """

    def __init__(
        self,
        network: Network,
        kind: LabelKind = "classes",
        keeper: Keeper | None = None,
        *,
        loss: LossConfig | None = None,
        heads: Heads | None = None,
    ) -> None:
        super().__init__()
        self.network, self.keeper, self.heads = network, keeper, heads
        self.loss, self.overlapping = loss or LossConfig(), kind == "overlapping"

    def forward(self, batch: PatchBatch, step: int) -> StepResult:  # noqa: ARG002 (every task gets it)
        """The loss of the network on a batch, and what it costs to leave where it started."""
        encoded = self.network.encode(batch.images)
        decoded = self.network.decode(encoded)
        loss, logs = self._loss(self.network.output(decoded[-1]), batch.labels)
        if self.heads is not None:
            coarse = [self._loss(logits, batch.labels)[0] for logits in self.heads(decoded)]
            own, *weights = self.heads.weights
            added = sum(weight * term for weight, term in zip(weights, coarse, strict=True))
            loss = own * loss + added
        kept = self.keeper.loss(self.network, batch.images, encoded) if self.keeper is not None else {}
        for name, term in kept.items():
            loss, logs = loss + term, {**logs, name: term.detach()}
        return StepResult(loss=loss, logs=logs)

    def _loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return segmentation_loss(logits, labels_at(labels, logits), self.loss, overlapping=self.overlapping)
