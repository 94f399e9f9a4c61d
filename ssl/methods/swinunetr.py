"""Swin UNETR's pretraining: in-painting, rotation and contrast at once, here on any network.

Source: Tang et al. 2022, https://arxiv.org/abs/2111.14791, section 3, with the numbers of its code
(https://github.com/Project-MONAI/research-contributions, SwinUNETR/Pretrain). There as here a view is turned
about z, blocks of it are replaced by noise and then others by what another volume has there; the network
restores the turned view (mean absolute error over all voxels), tells the turn, and finds the volume's other
view among those of the batch. We differ in that

- decoder and skip connections restore, so that both parts are pretrained (there layers that are thrown away);
- the two views of a volume are two overlapping boxes (there one box twice: its grey values tell the pair);
- turn and embedding are read from the pooled coarsest features of the encoder, with the mean of the batch
  taken off (there from their first and their second voxel alone);
- blocks are drawn until the share of voxels that they cover is reached (there they count as often as they
  overlap), noise is that of a z-scored volume, and a view never gets blocks of its own;
- where a plane has no quarter turns, there is only the half turn to tell: see ssl/quarter_turns.py.
"""

# Shapes: B = batch of one process, N = volumes of all processes, C = channels, D = embedding size, T = turns.

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from ...data.augment.blocks import ShareRange, as_slices, draw_blocks
from ...data.augment.draws import Draws
from ...data.augment.operations import ascending
from ...data.settings import settings
from ...data.volume import Shape
from ...seg.networks.network import Network
from ..gather import GatheredBatchNorm, gathered
from ..heads import pool
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method
from ..quarter_turns import turns_of
from .simclr import nt_xent

Replaced = Annotated[float, Field(ge=0, le=0.9)]
ReplacedRange = Annotated[tuple[Replaced, Replaced], AfterValidator(ascending)]
Weight = Annotated[float, Field(ge=0)]


@settings
class SwinunetrConfig:
    """Weights of the three losses, and what they are made of.

    `noise` and `foreign` are ranges of the share of a view's voxels that noise, and another volume's voxels,
    take the place of; `edge` is that of a block's edges, as shares of the view's. All are drawn evenly.
    """

    # the paper's, found by a grid search (section 3.3)
    in_painting: Weight = 1.0
    rotation: Weight = 1.0
    contrast: Weight = 1.0
    # the code's; 30 % is the paper's drop ratio
    noise: ReplacedRange = (0.0, 0.3)
    foreign: ReplacedRange = (0.0, 0.3)
    edge: ShareRange = (0.05, 0.25)
    # the code's
    temperature: Annotated[float, Field(gt=0)] = 0.5
    # 512 in the code, for far more volumes at a time
    dimension: Annotated[int, Field(ge=2)] = 64

    def __post_init__(self) -> None:
        """Raises ValueError where nothing is left to learn."""
        if self.in_painting == self.rotation == self.contrast == 0:
            raise ValueError("one of in_painting, rotation and contrast is above 0")


class SwinunetrHeads(nn.Module):
    """What restores a view from the last features, and what tells turn and volume from pooled ones."""

    def __init__(self, scope: Scope, config: SwinunetrConfig, turns: int) -> None:
        super().__init__()
        features = scope.architecture.topology.features
        self.paint = nn.Conv3d(features[0], scope.architecture.in_channels, 1)
        # mean and deviation of each feature
        self.norm = GatheredBatchNorm(2 * features[-1])
        self.rotation = nn.Linear(2 * features[-1], turns)
        self.contrast = nn.Linear(2 * features[-1], config.dimension)

    def pooled(self, coarsest: Tensor) -> Tensor:
        """Features (B, C, z, y, x) of the coarsest level, pooled, without their mean over the batch."""
        return self.norm(pool([coarsest]))

    def embedded(self, pooled: Tensor) -> Tensor:
        """Unit vectors (B, D)."""
        return F.normalize(self.contrast(pooled).float(), dim=1)


