"""Losses for segmentation. They know tensors, not volumes."""

# Shapes: B = batch, K = classes.

import torch.nn.functional as F
from torch import Tensor


def dice_loss(logits: Tensor, labels: Tensor, *, smooth: float = 1e-5) -> Tensor:
    """One minus the soft Dice of the foreground classes, mean over the classes, shape ().

    Source: Milletari et al. 2016 (arXiv:1606.04797), with the sums of Drozdzal et al. 2016 as in nnU-Net.
    Differs from nnU-Net: sums run over the whole batch, because with few labels many a patch holds no
    voxel of a class, and its own Dice would then be 0 or 1 by chance. A class that the whole batch lacks
    counts with a loss near 1, whose gradient takes away what is wrongly predicted.

    Args:
        logits: (B, K, Z, Y, X).
        labels: (B, Z, Y, X) class numbers.
    """
    probabilities = logits.float().softmax(dim=1)
    target = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(probabilities.dtype)
    dims = (0, 2, 3, 4)
    overlap = (probabilities * target).sum(dims)[1:]
    total = (probabilities.sum(dims) + target.sum(dims))[1:]
    return 1 - ((2 * overlap + smooth) / (total + smooth)).mean()


def dice_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of Dice loss and cross-entropy, shape (), and the two by name (detached).

    Source: Isensee et al. 2021 (nnU-Net), equal weights.
    """
    dice = dice_loss(logits, labels)
    entropy = F.cross_entropy(logits.float(), labels)
    return dice + entropy, {"loss/dice": dice.detach(), "loss/cross_entropy": entropy.detach()}
