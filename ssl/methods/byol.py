"""BYOL: from one view of a volume, a network predicts what its own moving average makes of another one.

Source: Grill et al. 2020, https://arxiv.org/abs/2006.07733, section 3.1: equation 2 in both directions, the
target by equation 1, its momentum as in section 3.2. The online network is what is kept, as there. We differ
from it in that the two views are a global and a local one, each predicting the other, so that one of them has
the resolution of the fine-tuning from the first step on; in that the head pools real features of the decoder,
so that the loss reaches the whole of it; in that hidden layers have layer normalisation, as means over a
batch of 2 say little (batch statistics are not what keeps BYOL from collapsing: Richemond et al. 2020,
https://arxiv.org/abs/2010.10241); and in that the momentum is scaled to the length of the training.
"""

# Shapes: B = batch of one process, N = views of all processes, D = embedding size.

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...data.settings import settings
from ...seg.networks.network import Network
from ...seg.networks.registry import Architecture
from ..ema import base_momentum, follow, momentum_at, teacher_of
from ..gather import gathered
from ..heads import EmbeddingConfig, EmbeddingHead
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method

# 1000 epochs of ImageNet in batches of 4096
MOMENTUM_OF_PAPER, STEPS_OF_PAPER = 0.996, 312_500


@settings
class ByolConfig(EmbeddingConfig):
    """`momentum` of the target after the first step, from where it rises to 1; None scales the paper's 0.996.

    The paper's projector and predictor have 4096 hidden units and 256 dimensions.
    """

    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None


def byol_loss(predictions_BD: Tensor, targets_BD: Tensor) -> Tensor:
    """Mean squared distance of unit vectors, 2 - 2 cos, shape (); from 0 to 4.

    No gradient reaches the targets.
    """
    cosines_B = F.cosine_similarity(predictions_BD.float(), targets_BD.detach().float(), dim=1)
    return (2 - 2 * cosines_B).mean()


def spread(vectors_ND: Tensor) -> Tensor:
    """How far vectors point apart, shape (): near 1 where anywhere, 0 where all the same way.

    Standard deviation of unit vectors, mean over dimensions, times sqrt(D) (Chen & He 2021, SimSiam,
    section 4.1).
    """
    unit_ND = F.normalize(vectors_ND.float(), dim=1)
    return unit_ND.std(dim=0, correction=0).mean() * unit_ND.shape[1] ** 0.5


class ByolHead(nn.Module):
    """The online network's projector, and the predictor behind it, which the target does not have."""

    def __init__(self, architecture: Architecture, config: ByolConfig) -> None:
        super().__init__()
        self.projector = EmbeddingHead(architecture, config)
        self.predictor = nn.Sequential(
            nn.Linear(config.dimension, config.hidden),
            nn.LayerNorm(config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.dimension),
        )


@register_method("byol", ByolConfig)
class Byol(Method):
    """From one view of a volume, what a slow copy of the network makes of another is predicted."""

    source = "Grill et al. 2020, arXiv:2006.07733"
    embeds = True
    # with 3e-3, the targets' spread goes down to 0.31 instead of 0.45 (24 hippocampi, 120 steps)
    adamw_lr = 1e-3
    head: ByolHead

    def __init__(self, network: Network, head: ByolHead, config: ByolConfig, scope: Scope) -> None:
        super().__init__(network, head, config, scope)
        self.target_network, self.target_projector = teacher_of(network), teacher_of(head.projector)
        scaled = base_momentum(scope.steps, MOMENTUM_OF_PAPER, STEPS_OF_PAPER)
        self.momentum = scaled if config.momentum is None else config.momentum

    @staticmethod
    def views(config: ByolConfig) -> ViewSpec:  # noqa: ARG004
        """A global and a local view of each of two volumes or more: of one, the head can take no mean off."""
        return ViewSpec(global_views=1, local_views=1, volumes=2)

    @staticmethod
    def heads(scope: Scope, config: ByolConfig) -> ByolHead:
        """Projector and predictor."""
        return ByolHead(scope.architecture, config)

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """The loss of both directions, summed: 0 to 8, about 4 where predictions are but chance."""
        # views together, so that the head takes the mean over all of them off
        projections = self.head.projector(self.network, *batch.views)
        with torch.no_grad():
            targets = self.target_projector(self.target_network, *batch.views)
        of_first_BD, of_second_BD = self.head.predictor(projections).chunk(2)
        first_BD, second_BD = targets.chunk(2)
        loss = byol_loss(of_first_BD, second_BD) + byol_loss(of_second_BD, first_BD)
        # a collapse has a loss of 0; it shows here
        logs = {"target_spread": spread(gathered(targets))}
        return PretextResult(
            loss=loss, logs=logs, embeddings=F.normalize(projections.chunk(2)[0].float(), dim=1)
        )

    def embed(self, view: Tensor) -> Tensor:
        """Projections of the online network, as unit vectors (B, D)."""
        return F.normalize(self.head.projector(self.network, view).float(), dim=1)

    def after_step(self, step: int) -> None:
        """The target follows."""
        momentum = momentum_at(step, self.scope.steps, self.momentum)
        follow(self.target_network, self.network, momentum)
        follow(self.target_projector, self.head.projector, momentum)
