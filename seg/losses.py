"""Losses for segmentation, as values of a setting. They know tensors, not volumes.

Voxels that nobody annotated (`IGNORED`) count nowhere: a batch of nothing else costs 0 and moves no weight.
All is computed in float32, whatever the logits are. Where several processes train together, sums and counts
are those of the batches of all of them, so that the mean of their losses is that of one batch.
"""

# Shapes: B = batch, K = classes, C = K, or 1 where a voxel is of one class.

from dataclasses import fields
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..data.labels import IGNORED
from ..data.settings import settings
from .engine.distributed import processes, summed

# of numerator and denominator, so that a class that is neither there nor predicted costs nothing
_SMOOTH = 1e-5


@settings
class LossConfig:
    """What is minimised: a measure of overlap, one of single voxels, or the sum of both.

    - "dice_ce": Dice and cross-entropy (Isensee et al. 2021, nnU-Net).
    - "tversky", "tversky_ce": an overlap that weighs what is wrongly found by `alpha` and what is missed by
      `beta` (Salehi et al. 2017, arXiv:1706.05721, whose best values are the defaults); 0.5 each is Dice.
    - "focal", "dice_focal": cross-entropy of which a voxel that is already told with probability p has only
      (1 - p)^`gamma` (Lin et al. 2017, arXiv:1708.02002, without their weights of the classes).

    With `batch_dice` the overlap is of the whole batch: with few labels many a patch holds no voxel of a
    class, and its own Dice would then be 0 or 1 by chance. Without, it is of each item, as in nnU-Net's
    3D networks. `weights` are those of overlap and voxels where both are there.
    """

    name: Literal["dice_ce", "tversky", "tversky_ce", "focal", "dice_focal"] = "dice_ce"
    batch_dice: bool = True
    alpha: Annotated[float, Field(ge=0, le=10)] = 0.3
    beta: Annotated[float, Field(ge=0, le=10)] = 0.7
    # below 1 the gradient of a voxel that is told with certainty would be infinite
    gamma: Annotated[float, Field(ge=1, le=10)] = 2.0
    weights: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.0, 1.0)

    def __post_init__(self) -> None:
        """Raises ValueError where neither kind of error costs anything, or for settings that do nothing."""
        if self.alpha == self.beta == 0:
            raise ValueError("one of alpha and beta is above 0")
        parts = self.name.split("_")
        used = {"alpha": "tversky" in parts, "beta": "tversky" in parts, "gamma": "focal" in parts}
        used["weights"] = len(parts) == 2
        usual = {field.name: field.default for field in fields(self)}
        idle = [name for name, is_used in used.items() if not is_used and getattr(self, name) != usual[name]]
        if idle:
            raise ValueError(f"{', '.join(idle)}: no part of {self.name}")


class _Told(NamedTuple):
    """What logits say, and what is true: probabilities and truth (B, K, ...); the others (B, C, ...)."""

    probabilities: Tensor
    truth: Tensor
    cross_entropy: Tensor
    annotated: Tensor


def segmentation_loss(
    logits: Tensor, labels: Tensor, config: LossConfig | None = None, *, overlapping: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, shape (), and its terms by name before they are weighted (detached).

    Where classes overlap, each channel is a question of its own (sigmoid) and none is background, as in
    nnU-Net's region-based training (Isensee et al. 2020, arXiv:2011.00848).

    Args:
        logits: (B, K, Z, Y, X).
        labels: (B, Z, Y, X) class numbers; (B, K, Z, Y, X) of 0 and 1 where classes overlap.
        config: the defaults when None.
        overlapping: whether classes do.
    """
    config = config or LossConfig()
    told = _overlapping(logits.float(), labels) if overlapping else _exclusive(logits.float(), labels)
    # an exclusive class 0 is background
    first = 0 if overlapping else 1
    terms = {}
    if config.name.startswith("tversky"):
        terms["loss/tversky"] = _overlap_loss(told, first, config.alpha, config.beta, batch=config.batch_dice)
    elif config.name.startswith("dice"):
        terms["loss/dice"] = _overlap_loss(told, first, 0.5, 0.5, batch=config.batch_dice)
    if config.name.endswith("focal"):
        terms["loss/focal"] = _voxel_loss(told, config.gamma)
    elif config.name.endswith("ce"):
        terms["loss/cross_entropy"] = _voxel_loss(told, 0)
    weights = config.weights if len(terms) == 2 else (1.0,)
    loss = torch.stack([w * term for w, term in zip(weights, terms.values(), strict=True)]).sum()
    return loss, {name: term.detach() for name, term in terms.items()}


def _exclusive(logits: Tensor, labels: Tensor) -> _Told:
    log_probabilities = logits.log_softmax(dim=1)
    classes = torch.arange(logits.shape[1], device=labels.device).view(1, -1, 1, 1, 1)
    return _Told(
        log_probabilities.exp(),
        labels[:, None] == classes,
        F.nll_loss(log_probabilities, labels.long(), ignore_index=IGNORED, reduction="none")[:, None],
        (labels != IGNORED)[:, None],
    )


def _overlapping(logits: Tensor, labels: Tensor) -> _Told:
    # -1 would be a probability below 0
    truth = labels == 1
    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), reduction="none")
    return _Told(logits.sigmoid(), truth, cross_entropy, labels != IGNORED)


def _overlap_loss(told: _Told, first: int, alpha: float, beta: float, *, batch: bool) -> Tensor:
    """One minus the soft Tversky index, mean over the channels from `first` (and over the items), shape ().

    Dice is that of halves (Milletari et al. 2016, arXiv:1606.04797, with the sums of Drozdzal et al. 2016 as
    in nnU-Net). A class that is not there counts with a loss near 1 as soon as it is predicted, and its
    gradient takes that away. An item without an annotated voxel counts nowhere.
    """
    dims = (0, 2, 3, 4) if batch else (2, 3, 4)
    annotated = told.annotated.to(told.probabilities.dtype)
    probabilities = told.probabilities * annotated
    sums = ((probabilities * told.truth).sum(dims), probabilities.sum(dims), told.truth.sum(dims))
    overlap, predicted, true = (summed(each) if batch else each for each in sums)
    wrong = alpha * predicted + beta * true
    total = 2 * (wrong + (1 - alpha - beta) * overlap)
    losses = (1 - (2 * overlap + _SMOOTH) / (total + _SMOOTH))[..., first:]
    seen = annotated.sum(dims)
    counted = ((summed(seen) if batch else seen) > 0).expand_as(losses)
    return (losses * counted).sum() / (counted.sum().clamp_min(1) if batch else _per_process(counted.sum()))


def _voxel_loss(told: _Told, gamma: float) -> Tensor:
    """Mean cross-entropy of the annotated voxels, each times (1 - p)^gamma, shape ()."""
    each = told.cross_entropy
    if gamma:
        each = (-torch.expm1(-each)) ** gamma * each
    return (each * told.annotated).sum() / _per_process(told.annotated.sum())


def _per_process(count: Tensor) -> Tensor:
    """What a sum of this process is divided by, so that the mean over processes is that of all counted."""
    return summed(count).clamp_min(1) / processes()
