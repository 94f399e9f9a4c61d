"""VoCo: by how much a crop overlaps each cell of a volume, told by how alike their embeddings are.

Source: Wu et al. 2024, https://arxiv.org/abs/2402.17300, sections 3.2 and 3.3, equations 3 and 5. As there,
the cells' embeddings are held fixed where overlaps are predicted, and learn from being pushed apart. We
differ from it in that cells are cut from one global view and crops from another one, which has its own grey
values (there all come from one image, in the authors' code 4 x 4 cells and 2 crops of 384 x 384 x 96
voxels), so that early in a training cells are large and late they are parts of a patch; in that overlaps
are measured in the volume's voxels, by the maps of the views; and in that the head pools features of the
decoder, too. The authors' code computes otherwise than the paper, and otherwise in each version (it clips
cosines at 0, and weighs cells with and without overlap apart): we compute what the paper says, with a
tangent where its logarithm would be infinite.
"""

# Shapes: B = batch, N = cells, M = crops of an item, C = channels, D = embedding size. The last two axes of
# boxes are low and high edge, (z, y, x).

import math
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ...data.errors import UserError
from ...data.settings import settings
from ...data.volume import Shape
from ...seg.networks.network import Network
from ..cells import Grid, cells_at, lay_grid
from ..correspondence import extent_of, to_view, to_volume
from ..gather import own, processes
from ..heads import EmbeddingConfig, EmbeddingHead
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method

Count = Annotated[int, Field(ge=1, le=8)]
# the difference from which on the loss is a straight line: at 1 it would be infinite, as for cosines below 0
_STEEPEST = 0.98
# of an edge that is a whole voxel but for its rounding
_ROUNDING = 1e-6


@settings
class VocoConfig(EmbeddingConfig):
    """A view is cut into `cells` (z, y, x), or as many as there is room for; `crops` of the other are placed.

    `regularisation` weighs how much cells are pushed apart (the paper's lambda). The paper's head has two
    hidden layers, all 2048 wide.
    """

    # the paper: (1, 4, 4), of a volume; a patch has room for fewer
    cells: tuple[Count, Count, Count] = (2, 2, 2)
    # the authors' code: 2; a crop costs no more than a cell
    crops: Annotated[int, Field(ge=1, le=64)] = 4
    # the paper's
    regularisation: Annotated[float, Field(ge=0)] = 1.0


def prediction_losses(cosines_BMN: Tensor, overlaps_BMN: Tensor) -> Tensor:
    """-log(1 - |overlap - cosine|) of every crop and cell, (B, M, N); a straight line from 0.98 on."""
    differences = (overlaps_BMN - cosines_BMN).abs()
    beyond = F.relu(differences - _STEEPEST) / (1 - _STEEPEST)
    return beyond - torch.log1p(-differences.clamp(max=_STEEPEST))


def likeness_of_cells(cells_BND: Tensor) -> Tensor:
    """The mean absolute cosine of two cells of a volume, (); unit vectors."""
    with torch.autocast(cells_BND.device.type, enabled=False):
        cosines_BNN = cells_BND @ cells_BND.transpose(1, 2)
    first, second = torch.triu_indices(*cosines_BNN.shape[1:], offset=1, device=cells_BND.device)
    return cosines_BNN[:, first, second].abs().mean()


def boxes_in_volume(maps_B34: Tensor, starts_BN3: Tensor, size: Sequence[int]) -> Tensor:
    """What boxes of an upright view cover of its volume, (B, N, 2, 3); they begin at voxels `starts_BN3`."""
    low_BN3 = starts_BN3.to(maps_B34) - 0.5
    edges = (to_volume(maps_B34, low_BN3), to_volume(maps_B34, low_BN3 + low_BN3.new_tensor(size)))
    return torch.stack(edges, dim=2).sort(dim=2).values


def overlap_shares(crops_BM23: Tensor, cells_BN23: Tensor) -> Tensor:
    """The share of each crop that lies in each cell, (B, M, N)."""
    low = torch.maximum(crops_BM23[:, :, None, 0], cells_BN23[:, None, :, 0])
    high = torch.minimum(crops_BM23[:, :, None, 1], cells_BN23[:, None, :, 1])
    volumes_BM = (crops_BM23[:, :, 1] - crops_BM23[:, :, 0]).prod(dim=-1)
    return (high - low).clamp(min=0).prod(dim=-1) / volumes_BM[:, :, None]


