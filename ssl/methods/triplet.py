"""Triplet: views of one volume attract, other volumes repel.

Source: Schroff et al. 2015, FaceNet, https://arxiv.org/abs/1503.03832, sections 3.1 and 3.2; on volumes as in
the Biom3d thesis (Mougeot 2023). We differ from FaceNet in that by default no negative is mined: every other
volume of the batch is one, and the loss is the mean over all triplets ("batch all": Hermans et al. 2017,
https://arxiv.org/abs/1703.07737, section 2, there over those above 0 only; ours rests at the margin exactly
when all embeddings are the same). FaceNet mines in batches of 1,800, where most negatives teach nothing;
ours have a handful. Negatives of a batch are views of the positive's own kind, so that whether a view shows a
whole volume or a part of it tells nothing. We differ from the thesis in that the head pools real features of
the decoder, so that the loss reaches the whole of it.
"""

# Shapes: B = batch (of all processes), D = embedding size, V = views, P = ordered pairs of views,
# N = candidates for a negative, M = all anchors.

import math
from itertools import permutations
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...data.settings import settings
from ...seg.networks.network import Network
from ..gather import gathered
from ..heads import EmbeddingConfig, EmbeddingHead
from ..memory import Memory
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method

InBatch = Literal["all", "random", "semi_hard", "hardest"]


@settings
class TripletConfig(EmbeddingConfig):
    """`margin` is in squared distance of unit vectors, the paper's 0.2.

    A volume has one global view and `local_views` (SmartPatch has one); each two of them are anchor and
    positive, both ways. `negatives` tells what each such pair is compared with:

    - `all`: all other volumes of the batch, those of other processes too.
    - `random`: one of them.
    - `semi_hard`: the nearest of those that are farther than the positive (the paper's); where none is, the
      farthest.
    - `hardest`: the nearest. It can pull everything together (section 3.2 of the paper).
    - `index`: all other volumes of the batch, and the semi-hard one of the `neighbours` nearest embeddings of
      other volumes of the whole data set, as they were when last seen. Their index is made anew every
      `refresh` steps; None: once every volume was seen, and at least ten times in a training. Remembered
      negatives alone pull everything together, as no gradient pushes them away.
    """

    margin: Annotated[float, Field(gt=0, le=4)] = 0.2
    local_views: Annotated[int, Field(ge=1)] = 1
    negatives: InBatch | Literal["index"] = "all"
    neighbours: Annotated[int, Field(ge=1)] = 8
    refresh: Annotated[int, Field(ge=1)] | None = None


def squared_distances(a_MD: Tensor, b_ND: Tensor) -> Tensor:
    """Squared distances, (..., M, N).

    From differences: exactly 0 between equal vectors, and float32 under any autocast, which a product is not.
    """
    return (a_MD.unsqueeze(-2) - b_ND.unsqueeze(-3)).square().sum(dim=-1)


def triplet_losses(near_B: Tensor, far_BN: Tensor, *, margin: float) -> Tensor:
    """The hinge of every triplet, (..., B, N), of the distances of anchors to positives and to negatives."""
    return F.relu(near_B.unsqueeze(-1) - far_BN + margin)


def mined(near_B: Tensor, far_BN: Tensor, other_BN: Tensor, how: InBatch, seed: int) -> Tensor:
    """Which candidates are negatives, (..., B, N): all of other volumes, or one of them for each anchor.

    `other_BN` tells which are of other volumes; each anchor has at least one.
    """
    other_BN = other_BN.expand_as(far_BN)
    if how == "all":
        return other_BN
    if how == "random":
        generator = torch.Generator().manual_seed(seed)
        rank_BN = torch.rand(far_BN.shape, generator=generator).to(far_BN.device)
    elif how == "hardest":
        rank_BN = far_BN
    else:
        # distances are at most 4: first those that are farther, nearest first; then the rest, farthest first
        rank_BN = torch.where(far_BN > near_B.unsqueeze(-1), far_BN, 9 - far_BN)
    chosen_B = rank_BN.masked_fill(~other_BN, math.inf).argmin(dim=-1)
    return F.one_hot(chosen_B, far_BN.shape[-1]).bool()


