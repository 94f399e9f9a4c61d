"""VICReg: two views of a volume agree, while every dimension varies over volumes and none repeats another.

Source: Bardes et al. 2022, https://arxiv.org/abs/2105.04906, section 4.1, equations 1 to 6, scaled as in the
authors' code (facebookresearch/vicreg, main_vicreg.py), for which its weights were found: the invariance
(equation 5) is the mean over dimensions too, and the variance is the mean over the two views, not their sum.

We differ from it in that the two views are a global and a local one, so that one of them has the resolution
of the fine-tuning from the first step on; in that the head pools real features of the decoder, so that the
loss reaches the whole of it; and in the number of dimensions. The covariance of N volumes has rank N - 1:
with D dimensions of deviation s its term is at least s^4 (D / (N - 1) - 1), however well they are spread.
Above D of about 4 (N - 1) it outweighs the variance term and keeps s below 1 (the paper's 8192 dimensions for
batches of 2048 lie just there). So the embedding is narrow here, not wide.
"""

# Shapes: B = batch of one process, N = volumes of all processes, D = embedding size.

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...data.settings import settings
from ..gather import gathered
from ..heads import EmbeddingConfig, EmbeddingHead
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method

# gamma and epsilon of equations 1 and 2
DEVIATION, EPSILON = 1.0, 1e-4


@settings
class VicregConfig(EmbeddingConfig):
    """Weights of the three terms, the paper's 25, 25 and 1.

    `dimension` should be near 4 x (volumes in a batch - 1): 16 suits batches of 4 to 8. The paper's head has
    8192 dimensions, and two hidden layers of as many units.
    """

    dimension: Annotated[int, Field(ge=2)] = 16
    invariance: Annotated[float, Field(ge=0)] = 25.0
    variance: Annotated[float, Field(gt=0)] = 25.0
    covariance: Annotated[float, Field(ge=0)] = 1.0


def variance(z_ND: Tensor) -> Tensor:
    """How far deviations over the batch fall short of 1, mean over dimensions, shape ()."""
    # its gradient is infinite at 0 without epsilon
    deviations_D = (z_ND.float().var(dim=0) + EPSILON).sqrt()
    return F.relu(DEVIATION - deviations_D).mean()


def covariance(z_ND: Tensor) -> Tensor:
    """Sum of squares of the covariances of different dimensions, by the number of dimensions, shape ()."""
    centred_ND = z_ND.float() - z_ND.float().mean(dim=0)
    with torch.autocast(z_ND.device.type, enabled=False):
        covariance_DD = centred_ND.T @ centred_ND / (len(z_ND) - 1)
    same = torch.eye(len(covariance_DD), dtype=torch.bool, device=z_ND.device)
    return covariance_DD.masked_fill(same, 0.0).square().sum() / len(covariance_DD)


def vicreg_terms(first_ND: Tensor, second_ND: Tensor) -> dict[str, Tensor]:
    """Invariance, variance and covariance of two views of N >= 2 volumes, each of shape (), not weighted."""
    return {
        "invariance": F.mse_loss(first_ND.float(), second_ND.float()),
        "variance": (variance(first_ND) + variance(second_ND)) / 2,
        "covariance": covariance(first_ND) + covariance(second_ND),
    }


@register_method("vicreg", VicregConfig)
class Vicreg(Method):
    """Two views of a volume agree, in dimensions that vary over volumes and do not repeat each other."""

    source = "Bardes et al. 2022, arXiv:2105.04906"
    embeds = True
    # with 3e-3, the loss falls no faster, and in fewer dimensions: 8 instead of 11 (24 hippocampi, 120 steps)
    adamw_lr = 1e-3

    @staticmethod
    def views(config: VicregConfig) -> ViewSpec:  # noqa: ARG004
        """A global and a local view of each of two volumes or more."""
        return ViewSpec(global_views=1, local_views=1, volumes=2)

    @staticmethod
    def heads(scope: Scope, config: VicregConfig) -> nn.Module:
        """The embedding head."""
        return EmbeddingHead(scope.architecture, config)

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """The weighted sum of the terms over the volumes of all processes."""
        # together, so that the head takes the mean over all of them off
        first_ND, second_ND = (gathered(z) for z in self.embed(*batch.views).chunk(2))
        terms = vicreg_terms(first_ND, second_ND)
        weights = self.config
        loss = (
            weights.invariance * terms["invariance"]
            + weights.variance * terms["variance"]
            + weights.covariance * terms["covariance"]
        )
        logs = {name: term.detach() for name, term in terms.items()}
        return PretextResult(loss=loss, logs=logs, embeddings=first_ND)

    def embed(self, view: Tensor, *others: Tensor) -> Tensor:
        """Embeddings (all B, D) of one view or more; of any length: the loss asks for a deviation of 1."""
        return self.head(self.network, view, *others)

    def resting_loss(self) -> float:
        """That of deviations of 0, where the other terms are 0 too: 0.99 times the variance's weight."""
        return self.config.variance * (DEVIATION - EPSILON**0.5)
