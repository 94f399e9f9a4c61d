"""Jigsaw: in which of a fixed set of orders the cells of a view lie.

Source: Taleb et al. 2020, https://arxiv.org/abs/2006.03829, section 3.3 (3D-Jig); after Noroozi and Favaro
2016, https://arxiv.org/abs/1603.09246, section 3. We differ from both in that a view is shown in all orders
of the set at every step, where they draw one: cells are encoded one by one, so that shuffling their vectors
is shuffling the cells, and costs no pass through the encoder. It is the same loss in the mean, with every
class as often. We cut 2 x 2 x 2 cells where Taleb et al. have 3 x 3 x 3 (of 128^3 voxels): of a plan's patch
4 to 7 voxels per axis are left at the coarsest level. Orders are chosen greedily as by Noroozi and Favaro
(algorithm 1), from the order itself on, so that the set is always the same.
"""

# Shapes: B = batch, N = cells of a view, P = orders, H = hidden units.

from functools import cache
from itertools import permutations
from typing import Annotated

import numpy as np
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

Count = Annotated[int, Field(ge=1, le=3)]
# all orders of so many cells can be listed; of more, so many are drawn to choose from
_LISTED, _DRAWN = 8, 20_000


@settings
class JigsawConfig(CellHeadConfig):
    """`orders` of the `cells` (z, y, x) a view is cut into, or as many as there is room for.

    A cell leaves the share `gap` of its place free, and lies anywhere within the share `jitter` of that.
    `standardise` takes away brightness and contrast of each cell, as Noroozi and Favaro do.
    """

    # Taleb et al.: 3 per axis
    cells: tuple[Count, Count, Count] = (2, 2, 2)
    # Noroozi and Favaro: 1000 of the 9! orders of their 9 cells
    orders: Annotated[int, Field(ge=2, le=1000)] = 100
    # Noroozi and Favaro: 11 of 75 pixels; Taleb et al.: 3 of 42 voxels
    gap: Annotated[float, Field(ge=0, le=0.75)] = 0.15
    # of both
    jitter: Annotated[float, Field(ge=0, le=1)] = 1.0
    standardise: bool = True


@cache
def far_orders(cells: int, count: int) -> tuple[tuple[int, ...], ...]:
    """`count` orders of so many cells, of large Hamming distance, or all there are; always the same.

    Each next one is furthest from the nearest of those before it, then from all of them, then the first. The
    first is the order itself. Of more than eight cells the candidates are a fixed draw.
    """
    candidates = _candidates(cells)
    nearest, total, chosen = np.full(len(candidates), cells + 1), np.zeros(len(candidates), int), [0]
    for _ in range(min(count, len(candidates)) - 1):
        distances = (candidates != candidates[chosen[-1]]).sum(axis=1)
        nearest, total = np.minimum(nearest, distances), total + distances
        # a total is at most `cells` times the number of those chosen
        chosen.append(int((nearest * (cells * count + 1) + total).argmax()))
    return tuple(tuple(order) for order in candidates[chosen].tolist())


def _candidates(cells: int) -> np.ndarray:
    if cells <= _LISTED:
        return np.array(list(permutations(range(cells))), dtype=np.int8)
    order = np.arange(cells, dtype=np.int8)
    drawn = np.random.default_rng(0).permuted(np.tile(order, (_DRAWN, 1)), axis=1)
    drawn[0] = order
    return drawn


def shuffled(vectors_BNH: Tensor, orders_PN: Tensor) -> tuple[Tensor, Tensor]:
    """Every view in every order, (B x P, N, H), and which order it is.

    In place n of order p lies cell orders[p, n].
    """
    batch, number = len(vectors_BNH), len(orders_PN)
    labels = torch.arange(number, device=vectors_BNH.device).repeat(batch)
    return vectors_BNH[:, orders_PN].flatten(0, 1), labels


def jigsaw_grid(scope: Scope, config: JigsawConfig) -> Grid:
    """The cells asked for, fewer along an axis without room; raises UserError where a single one is left."""
    counts = [range(count, 0, -1) for count in config.cells]
    grid = lay_grid(scope, counts, gap=config.gap, jitter=config.jitter)
    if grid.number == 1:
        raise UserError(
            f"a view of {scope.shapes[0]} voxels in {config.cells} cells",
            found="a single cell is left of it",
            rule="A cell is half of the product of the network's strides wide at least",
            remedy="Set a larger patch, more options.cells or a smaller options.gap",
        )
    return grid


@register_method("jigsaw", JigsawConfig)
class Jigsaw(CellTask):
    """In which order the cells of a view lie."""

    source = "Taleb et al. 2020, arXiv:2006.03829, section 3.3; Noroozi & Favaro 2016, arXiv:1603.09246"
    orders: Tensor

    def __init__(self, network: Network, head: CellClassifier, config: JigsawConfig, scope: Scope) -> None:
        super().__init__(network, head, config, scope)
        self.grid = jigsaw_grid(scope, config)
        # kept, as classes are numbers of these
        self.register_buffer("orders", torch.tensor(far_orders(self.grid.number, config.orders)))

    @staticmethod
    def views(config: JigsawConfig) -> ViewSpec:  # noqa: ARG004
        """One view of each volume, as it stands."""
        return ViewSpec(upright=True)

    @staticmethod
    def heads(scope: Scope, config: JigsawConfig) -> CellClassifier:
        """A classifier of all cells together."""
        cells = jigsaw_grid(scope, config).number
        return CellClassifier(scope.architecture, config, cells, len(far_orders(cells, config.orders)))

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """Cross-entropy over every order of every view."""
        tuples, labels = shuffled(self.vectors_of_cells(batch, self.grid), self.orders)
        return classified(self.head(tuples), labels)
