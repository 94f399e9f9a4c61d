"""What tasks have in common that classify images smaller than a view: cells, or turned copies."""

# Shapes: B = batch, N = cells of a view, H = hidden units, D = embedding size.

import math

import torch
from torch import Tensor

from .cell_heads import CellClassifier
from .cells import Grid, cut_cells, standardised
from .method import Method, Views


class CellTask(Method):
    """A task whose head is a CellClassifier."""

    trains = ("encoder",)
    head: CellClassifier

    def vectors_of_cells(self, batch: Views, grid: Grid) -> Tensor:
        """Vectors (B, N, H) of the cells of a batch's only view, standardised if `config` says so."""
        cells = cut_cells(batch.views[0], grid, torch.Generator().manual_seed(batch.seed))
        return self.head.each(self.network, standardised(cells) if self.config.standardise else cells)

    def embed(self, view: Tensor) -> Tensor:
        """Pooled features (B, D) of the blocks that the cells are read from."""
        return self.head.each.embed(self.network, view)

    def resting_loss(self) -> float:
        """That of guessing, to which vectors that are all the same lead."""
        return math.log(self.head.classes)
