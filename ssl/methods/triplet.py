"""Triplet: two views of one volume attract, other volumes repel.

Source: Schroff et al. 2015, FaceNet, https://arxiv.org/abs/1503.03832, section 3.1; on volumes as in the
Biom3d thesis (Mougeot 2023). We differ from FaceNet in that no negative is mined: every other volume of
the batch is one, and the loss is the mean over all triplets ("batch all": Hermans et al. 2017,
https://arxiv.org/abs/1703.07737, section 2, there over those above 0 only; ours rests at the margin exactly
when all embeddings are the same). We differ from the thesis in that the head pools real features of the
decoder, so that the loss reaches the whole of it.
"""

# Shapes: B = batch, D = embedding size.

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...data.settings import settings
from ..gather import gathered
from ..heads import EmbeddingConfig, EmbeddingHead
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method


@settings
class TripletConfig(EmbeddingConfig):
    """`margin` is in squared distance of unit vectors, the paper's 0.2."""

    margin: Annotated[float, Field(gt=0, le=4)] = 0.2


def triplet_losses(anchors_BD: Tensor, positives_BD: Tensor, *, margin: float) -> Tensor:
    """The hinge of every triplet, (B, B - 1): anchor i with its positive, against every other positive.

    Inputs are unit vectors; distances are squared.
    """
    distances_BB = 2 - 2 * anchors_BD @ positives_BD.T
    others = ~torch.eye(len(distances_BB), dtype=torch.bool, device=distances_BB.device)
    near_B1 = distances_BB.diagonal()[:, None]
    far = distances_BB[others].view(len(distances_BB), -1)
    return F.relu(near_B1 - far + margin)


@register_method("triplet", TripletConfig)
class Triplet(Method):
    """Two views of one volume attract, other volumes repel."""

    source = "Schroff et al. 2015, arXiv:1503.03832; Mougeot 2023 (Biom3d)"
    # with 3e-3, which suits the other tasks, the loss does not leave the margin (hippocampi, 40 steps)
    adamw_lr = 1e-3

    @staticmethod
    def views(config: TripletConfig) -> ViewSpec:  # noqa: ARG004
        """A global and a local view of each of two volumes or more."""
        return ViewSpec(global_views=1, local_views=1, volumes=2)

    @staticmethod
    def heads(scope: Scope, config: TripletConfig) -> nn.Module:
        """The embedding head."""
        return EmbeddingHead(scope.architecture, config)

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """The loss of both directions: each view is the anchor once."""
        # together, so that the head takes the mean over all of them off
        first_BD, second_BD = (gathered(z) for z in self.embed(*batch.views).chunk(2))
        margin = self.config.margin
        losses = torch.cat(
            [
                triplet_losses(first_BD, second_BD, margin=margin),
                triplet_losses(second_BD, first_BD, margin=margin),
            ]
        )
        logs = {"active_triplets": (losses.detach() > 0).float().mean()}
        return PretextResult(loss=losses.mean(), logs=logs, embeddings=first_BD)

    def embed(self, *views: Tensor) -> Tensor:
        """Unit vectors (all B, D)."""
        return F.normalize(self.head(self.network, *views), dim=1)

    def resting_loss(self) -> float:
        """The margin."""
        return self.config.margin
