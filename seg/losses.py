"""Losses for segmentation. They know tensors, not volumes.

Voxels that nobody annotated (`IGNORED`) count nowhere: a batch of nothing else costs 0 and moves no weight.
"""

# Shapes: B = batch, K = classes.

import torch.nn.functional as F
from torch import Tensor

from ..data.labels import IGNORED


def dice_loss(logits: Tensor, labels: Tensor, *, smooth: float = 1e-5) -> Tensor:
    """One minus the soft Dice of the foreground classes, mean over the classes, shape ().

    Source: Milletari et al. 2016 (arXiv:1606.04797), with the sums of Drozdzal et al. 2016 as in nnU-Net.
    Differs from nnU-Net: sums run over the whole batch, because with few labels many a patch holds no
    voxel of a class, and its own Dice would then be 0 or 1 by chance. A class that the whole batch lacks
    counts with a loss near 1, whose gradient takes away what is wrongly predicted.

    Args:
        logits: (B, K, Z, Y, X).
        labels: (B, Z, Y, X) class numbers.
        smooth: added to both sides of the fraction.
    """
    target = F.one_hot(labels.clamp_min(0), logits.shape[1]).movedim(-1, 1)
    return _soft_dice_loss(logits.float().softmax(dim=1), target, (labels != IGNORED)[:, None], smooth, 1)


def overlapping_dice_loss(logits: Tensor, labels: Tensor, *, smooth: float = 1e-5) -> Tensor:
    """The same for classes that may overlap: sigmoid for softmax, and no channel is background.

    Args:
        logits: (B, K, Z, Y, X).
        labels: (B, K, Z, Y, X) of 0 and 1.
        smooth: added to both sides of the fraction.
    """
    return _soft_dice_loss(logits.float().sigmoid(), labels, labels != IGNORED, smooth, 0)


def _soft_dice_loss(
    probabilities: Tensor, target: Tensor, annotated: Tensor, smooth: float, first: int
) -> Tensor:
    """One minus the mean Dice of the channels from `first`, over the annotated voxels of the batch."""
    annotated = annotated.to(probabilities.dtype)
    probabilities, target = probabilities * annotated, target * annotated
    dims = (0, 2, 3, 4)
    overlap = (probabilities * target).sum(dims)[first:]
    total = (probabilities.sum(dims) + target.sum(dims))[first:]
    return 1 - ((2 * overlap + smooth) / (total + smooth)).mean()


def dice_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of Dice loss and cross-entropy, shape (), and the two by name (detached).

    Source: Isensee et al. 2021 (nnU-Net), equal weights. The cross-entropy is the mean over annotated voxels.
    """
    dice = dice_loss(logits, labels)
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")
    entropy = total / (labels != IGNORED).sum().clamp_min(1)
    return dice + entropy, {"loss/dice": dice.detach(), "loss/cross_entropy": entropy.detach()}


def overlapping_dice_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The same for classes that may overlap: each channel is a question of its own (binary cross-entropy).

    Source: nnU-Net's region-based training (Isensee et al. 2020, arXiv:2011.00848), equal weights.
    """
    dice = overlapping_dice_loss(logits, labels)
    annotated = labels != IGNORED
    each = F.binary_cross_entropy_with_logits(
        logits.float(), labels.to(logits.float().dtype), annotated.float(), reduction="sum"
    )
    entropy = each / annotated.sum().clamp_min(1)
    return dice + entropy, {"loss/dice": dice.detach(), "loss/cross_entropy": entropy.detach()}
