"""Heads of tasks that look at several cells of a view: a vector for each, and what they are together.

Every cell goes through the network for itself, with the same weights, and the vectors meet late, as in
Doersch et al. 2015 (https://arxiv.org/abs/1505.05192, section 3.1) and in the context-free network of Noroozi
and Favaro 2016 (https://arxiv.org/abs/1603.09246, section 3.1). So the encoder cannot compare the cells' grey
values: all that leads to the answer has to be in the features of each.
"""

# Shapes: B = batch, N = cells of a view, R = rows, H = hidden units, K = classes.

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..data.settings import settings
from ..seg.networks.network import Network
from ..seg.networks.registry import Architecture
from .gather import GatheredBatchNorm
from .heads import chosen_blocks, feature_widths, pool, read_features

# per axis
_REGIONS = 2


@settings
class CellHeadConfig:
    """A cell is a vector of `hidden` numbers, made of the features of `blocks` ("encoder": the coarsest)."""

    blocks: tuple[str, ...] = ("encoder",)
    hidden: Annotated[int, Field(ge=2)] = 256


class CellHead(nn.Module):
    """One vector for each cell.

    Features are averaged over the 2 x 2 x 2 octants of a cell, which at the coarsest level are mostly single
    voxels: as in the papers, it is kept where in a cell a feature lies. Mean and deviation over the whole
    would say little there, as instance normalisation has just taken them off.
    """

    def __init__(self, architecture: Architecture, config: CellHeadConfig) -> None:
        super().__init__()
        self.blocks = chosen_blocks(architecture, config.blocks)
        widths = feature_widths(architecture)
        inputs = _REGIONS**3 * sum(widths[name] for name in self.blocks)
        self.layers = nn.Sequential(
            # features of all cells point nearly the same way: their mean is taken off
            GatheredBatchNorm(inputs),
            nn.Linear(inputs, config.hidden),
            nn.LayerNorm(config.hidden),
            nn.GELU(),
        )

    def forward(self, network: Network, cells: Tensor) -> Tensor:
        """Vectors (B, N, H) of cells (B, N, C, z, y, x)."""
        features = read_features(network, cells.flatten(0, 1), self.blocks)
        octants = [F.adaptive_avg_pool3d(f.float(), _REGIONS).flatten(1) for f in features]
        return self.layers(torch.cat(octants, dim=1)).unflatten(0, cells.shape[:2])

    def embed(self, network: Network, view: Tensor) -> Tensor:
        """The same features of whole views (B, C, Z, Y, X), pooled, (B, D): these are not made of cells."""
        return pool(read_features(network, view, self.blocks))


class CellClassifier(nn.Module):
    """Which of `classes` a tuple of `cells` cells is, from the vectors of all of them."""

    def __init__(self, architecture: Architecture, config: CellHeadConfig, cells: int, classes: int) -> None:
        super().__init__()
        self.each, self.classes = CellHead(architecture, config), classes
        self.together = nn.Sequential(
            nn.Linear(cells * config.hidden, config.hidden),
            nn.LayerNorm(config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, classes),
        )

    def forward(self, tuples: Tensor) -> Tensor:
        """Logits (R, K) of the vectors (R, cells, H) of tuples."""
        return self.together(tuples.flatten(1))
