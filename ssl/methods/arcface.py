"""ArcFace: each volume or subject is a class, told from the others with a margin on the angle.

Source: Deng et al. 2019, https://arxiv.org/abs/1801.07698, section 3.1, and the authors' code (InsightFace,
recognition/arcface_torch); a class for each volume as in the Biom3d thesis (Mougeot 2023). How we differ:

- cos(theta + m) is cos theta cos m - sin theta sin m, and the sine is the length of what of the embedding
  stands across the weight of its class. So neither an arccos nor sqrt(1 - cos^2) is needed, whose slopes are
  infinite at cos = +-1; that of a length is 1.
- Where theta + m is beyond pi, cos(theta + m) would rise again and reward what is furthest. As in the
  authors' code it is cos theta - m sin m there, which keeps falling (down a step of cos m + m sin m - 1 where
  the two meet). pytorch-metric-learning has no such case, and a margin in degrees: 28.6 there is 0.5 here.
- The scale follows from the number of classes (see `least_scale`); the paper has 64 for 85,000 of them.
- A class set may grow, and class weights are parameters that stay, where the thesis's code drew them anew
  every epoch.
"""

# Shapes: B = views of all items (of all processes), D = embedding size, K = classes.

import math
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import AfterValidator, BeforeValidator, Field
from torch import Tensor, nn

from ...data.errors import UserError
from ...data.settings import over, settings
from ...seg.networks.network import Network
from ..gather import gathered
from ..heads import EmbeddingConfig, EmbeddingHead
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method
from ..schedule import Schedule

# what a class weight itself is given of its class, at the least: CosFace's P_W
_POSTERIOR = 0.99
_ALL = Schedule(start=1.0, end=1.0)


def _share(schedule: Schedule) -> Schedule:
    if not (0 <= schedule.start <= schedule.end <= 1):
        raise ValueError("a share of the classes, 0 to 1, that does not fall")
    return schedule


@settings
class ArcFaceConfig(EmbeddingConfig):
    """`margin` is in radians (the paper's 0.5), `scale` None what `least_scale` gives (the paper's 64).

    With a margin, embeddings that are all the same cost less than untrained ones: the margin draws a training
    together at first, and one of a few hundred steps may not get beyond that with 0.5.

    A class is a volume, or all those of a subject. `active` is the share of the classes that there are, in
    the order of the volumes, over the training: never fewer than two; items of the others do not count. An
    item is one global view and `local_views`, each classified on its own.
    """

    classes: Literal["volumes", "subjects"] = "volumes"
    scale: Annotated[float, Field(gt=0)] | None = None
    margin: Annotated[float, Field(ge=0, le=1.5)] = 0.2
    active: Annotated[Schedule, BeforeValidator(over(_ALL)), AfterValidator(_share)] = _ALL
    local_views: Annotated[int, Field(ge=0)] = 1


def least_scale(classes: int, margin: float) -> float:
    """The least scale at which an embedding can be told to be of its class with a probability of 0.99.

    Best is an embedding equal to the weight of its class, where all weights are as far apart as can be, at
    cosines of -1 / (K - 1). With a margin of 0 that is CosFace's bound (Wang et al. 2018,
    https://arxiv.org/abs/1801.09414, section 3.3). A larger scale sharpens the softmax, until few classes
    share the gradient; a few hundred steps need all of it.
    """
    odds = _POSTERIOR / (1 - _POSTERIOR)
    return math.log((classes - 1) * odds) / (math.cos(margin) + 1 / (classes - 1))


def arcface_logits(
    z_BD: Tensor, weights_KD: Tensor, class_B: Tensor, *, scale: float, margin: float
) -> Tensor:
    """Logits (B, K), float32: scaled cosines, that of an item's own class at an angle larger by the margin.

    Inputs are unit vectors.
    """
    with torch.autocast(z_BD.device.type, enabled=False):
        z_BD, weights_KD = z_BD.float(), weights_KD.float()
        cosines_BK = z_BD @ weights_KD.T
        own_BD = weights_KD[class_B]
        cosine_B = (z_BD * own_BD).sum(dim=1)
        # the gradient of a length is at most 1, and 0 where the length is
        sine_B = torch.linalg.vector_norm(z_BD - cosine_B[:, None] * own_BD, dim=1)
        within_B = cosine_B * math.cos(margin) - sine_B * math.sin(margin)
        beyond_B = cosine_B - margin * math.sin(margin)
        target_B = torch.where(cosine_B >= -math.cos(margin), within_B, beyond_B)
        return scale * cosines_BK.scatter(1, class_B[:, None], target_B[:, None])


