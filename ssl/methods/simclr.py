"""SimCLR: each view finds the other one of its volume among those of all volumes of the batch.

Source: Chen et al. 2020, https://arxiv.org/abs/2002.05709, section 2.1, equation 1 (NT-Xent). We differ from
it in that the two views are a global and a local one (its two crops are drawn alike: by chance part and
whole, or neighbours, its figure 3), so that one of them has the resolution of the fine-tuning from the first
step on; in that the head pools real features of the decoder, so that the loss reaches the whole of it; and
in that batches are small: the defaults are those for few negatives.
"""

# Shapes: B = batch of one process, N = volumes of all processes, D = embedding size.

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...data.settings import settings
from ..gather import gathered, processes
from ..heads import EmbeddingConfig, EmbeddingHead
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method


@settings
class SimclrConfig(EmbeddingConfig):
    """`temperature` divides the cosines; 0.5 is the paper's for its small data set (CIFAR-10, appendix B.9).

    On ImageNet, with 8190 negatives, it is 0.1 (section 5.1): with a handful, that would leave the pairs
    already told apart without any gradient. The paper's head has 2048 hidden units and 128 dimensions.
    """

    temperature: Annotated[float, Field(gt=0)] = 0.5


def nt_xent(first_ND: Tensor, second_ND: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """The loss, mean over all views, and the share of views whose nearest other view is their pair; both ().

    Inputs are unit vectors. Every view is told from the 2N - 2 views of other volumes, of either kind.
    """
    z = torch.cat([first_ND, second_ND]).float()
    with torch.autocast(z.device.type, enabled=False):
        logits = z @ z.T / temperature
    # a view is no candidate for itself
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = logits.masked_fill(itself, -math.inf)
    pairs = torch.arange(len(z), device=z.device).roll(len(first_ND))
    found = (logits.detach().argmax(dim=1) == pairs).float().mean()
    return F.cross_entropy(logits, pairs), found


@register_method("simclr", SimclrConfig)
class Simclr(Method):
    """Each view finds the other one of its volume among those of the batch."""

    source = "Chen et al. 2020, arXiv:2002.05709"
    embeds = True
    # with 3e-3 the embeddings of hippocampi vary along fewer directions (docs/methods.md)
    adamw_lr = 1e-3

    @staticmethod
    def views(config: SimclrConfig) -> ViewSpec:  # noqa: ARG004
        """A global and a local view of each of two volumes or more."""
        return ViewSpec(global_views=1, local_views=1, volumes=2)

    @staticmethod
    def heads(scope: Scope, config: SimclrConfig) -> nn.Module:
        """The embedding head."""
        return EmbeddingHead(scope.architecture, config)

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """The loss over the views of all processes."""
        # together, so that the head takes the mean over all of them off
        first_ND, second_ND = (gathered(z) for z in self.embed(*batch.views).chunk(2))
        loss, found = nt_xent(first_ND, second_ND, temperature=self.config.temperature)
        return PretextResult(loss=loss, logs={"pairs_found": found}, embeddings=first_ND)

    def embed(self, view: Tensor, *others: Tensor) -> Tensor:
        """Unit vectors (all B, D) of one view or more."""
        return F.normalize(self.head(self.network, view, *others).float(), dim=1)

    def resting_loss(self) -> float:
        """That of a guess among the other views, whatever the temperature: ln(2N - 1)."""
        return math.log(2 * self.scope.batch * processes() - 1)
