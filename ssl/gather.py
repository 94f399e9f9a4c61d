"""Rows of all processes that train together, with exact gradients.

A loss that compares the items of a batch has to see those of every process. In one process everything here is
as if it were not there.
"""

# Shapes: B = batch of one process, D = features or embedding size, W = processes.

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..seg.engine.distributed import exchange, processes, rank, summed

__all__ = ["GatheredBatchNorm", "gathered", "own", "processes", "rank"]


def gathered(rows_BD: Tensor) -> Tensor:
    """The rows of every process, (W x B, D), in the order of the processes, all of which have as many.

    The gradient that comes back is the sum of those of all processes. As gradients are averaged over
    processes, a loss over all rows, computed by each of them, has the gradient it would have in one.
    """
    return _Gathered.apply(rows_BD) if processes() > 1 else rows_BD


def own(rows: Tensor) -> Tensor:
    """Of rows of all processes those of this one."""
    return rows.chunk(processes())[rank()]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ARG004 (autograd's signature)
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(processes())]
        with exchange():
            dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return own(summed(gradients[0]))


class GatheredBatchNorm(nn.BatchNorm1d):
    """Batch normalisation without weights, over the rows (B, D) of all processes.

    As torch's SyncBatchNorm, which needs a GPU. Running statistics are at first means over all batches:
    torch's begin at 0 and 1, which pooled features, of large means and small deviations, are far from.
    """

    def __init__(self, features: int) -> None:
        super().__init__(features, affine=False)

    def forward(self, input: Tensor) -> Tensor:
        """The rows of this process, normalised."""
        if not self.training:
            return super().forward(input)
        mean, var, tracked, least = (
            self.running_mean,
            self.running_var,
            self.num_batches_tracked,
            self.momentum,
        )
        if mean is None or var is None or tracked is None or least is None:
            raise ValueError("running statistics are always tracked here")
        tracked.add_(1)
        momentum = max(least, 1 / int(tracked))
        return own(F.batch_norm(gathered(input), mean, var, training=True, momentum=momentum, eps=self.eps))