@register_method("triplet", TripletConfig)
class Triplet(Method):
    """Views of one volume attract, other volumes repel."""

    source = "Schroff et al. 2015, arXiv:1503.03832; Mougeot 2023 (Biom3d)"
    embeds = True
    # with 3e-3, which suits the other tasks, the loss does not leave the margin (hippocampi, 40 steps)
    adamw_lr = 1e-3

    def __init__(self, network: Network, head: nn.Module, config: TripletConfig, scope: Scope) -> None:
        super().__init__(network, head, config, scope)
        self.volumes = {case: number for number, case in enumerate(scope.cases)}
        self.memory = None
        if config.negatives == "index":
            self.memory = Memory(len(scope.cases), self.views(config).count, config.dimension)
        rounds = math.ceil(len(scope.cases) / scope.batch)
        self.refresh = config.refresh or max(1, min(rounds, scope.steps // 10))

    @staticmethod
    def views(config: TripletConfig) -> ViewSpec:
        """A global view and local ones of each of two volumes or more."""
        return ViewSpec(global_views=1, local_views=config.local_views, volumes=2)

    @staticmethod
    def heads(scope: Scope, config: TripletConfig) -> nn.Module:
        """The embedding head."""
        return EmbeddingHead(scope.architecture, config)

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """The mean loss over all triplets: each view is the anchor of each other view of its volume."""
        # together, so that the head takes the mean over all of them off
        views = self.embed(*batch.views).chunk(len(batch.views))
        z_VBD = torch.stack([gathered(z_BD) for z_BD in views])
        numbers = [self.volumes[case] for case in batch.cases]
        volume_B = gathered(torch.tensor(numbers, device=z_VBD.device))
        anchor_P, positive_P = zip(*permutations(range(len(views)), 2), strict=True)
        anchors_PBD, positives_PBD = z_VBD[list(anchor_P)], z_VBD[list(positive_P)]
        far_PBN = squared_distances(anchors_PBD, positives_PBD)
        near_PB = far_PBN.diagonal(dim1=1, dim2=2)
        how = "all" if self.config.negatives == "index" else self.config.negatives
        # the same draws in every process
        seed = int(gathered(torch.tensor([batch.seed], device=z_VBD.device))[0])
        negative_PBN = mined(near_PB, far_PBN, volume_B[:, None] != volume_B, how, seed)
        if self.memory is not None and self.memory.volumes > 1:
            remembered_PBN, there_PBN = self._remembered(self.memory, anchors_PBD, volume_B)
            far_PBN = torch.cat([far_PBN, remembered_PBN], dim=2)
            semi_hard_PBN = mined(near_PB, remembered_PBN, there_PBN, "semi_hard", seed)
            negative_PBN = torch.cat([negative_PBN, semi_hard_PBN], dim=2)
        losses = triplet_losses(near_PB, far_PBN, margin=self.config.margin)[negative_PBN]
        if self.memory is not None and self.training:
            self.memory.keep(z_VBD, volume_B)
        logs = {"active_triplets": (losses.detach() > 0).float().mean()}
        return PretextResult(loss=losses.mean(), logs=logs, embeddings=z_VBD[0])

    def _remembered(self, memory: Memory, anchors_PBD: Tensor, volume_B: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (P, B, N) to the nearest of other volumes in the index, and which of these there are."""
        pairs, batch, _ = anchors_PBD.shape
        anchors_MD = anchors_PBD.flatten(0, 1)
        rows_MND, there_MN = memory.nearest(anchors_MD, volume_B.repeat(pairs), self.config.neighbours)
        far_MN = squared_distances(anchors_MD.unsqueeze(1), rows_MND).squeeze(1)
        return far_MN.view(pairs, batch, -1), there_MN.view(pairs, batch, -1)

    def embed(self, view: Tensor, *more: Tensor) -> Tensor:
        """Unit vectors (all B, D)."""
        return F.normalize(self.head(self.network, view, *more).float(), dim=1)

    def resting_loss(self) -> float:
        """The margin."""
        return self.config.margin

    def after_step(self, step: int) -> None:
        """Makes the index anew when it is time."""
        if self.memory is not None and (step + 1) % self.refresh == 0:
            self.memory.refresh()