def draw_replaced(extent: Shape, share: float, edge: tuple[float, float], draws: Draws) -> np.ndarray:
    """Which voxels (Z, Y, X) are replaced: those of blocks, drawn until they are no less than the share."""
    replaced, count = np.zeros(extent, dtype=bool), 0
    while count < share * replaced.size:
        (block,) = as_slices(draw_blocks(extent, 1, edge, draws))
        count += int((~replaced[block]).sum())
        replaced[block] = True
    return replaced


def corrupted(view: Tensor, other: Tensor, config: SwinunetrConfig, draws: Draws) -> Tensor:
    """A view (C, Z, Y, X) of which blocks are noise, and then others what stands there in another view."""
    z, y, x = view.shape[1:]
    for share, source in ((config.noise, draws.normal(view)), (config.foreign, other)):
        replaced = draw_replaced((z, y, x), draws.within(share), config.edge, draws)
        view = torch.where(torch.from_numpy(replaced).to(view.device), source, view)
    return view


def exchanged(views: Tensor, config: SwinunetrConfig, seed: tuple[int, int]) -> Tensor:
    """The views (B, C, Z, Y, X), each with blocks of noise and of another one of them."""
    items = []
    for i, view in enumerate(views):
        draws = Draws((*seed, i))
        # any but itself
        other = (i + draws.integer(1, len(views) - 1)) % len(views)
        items.append(corrupted(view, views[other], config, draws))
    return torch.stack(items)


@register_method("swinunetr", SwinunetrConfig)
class Swinunetr(Method):
    """Views with blocks of noise and other volumes are restored, their turn is told and their pair found."""

    head: SwinunetrHeads

    source = "Tang et al. 2022, arXiv:2111.14791"
    embeds = True

    def __init__(self, network: Network, head: SwinunetrHeads, config: SwinunetrConfig, scope: Scope) -> None:
        super().__init__(network, head, config, scope)
        self.turns = turns_of(scope, axes=(0,))

    @staticmethod
    def views(config: SwinunetrConfig) -> ViewSpec:  # noqa: ARG004
        """Two large views of each of two volumes or more, unturned and with grey values to restore."""
        return ViewSpec(global_views=2, volumes=2, upright=True, plain=True)

    @staticmethod
    def heads(scope: Scope, config: SwinunetrConfig) -> SwinunetrHeads:
        """A convolution that restores, and a linear layer each for the turn and the embedding."""
        return SwinunetrHeads(scope, config, turns=len(turns_of(scope, axes=(0,)).turns))

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """The weighted sum of the three losses over both views."""
        upright, generator = torch.cat(batch.views), torch.Generator().manual_seed(batch.seed)
        turn_2B = self.turns.draw(len(upright), generator)
        clean = self.turns.turned(upright, turn_2B)
        given = torch.cat(
            [exchanged(views, self.config, (batch.seed, v)) for v, views in enumerate(clean.chunk(2))]
        )
        encoded = self.network.encode(given)
        pooled = self.head.pooled(encoded[-1])
        restored = self.head.paint(self.network.decode(encoded)[-1]).float()
        logits_2BT, turn_2B = self.head.rotation(pooled).float(), turn_2B.to(upright.device)
        first_ND, second_ND = (gathered(z) for z in self.head.embedded(pooled).chunk(2))
        contrast, found = nt_xent(first_ND, second_ND, temperature=self.config.temperature)
        terms = {
            "in_painting": F.l1_loss(restored, clean.float()),
            "rotation": F.cross_entropy(logits_2BT, turn_2B),
            "contrast": contrast,
        }
        loss = torch.stack([getattr(self.config, name) * term for name, term in terms.items()]).sum()
        logs = {f"loss/{name}": term.detach() for name, term in terms.items()}
        # what a copy of the given view would lose
        logs["loss_of_a_copy"] = F.l1_loss(given.float(), clean.float())
        logs["turns_told"] = (logits_2BT.detach().argmax(dim=1) == turn_2B).float().mean()
        logs["pairs_found"] = found
        return PretextResult(loss=loss, logs=logs, embeddings=first_ND)

    def embed(self, view: Tensor) -> Tensor:
        """Unit vectors (B, D), of whole views."""
        return self.head.embedded(self.head.pooled(self.network.encode(view)[-1]))
