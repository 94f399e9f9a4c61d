"""What a task that has one right answer among several returns."""

# Shapes: R = rows, K = classes.

import torch
import torch.nn.functional as F
from torch import Tensor

from .method import PretextResult


def classified(logits_RK: Tensor, labels_R: Tensor) -> PretextResult:
    """The mean cross-entropy, how often the right answer has the highest logit, and what guessing would give.

    The loss alone tells little: with many classes it moves long before an answer is right.
    """
    logits_RK = logits_RK.float()
    accuracy = (logits_RK.detach().argmax(dim=1) == labels_R).float().mean()
    return PretextResult(
        loss=F.cross_entropy(logits_RK, labels_R),
        logs={"accuracy": accuracy, "chance": torch.tensor(1 / logits_RK.shape[1])},
    )
