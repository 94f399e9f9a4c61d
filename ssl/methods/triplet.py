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
from ...seg.networks.network import Network
from ...seg.networks.registry import Architecture
from ..heads import EmbeddingHead
from ..method import PretextResult, Views, ViewSpec, register_method


@settings
class TripletConfig:
    """`margin` is in squared distance of unit vectors, the paper's 0.2.

    `blocks` names the features that are embedded; every level of the decoder when None.
    """

    margin: Annotated[float, Field(gt=0, le=4)] = 0.2
    hidden: Annotated[int, Field(ge=1)] = 256
    dimension: Annotated[int, Field(ge=2)] = 64
    blocks: tuple[str, ...] | None = None


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
class Triplet(nn.Module):
    """Two views of one volume attract, other volumes repel."""

    views = ViewSpec(global_views=1, local_views=1, volumes=2)
    # with 3e-3, which suits the other tasks, the loss does not leave the margin (hippocampi, 40 steps)
    adamw_lr = 1e-3

    def __init__(self, network: Network, heads: nn.Module, config: TripletConfig) -> None:
        super().__init__()
        self.network, self.head, self.config = network, heads, config

    @staticmethod
    def heads(architecture: Architecture, config: TripletConfig) -> nn.Module:
        """The embedding head."""
        return EmbeddingHead(architecture, config.blocks, config.hidden, config.dimension)

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002 (every method gets it)
        """The loss of both directions: each view is the anchor once."""
        first, second = batch.views
        alike = first.shape == second.shape
        # together, so that the head takes the mean over all of them off
        both = self.embed(torch.cat(batch.views)) if alike else self.embed(first, second)
        first_BD, second_BD = both.chunk(2)
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

    def after_step(self, step: int) -> None:
        """Nothing follows an update: there is no teacher."""

    def exported_network(self) -> Network:
        """The network that the loss trains."""
        return self.network
