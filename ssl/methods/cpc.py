"""Contrastive predictive coding: upper cells of a view tell lower ones from all others.

Source: Taleb et al. 2020, https://arxiv.org/abs/2006.03829, section 3.1 (3D-CPC); van den Oord et al. 2018,
https://arxiv.org/abs/1807.03748, sections 2 and 3.3. A cell is encoded to z; a context c sums up the cells
above one, in a pyramid that is wider the further up; z of the cell k steps below is predicted as W_k c, and
has to be told from the z of all other cells (InfoNCE).

We differ from Taleb et al. in the context, which is recurrent along the rows, each step reading the states of
the nine columns around in the row above: the same pyramid as their sequence of cells, without cells that are
mirrored at the border, and at every row instead of the middle one. We differ in the negatives, which are all
other cells of all volumes of the batch, as in van den Oord et al., where their code tells one true from one
random cell. "Down" is the axis with most cells, so that it exists in thin patches too.
"""

# Shapes: B = batch, N = cells of a view, L = layers of cells from top to bottom, P and Q = rows and columns
# of a layer, H = hidden units, D = size of z, R = predictions, K = candidates.

import math
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...data.errors import UserError
from ...data.settings import settings
from ...seg.networks.network import Network
from ...seg.networks.registry import Architecture
from ..cell_heads import CellHead, CellHeadConfig
from ..cells import Grid, cut_cells, lay_grid
from ..classified import classified
from ..gather import gathered, processes, rank
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method


@settings
class CpcConfig(CellHeadConfig):
    """`cells` per axis, or as many as there is room for; `overlap` is a share of the distance between two.

    Each is a z of `dimension` numbers, a context has `context`. Every layer that shares no voxel with the
    context is predicted, `steps` of them at most (None: all).
    """

    # Taleb et al.: 4; van den Oord et al.: 7
    cells: Annotated[int, Field(ge=2, le=8)] = 4
    # Taleb et al. in 3D: 0; van den Oord et al.: 1 (half of a cell)
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.0
    # both: 1024
    dimension: Annotated[int, Field(ge=2)] = 64
    # Taleb et al.: 256
    context: Annotated[int, Field(ge=2)] = 128
    # van den Oord et al.: 5 of 7 layers
    steps: Annotated[int, Field(ge=1)] | None = None


class CpcHead(nn.Module):
    """Cells as z, contexts of layers, and the linear maps that predict from these, by steps down."""

    def __init__(self, architecture: Architecture, config: CpcConfig, steps: Sequence[int]) -> None:
        super().__init__()
        self.each = CellHead(architecture, config)
        self.code = nn.Linear(config.hidden, config.dimension)
        self.recurrence = nn.GRUCell(config.dimension, config.context)
        maps = {str(k): nn.Linear(config.context, config.dimension, bias=False) for k in steps}
        self.maps = nn.ModuleDict(maps)

    def codes(self, network: Network, cells: Tensor) -> Tensor:
        """z (B, N, D) of cells (B, N, C, z, y, x)."""
        return self.code(self.each(network, cells))

    def contexts(self, z_BLPQD: Tensor) -> Tensor:
        """What is known of each cell, (B, L, P, Q, H): of itself and of the pyramid above it."""
        state = z_BLPQD.new_zeros(*z_BLPQD[:, 0].shape[:-1], self.recurrence.hidden_size)
        states = []
        for z_BPQD in z_BLPQD.unbind(dim=1):
            above = F.avg_pool2d(state.movedim(-1, 1), 3, 1, 1, count_include_pad=False).movedim(1, -1)
            state = self.recurrence(z_BPQD.flatten(0, 2), above.flatten(0, 2)).view_as(above)
            states.append(state)
        return torch.stack(states, dim=1)

    def predictions(self, z_BLPQD: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted z (R, D), and the number of the cell (R,) that each is of, among all of (B, L, P, Q)."""
        contexts = self.contexts(z_BLPQD)
        numbers = torch.arange(contexts[..., 0].numel(), device=contexts.device).view(contexts.shape[:-1])
        predicted = [self.maps[k](contexts[:, : -int(k)]).flatten(0, 3) for k in self.maps]
        return torch.cat(predicted), torch.cat([numbers[:, int(k) :].flatten() for k in self.maps])


def info_nce(predicted_RD: Tensor, candidates_KD: Tensor, right_R: Tensor) -> PretextResult:
    """The mean of -log(exp(p . z_right) / sum over all candidates of exp(p . z)); equation 4 of the paper."""
    with torch.autocast(predicted_RD.device.type, enabled=False):
        return classified(predicted_RD.float() @ candidates_KD.float().T, right_R)


def cpc_grid(scope: Scope, config: CpcConfig) -> tuple[Grid, int, range]:
    """The cells of a view, the axis that leads down, and how many steps down are predicted.

    Raises UserError where there is no layer to predict.
    """
    grid = lay_grid(scope, [range(config.cells, 0, -1)] * 3, overlap=config.overlap)
    down = grid.counts.index(max(grid.counts))
    first, layers = grid.apart(down), grid.counts[down]
    if first >= layers:
        raise UserError(
            f"a view of {scope.shapes[0]} voxels",
            found=f"{layers} layers of cells, and every one shares voxels with the first",
            rule="A layer is predicted from one that it shares none with, and a cell is half of the product "
            "of the network's strides wide at least",
            remedy="Set a larger patch, more options.cells or a smaller options.overlap",
        )
    return grid, down, range(first, layers)[: config.steps]


@register_method("cpc", CpcConfig)
class Cpc(Method):
    """Upper cells of the view predict the features of lower ones."""

    source = "Taleb et al. 2020, arXiv:2006.03829, section 3.1; van den Oord et al. 2018, arXiv:1807.03748"
    trains = ("encoder",)
    head: CpcHead

    def __init__(self, network: Network, head: CpcHead, config: CpcConfig, scope: Scope) -> None:
        super().__init__(network, head, config, scope)
        self.grid, self.down, _ = cpc_grid(scope, config)

    @staticmethod
    def views(config: CpcConfig) -> ViewSpec:  # noqa: ARG004
        """One view of each volume, as it stands."""
        return ViewSpec(upright=True)

    @staticmethod
    def heads(scope: Scope, config: CpcConfig) -> CpcHead:
        """Codes, contexts and predictions."""
        return CpcHead(scope.architecture, config, cpc_grid(scope, config)[2])

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """InfoNCE over every cell that is predicted, among the cells of all volumes of all processes."""
        cells = cut_cells(batch.views[0], self.grid, torch.Generator().manual_seed(batch.seed))
        z = self.head.codes(self.network, cells).unflatten(1, self.grid.counts).movedim(self.down + 1, 1)
        predicted, numbers = self.head.predictions(z)
        candidates = z.flatten(0, 3)
        return info_nce(predicted, gathered(candidates), numbers + rank() * len(candidates))

    def embed(self, view: Tensor) -> Tensor:
        """Pooled features of the blocks that the cells are read from."""
        return self.head.each.embed(self.network, view)

    def resting_loss(self) -> float:
        """That of guessing among all candidates, which z that are all the same have."""
        return math.log(processes() * self.scope.batch * self.grid.number)