def draw_starts(
    maps_B34: Tensor, target_B34: Tensor, extent: Shape, size: Shape, count: int, generator: torch.Generator
) -> Tensor:
    """The first voxels (B, count, 3) of crops of `size`, drawn evenly.

    Both views are upright and have this extent. A crop lies in the target view where it can; along an axis
    where it can not, it covers all that the views share.
    """
    size_3, extent_3 = (torch.tensor(n, device=maps_B34.device) for n in (size, extent))
    room_3 = (extent_3 - size_3).double()
    whole_B13 = torch.zeros(len(target_B34), 1, 3, device=maps_B34.device)
    # the target view's edges, in voxels of the crops' own view
    target_B23 = (
        to_view(maps_B34, boxes_in_volume(target_B34, whole_B13, extent)[:, 0]).sort(dim=1).values + 0.5
    )
    first_B13 = (target_B23[:, :1] - _ROUNDING).ceil().minimum(room_3).clamp(min=0)
    last_B13 = (target_B23[:, 1:] - size_3 + _ROUNDING).floor().minimum(room_3).clamp(min=0)
    low_B13, high_B13 = torch.minimum(first_B13, last_B13), torch.maximum(first_B13, last_B13)
    drawn = torch.rand(processes() * len(maps_B34), count, 3, generator=generator, dtype=torch.float64)
    return (low_B13 + (own(drawn).to(low_B13) * (high_B13 - low_B13 + 1)).floor()).long()


def voco_grid(scope: Scope, config: VocoConfig) -> Grid:
    """The cells asked for, fewer along an axis without room.

    Raises UserError where a single cell is left, or one that is a single voxel at the network's coarsest
    level.
    """
    grid = lay_grid(scope, [range(count, 0, -1) for count in config.cells])
    strides = scope.architecture.topology.strides
    coarsest = [n // math.prod(s[axis] for s in strides) for axis, n in enumerate(grid.extent)]
    if grid.number == 1 or max(coarsest) == 1:
        raise UserError(
            f"options.cells {config.cells}",
            found=f"a view of {scope.shapes[0]} voxels is cut into {grid.number} cells of {grid.extent}",
            rule="There are two cells or more, of more than one voxel at the network's coarsest level",
            remedy="Set other options.cells, or a larger patch",
        )
    return grid


@register_method("voco", VocoConfig)
class Voco(Method):
    """How much a crop overlaps each cell of its volume, told by the likeness of their embeddings."""

    source = "Wu et al. 2024, arXiv:2402.17300"
    embeds = True
    # 3e-3, which suits most tasks, is slower (hippocampi, 80 steps: 0.39 against 0.33); the authors' 1e-4 is
    # for 250,000 steps
    adamw_lr = 1e-3

    def __init__(self, network: Network, head: EmbeddingHead, config: VocoConfig, scope: Scope) -> None:
        super().__init__(network, head, config, scope)
        self.grid = voco_grid(scope, config)

    @staticmethod
    def views(config: VocoConfig) -> ViewSpec:  # noqa: ARG004
        """Two global views of each volume, upright, so that what their parts share is a box."""
        return ViewSpec(global_views=2, upright=True)

    @staticmethod
    def heads(scope: Scope, config: VocoConfig) -> EmbeddingHead:
        """The embedding head."""
        return EmbeddingHead(scope.architecture, config)

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """Prediction of overlaps, and the likeness of cells."""
        cells, crops, overlaps_BMN = self.cut(batch)
        # together, so that the head takes the mean over all of them off
        embedded = self._embedded(cells, crops)
        cells_BND = embedded[: len(cells)].unflatten(0, (-1, self.grid.number))
        crops_BMD = embedded[len(cells) :].unflatten(0, (-1, self.config.crops))
        with torch.autocast(embedded.device.type, enabled=False):
            cosines_BMN = crops_BMD @ cells_BND.detach().transpose(1, 2)
        prediction = prediction_losses(cosines_BMN, overlaps_BMN).mean()
        likeness = likeness_of_cells(cells_BND)
        found = cosines_BMN.detach().argmax(dim=-1) == overlaps_BMN.argmax(dim=-1)
        return PretextResult(
            loss=prediction + self.config.regularisation * likeness,
            logs={
                "prediction": prediction.detach(),
                "likeness_of_cells": likeness.detach(),
                "crops_located": found.float().mean(),
            },
            embeddings=embedded,
        )

    def cut(self, batch: Views) -> tuple[Tensor, Tensor, Tensor]:
        """Cells (B x N, C, z, y, x) of the first view, crops (B x M, ...) of the second, their overlaps."""
        (first, second), (of_first, of_second) = batch.views, batch.maps
        generator = torch.Generator().manual_seed(batch.seed)
        size, count = self.grid.size, self.config.crops
        starts_BM3 = draw_starts(of_second, of_first, extent_of(second), size, count, generator)
        # without a jitter every cell has one place
        places_BN3 = self.grid.draw(len(first), generator).to(first.device)
        overlaps_BMN = overlap_shares(
            boxes_in_volume(of_second, starts_BM3, size), boxes_in_volume(of_first, places_BN3, size)
        )
        cells, crops = cells_at(first, places_BN3, self.grid), cells_at(second, starts_BM3, self.grid)
        return cells.flatten(0, 1), crops.flatten(0, 1), overlaps_BMN.float()

    def embed(self, view: Tensor) -> Tensor:
        """Unit vectors (B, D) of whole views."""
        return self._embedded(view)

    def _embedded(self, *images: Tensor) -> Tensor:
        return F.normalize(self.head(self.network, *images).float(), dim=1)