class ArcFaceHead(EmbeddingHead):
    """An embedding head, and the weights of the classes (K, D), of any length."""

    def __init__(self, scope: Scope, config: ArcFaceConfig) -> None:
        super().__init__(scope.architecture, config)
        classes = len(set(class_numbers(scope, config).values()))
        # as InsightFace draws them: short ones, that turn soon at first
        self.class_weights = nn.Parameter(0.01 * torch.randn(classes, config.dimension))


def class_numbers(scope: Scope, config: ArcFaceConfig) -> dict[str, int]:
    """The class of each case, numbered in the order of the cases; raises UserError where there is but one."""
    owners = scope.cases if config.classes == "volumes" else scope.subjects
    numbers = {owner: number for number, owner in enumerate(dict.fromkeys(owners))}
    if len(numbers) < 2:
        raise UserError(
            f"options.classes: {config.classes}",
            found=f"{len(numbers)} class",
            rule="A class is told from others",
            remedy="Add volumes" if config.classes == "volumes" else "Set options.classes=volumes",
        )
    return {case: numbers[owner] for case, owner in zip(scope.cases, owners, strict=True)}


@register_method("arcface", ArcFaceConfig)
class ArcFace(Method):
    """Each volume or subject is a class, told from the others with a margin on the angle."""

    source = "Deng et al. 2019, arXiv:1801.07698; Mougeot 2023 (Biom3d)"
    embeds = True
    # with 3e-3 the embeddings of hippocampi draw together: a spread of 0.25 after 220 steps, 0.54 with this
    adamw_lr = 1e-3

    head: ArcFaceHead

    def __init__(self, network: Network, head: ArcFaceHead, config: ArcFaceConfig, scope: Scope) -> None:
        super().__init__(network, head, config, scope)
        self.numbers = class_numbers(scope, config)
        self.class_count = len(set(self.numbers.values()))
        self.scale = config.scale or least_scale(self.class_count, config.margin)

    @staticmethod
    def views(config: ArcFaceConfig) -> ViewSpec:
        """A global view and local ones of each of two volumes or more."""
        return ViewSpec(global_views=1, local_views=config.local_views, volumes=2)

    @staticmethod
    def heads(scope: Scope, config: ArcFaceConfig) -> nn.Module:
        """The embedding head and the class weights."""
        return ArcFaceHead(scope, config)

    def active_classes(self, progress: float) -> int:
        """How many classes there are at a share of the training: the first ones."""
        return min(self.class_count, max(2, round(self.config.active.at(progress) * self.class_count)))

    def forward(self, batch: Views, step: int) -> PretextResult:
        """The mean loss over the views of all items whose class is active; 0 where there is none."""
        z_BD = self.embed(*batch.views)
        numbers = [self.numbers[case] for case in batch.cases] * len(batch.views)
        every_BD, class_B = gathered(z_BD), gathered(torch.tensor(numbers, device=z_BD.device))
        active = self.active_classes(step / max(1, self.scope.steps - 1))
        counted_B = class_B < active
        every_BD, class_B = every_BD[counted_B], class_B[counted_B]
        weights_KD = F.normalize(self.head.class_weights[:active].float(), dim=1)
        logits_BK = arcface_logits(every_BD, weights_KD, class_B, scale=self.scale, margin=self.config.margin)
        losses_B = F.cross_entropy(logits_BK, class_B, reduction="none")
        items = max(1, len(losses_B))
        logs = {
            "margin_accuracy": (logits_BK.argmax(dim=1) == class_B).sum() / items,
            "counted_views": counted_B.float().mean(),
        }
        return PretextResult(loss=losses_B.sum() / items, logs=logs, embeddings=z_BD[: len(batch.cases)])

    def embed(self, view: Tensor, *more: Tensor) -> Tensor:
        """Unit vectors (all B, D)."""
        return F.normalize(self.head(self.network, view, *more).float(), dim=1)

    def resting_loss(self) -> float:
        """The loss where all embeddings and class weights are one vector: all angles are 0, the own one m.

        log(1 + (K - 1) exp(s (1 - cos m))), with the classes that are active in the end.
        """
        others = math.log(self.active_classes(1.0) - 1)
        return float(np.logaddexp(0.0, others + self.scale * (1 - math.cos(self.config.margin))))
