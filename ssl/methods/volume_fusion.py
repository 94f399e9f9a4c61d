"""Volume fusion: blocks of another volume are mixed into a view, the network segments how much of it.

Source: Wang et al. 2023 (MIS-FM), https://arxiv.org/abs/2306.16925, with the loss of its code, and as there
a neighbour in the batch as the foreground (https://github.com/HiLab-git/PyMIC, `volume_fusion`): the two
sub-volumes are of two volumes. Those of the later VolF (doi:10.1109/TIP.2025.3610249) are two crops of one.
We differ in that the edges of blocks are shares of the view's, those that the paper's are of its patch, so
that they suit any plan; that blocks lie within the view instead of being cut off at its border; and that Dice
leaves out class 0, where nothing is mixed, as in a fine-tuning here, and is taken of each item.
"""

# Shapes: B = batch, C = channels, K = levels of the coefficient, which are classes 1 to K beside class 0.

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ...data.augment.blocks import CountRange, ShareRange, as_slices, draw_blocks
from ...data.augment.draws import Draws
from ...data.settings import settings
from ...data.volume import Shape
from ...seg.losses import LossConfig, segmentation_loss
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method

# halves, as in the paper's code; of each item, so that the loss is a mean over the items of all processes
LOSS = LossConfig(name="dice_ce", batch_dice=False, weights=(0.5, 0.5))


@settings
class VolumeFusionConfig:
    """Of `blocks` blocks each has one of `levels` coefficients above 0, and later ones lie over earlier ones.

    `edge` is the range of a block's edges, as shares of the view's. All three are drawn evenly.
    """

    # K = 4 in the paper: a quarter, a half, three quarters, all
    levels: Annotated[int, Field(ge=1, le=100)] = 4
    # the paper's
    blocks: CountRange = (10, 40)
    # the paper's 8 to 80 voxels of 128; 8 to 40 of 64 between slices
    edge: ShareRange = (1 / 16, 5 / 8)


def draw_levels(extent: Shape, config: VolumeFusionConfig, draws: Draws) -> np.ndarray:
    """The level (Z, Y, X) of every voxel, int64: 0 beside all blocks, 1 to `levels` within."""
    blocks = draw_blocks(extent, draws.integer(*config.blocks), config.edge, draws)
    levels = np.zeros(extent, dtype=np.int64)
    for block in as_slices(blocks):
        levels[block] = draws.integer(1, config.levels)
    return levels


def fused(background: Tensor, foreground: Tensor, levels_B1ZYX: Tensor, count: int) -> Tensor:
    """Views (B, C, Z, Y, X) that are the foreground to the share level / `count`, and the background else."""
    return torch.lerp(background, foreground, levels_B1ZYX.to(background.dtype) / count)


@register_method("volume_fusion", VolumeFusionConfig)
class VolumeFusion(Method):
    """Blocks of another volume are mixed into a view; the network segments how much of it."""

    source = "Wang et al. 2023, arXiv:2306.16925 (MIS-FM)"

    @staticmethod
    def views(config: VolumeFusionConfig) -> ViewSpec:  # noqa: ARG004
        """One view of each of two volumes or more, each augmented on its own as in the paper."""
        return ViewSpec(global_views=1, volumes=2)

    @staticmethod
    def heads(scope: Scope, config: VolumeFusionConfig) -> nn.Module:
        """The output of a segmentation: one convolution from the last features to classes."""
        return nn.Conv3d(scope.architecture.topology.features[0], config.levels + 1, 1)

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """Cross-entropy and Dice of the levels; each view is a background once and a foreground once."""
        (view,) = batch.views
        z, y, x = view.shape[2:]
        drawn = [draw_levels((z, y, x), self.config, Draws((batch.seed, i))) for i in range(len(view))]
        levels_BZYX = torch.from_numpy(np.stack(drawn)).to(view.device)
        mixed = fused(view, view.roll(-1, dims=0), levels_BZYX[:, None], self.config.levels)
        logits = self.head(self.network.features(mixed))
        loss, terms = segmentation_loss(logits, levels_BZYX, LOSS)
        right = (logits.detach().argmax(dim=1) == levels_BZYX).float().mean()
        return PretextResult(loss=loss, logs={**terms, "accuracy": right})
