"""Masked reconstruction: blocks of the view are blanked, the network paints them back.

Source: He et al. 2022, https://arxiv.org/abs/2111.06377, section 3, on a U-Net with its skip connections as
in Wald et al. 2025 (OpenMind), https://arxiv.org/abs/2412.17041. We differ from both in that a masked
block is one voxel of the network's coarsest level where `block` does not say otherwise, so that the
same rule holds for any plan, anisotropic ones included.
"""

# Shapes: B = batch, C = channels.

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ...data.errors import UserError
from ...data.settings import settings
from ...data.volume import Shape
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method

Extent = Annotated[int, Field(ge=1)]


@settings
class MaeConfig:
    """`mask_ratio` of the blocks of a view is blanked; `block` (z, y, x) is in voxels.

    `block` None is the product of the network's strides. Only masked voxels count in the loss (He et al.,
    section 3).
    """

    # 0.75 in both papers, where a view has 196 and 1000 blocks; here it may have a dozen
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.6
    block: tuple[Extent, Extent, Extent] | None = None


def random_mask(batch: int, extent: Shape, block: Shape, ratio: float, generator: torch.Generator) -> Tensor:
    """Which voxels are blanked, (B, 1, Z, Y, X): in each item the same number of whole blocks, drawn anew.

    At least one block is blanked and at least one is left. Raises UserError where the view is one block.
    """
    counts = [math.ceil(e / b) for e, b in zip(extent, block, strict=True)]
    blocks = math.prod(counts)
    if blocks < 2:
        raise UserError(
            f"block {block}",
            found=f"a view of {extent} voxels is a single block",
            rule="Some blocks of a view are masked and some are not",
            remedy="Set a smaller options.block, or a larger patch",
        )
    masked = min(blocks - 1, max(1, round(ratio * blocks)))
    ranks = torch.rand(batch, blocks, generator=generator).argsort(dim=1).argsort(dim=1)
    mask = (ranks < masked).view(batch, 1, *counts)
    for axis, b in enumerate(block):
        mask = mask.repeat_interleave(b, dim=axis + 2)
    z, y, x = extent
    return mask[..., :z, :y, :x]


@register_method("mae", MaeConfig)
class Mae(Method):
    """Blocks of a view are masked, and the network reconstructs them."""

    source = "He et al. 2022, arXiv:2111.06377; Wald et al. 2025, arXiv:2412.17041"

    @staticmethod
    def views(config: MaeConfig) -> ViewSpec:  # noqa: ARG004
        """One view of each volume, with its own grey values as in both papers.

        Their change would be what is painted; it made MAE worse (He et al., table 1e).
        """
        return ViewSpec(global_views=1, plain=True)

    @staticmethod
    def heads(scope: Scope, config: MaeConfig) -> nn.Module:  # noqa: ARG004
        """One convolution from the last features to grey values."""
        architecture = scope.architecture
        return nn.Conv3d(architecture.topology.features[0], architecture.in_channels, 1)

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """Mean squared error over the masked voxels of the views."""
        (view,) = batch.views
        z, y, x = view.shape[2:]
        bz, by, bx = self.config.block or self.network.multiple
        generator = torch.Generator().manual_seed(batch.seed)
        mask = random_mask(len(view), (z, y, x), (bz, by, bx), self.config.mask_ratio, generator).to(
            view.device
        )
        # 0 is the mean of a z-scored volume
        painted = self.head(self.network.features(view.masked_fill(mask, 0.0)))
        everywhere = mask.expand_as(view)
        errors = (painted - view)[everywhere].square()
        # what painting the mean of all masked voxels would give: below 1 the network tells more than that
        spread = view[everywhere].var(correction=0).clamp_min(1e-12)
        return PretextResult(
            loss=errors.mean(), logs={"unexplained_variance": errors.detach().mean() / spread}
        )
