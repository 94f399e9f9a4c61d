"""Relative location: which of the neighbours of the centre a cell is.

Source: Taleb et al. 2020, https://arxiv.org/abs/2006.03829, section 3.2 (3D-RPL); after Doersch et al. 2015,
https://arxiv.org/abs/1505.05192, section 3. We differ from both in that a view is cut into 27 cells of which
all 26 neighbours are asked for, where they draw one: the same loss in the mean, with every class as often,
for one pass of each cell through the encoder. We differ from Taleb et al. in that gaps are wider (theirs are
7 % of a cell's place, of 128 voxels cut in three), nearer to Doersch et al. (a third), and in that cells are
standardised, as in Noroozi and Favaro 2016 (https://arxiv.org/abs/1603.09246). Along an axis that has no room
for three cells there is one; the task has 8 or 2 classes then.
"""

# Shapes: B = batch, C = channels, N = cells of a view, H = hidden units.

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ...data.errors import UserError
from ...data.settings import settings
from ...seg.networks.network import Network
from ..cell_heads import CellClassifier, CellHeadConfig
from ..cell_task import CellTask
from ..cells import Grid, lay_grid
from ..classified import classified
from ..method import PretextResult, Scope, Views, ViewSpec, register_method


@settings
class RelativeLocationConfig(CellHeadConfig):
    """A cell leaves the share `gap` of its place free, and lies anywhere within the share `jitter` of that.

    With these defaults two neighbours are an eighth of a place apart at least. `standardise` takes away
    brightness and contrast of each cell.
    """

    # Taleb et al.: 3 of 42 voxels; Doersch et al.: 48 of 144 pixels
    gap: Annotated[float, Field(ge=0, le=0.75)] = 0.25
    # Taleb et al.: 1; Doersch et al.: 7 of 24 pixels
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.5
    standardise: bool = True


def neighbours(vectors_BNH: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of the centre and each other cell, (B x (N - 1), 2, H), and which other one it is, from 0.

    N is odd, and others are counted in the order of the cells, without the centre.
    """
    number = vectors_BNH.shape[1]
    labels = torch.arange(number - 1, device=vectors_BNH.device)
    others = vectors_BNH[:, labels + (labels >= number // 2)]
    centre = vectors_BNH[:, number // 2, None].expand_as(others)
    return torch.stack([centre, others], dim=2).flatten(0, 1), labels.repeat(len(vectors_BNH))


def location_grid(scope: Scope, config: RelativeLocationConfig) -> Grid:
    """Three cells along every axis with room for them, one along the others.

    Raises UserError where no axis has room.
    """
    grid = lay_grid(scope, ((3, 1),) * 3, gap=config.gap, jitter=config.jitter)
    if grid.number == 1:
        raise UserError(
            f"a view of {scope.shapes[0]} voxels",
            found="no axis has room for three cells",
            rule="A cell is half of the product of the network's strides wide at least",
            remedy="Set a larger patch, or a smaller options.gap",
        )
    return grid


@register_method("relative_location", RelativeLocationConfig)
class RelativeLocation(CellTask):
    """Which of the neighbours of the centre a cell of the view is."""

    source = "Taleb et al. 2020, arXiv:2006.03829, section 3.2; Doersch et al. 2015, arXiv:1505.05192"

    def __init__(
        self, network: Network, head: CellClassifier, config: RelativeLocationConfig, scope: Scope
    ) -> None:
        super().__init__(network, head, config, scope)
        self.grid = location_grid(scope, config)

    @staticmethod
    def views(config: RelativeLocationConfig) -> ViewSpec:  # noqa: ARG004
        """One view of each volume, as it stands."""
        return ViewSpec(upright=True)

    @staticmethod
    def heads(scope: Scope, config: RelativeLocationConfig) -> CellClassifier:
        """A classifier of pairs of cells."""
        grid = location_grid(scope, config)
        return CellClassifier(scope.architecture, config, cells=2, classes=grid.number - 1)

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """Cross-entropy over every neighbour of every view."""
        pairs, labels = neighbours(self.vectors_of_cells(batch, self.grid))
        return classified(self.head(pairs), labels)
