"""DINO: a student tells of every view what a slower teacher tells of the global ones, in words of their own.

Source: Caron et al. 2021, https://arxiv.org/abs/2104.14294, section 3.1: the loss is equation 3, the centre
equation 4; the schedules are those of its implementation details, the freezing of the last layer that of
the authors' code. KoLeo as in Oquab et al. 2023 (DINOv2), https://arxiv.org/abs/2304.07193, section 4.

We differ from it in that the head pools real features of the decoder, so that the loss reaches the whole of
it, and has one hidden layer less and a batch normalisation before it, without which pooled features begin
as good as collapsed; in that there are 256 prototypes and the teacher's temperature stays at 0.04 (see
DinoConfig); in that the teacher's momentum is scaled to the length of the training; in that the centre
moves once a step, over all batches and processes of it, and by no step that was skipped; in that weight
decay has no schedule; and in that KoLeo spreads the embeddings of the head, not the features before it,
over the batches of all processes.
"""

# Shapes: B = batch of one process, G = global views, V = views, D = embedding size, K = prototypes.

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...data.settings import Probability, settings
from ...seg.networks.network import Network
from ...seg.networks.registry import Architecture
from ..ema import base_momentum, follow, momentum_at, teacher_of
from ..gather import gathered
from ..heads import EmbeddingConfig, EmbeddingHead
from ..koleo import koleo_loss
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method

Temperature = Annotated[float, Field(gt=0, le=10)]
GLOBAL_VIEWS = 2
# 100 epochs of ImageNet in batches of 1024
MOMENTUM_OF_PAPER, STEPS_OF_PAPER = 0.996, 125_100


@settings
class DinoConfig(EmbeddingConfig):
    """What the paper has where it differs stands behind each; its `hidden` is 2048, in two layers.

    `prototypes` has to suit the data. ImageNet has about 4,000 global views to each of 65,536 in 100 epochs
    (1.28 million images, 2 views); a few hundred steps of some 8 global views have about ten to each of
    256. Most of more would never be chosen.

    `dimension` goes with the temperatures: cosines of random unit vectors have a deviation of 1 /
    sqrt(`dimension`), so that with a smaller one all softmaxes are sharper.

    Where views of a volume foretell less of each other than `teacher_temperature` / `student_temperature`,
    outputs shrink from teacher to student until all are the same. Of few volumes, views foretell little at
    first: so the teacher stays at 0.04, which is also the default of the authors' code, and does not go up
    to the paper's 0.07.

    - `temperature_warmup`: the share of the training in which the teacher's temperature goes from
      `first_teacher_temperature` to `teacher_temperature`.
    - `teacher_momentum`: after the first step, from where it rises to 1; None scales the paper's 0.996.
    - `centre_momentum`: 1 leaves the centre at 0, which is no centring.
    - `frozen`: the share of the training in which the prototypes stay as they are.
    - `koleo`: the weight of KoLeo.
    """

    dimension: Annotated[int, Field(ge=2)] = 256
    prototypes: Annotated[int, Field(ge=2)] = 256  # 65,536
    local_views: Annotated[int, Field(ge=0)] = 2  # 8, of a fifth of the pixels
    student_temperature: Temperature = 0.1
    first_teacher_temperature: Temperature = 0.04
    teacher_temperature: Temperature = 0.04  # 0.07
    temperature_warmup: Probability = 0.3  # 30 epochs of 100 or more
    teacher_momentum: Annotated[float, Field(ge=0, lt=1)] | None = None  # 0.996
    centre_momentum: Probability = 0.9
    frozen: Probability = 0.05  # an epoch of 100 or more
    koleo: Annotated[float, Field(ge=0)] = 0.0  # DINOv2: 0.1


def dino_targets(teacher_GBK: Tensor, centre_K: Tensor, *, temperature: float) -> Tensor:
    """What the teacher tells of global views, (G, B, K): centred and sharpened shares of the prototypes."""
    return ((teacher_GBK.detach().float() - centre_K) / temperature).softmax(dim=-1)


def dino_loss(student_VBK: Tensor, targets_GBK: Tensor, *, temperature: float) -> Tensor:
    """Cross-entropy of what the student tells of a view, by what the teacher tells of another; shape ().

    The mean over all pairs of different views. The first views of the student are those of the teacher.
    """
    global_views, views = len(targets_GBK), len(student_VBK)
    if not 0 < global_views <= views or views < 2:
        raise ValueError(f"{views} views, {global_views} of them global: there is no pair of different ones")
    log_VBK = (student_VBK.float() / temperature).log_softmax(dim=-1)
    crossed_GV = -(targets_GBK[:, None] * log_VBK).sum(dim=-1).mean(dim=-1)
    same_GV = torch.eye(global_views, views, dtype=torch.bool, device=crossed_GV.device)
    return crossed_GV.masked_fill(same_GV, 0.0).sum() / (global_views * (views - 1))


def entropy(shares: Tensor) -> Tensor:
    """The mean entropy of shares (..., K), shape (), in nats."""
    return torch.special.entr(shares).sum(dim=-1).mean()


def information(shares_BK: Tensor) -> Tensor:
    """How much shares (B, K) tell of which item they are of, shape (), in nats: from 0 to ln B.

    The entropy of their mean without their mean entropy. It is 0 where all are the same.
    """
    return entropy(shares_BK.mean(dim=0)) - entropy(shares_BK)


def teacher_temperature_at(step: int, steps: int, config: DinoConfig) -> float:
    """The teacher's temperature at a step (from 0) of so many: it warms up linearly, then stays."""
    warmup = config.temperature_warmup * steps
    passed = min(1.0, step / warmup) if warmup else 1.0
    first = config.first_teacher_temperature
    return first + passed * (config.teacher_temperature - first)


class DinoHead(nn.Module):
    """An embedding, and a last layer of normalised weights: the prototypes.

    They are normalised where they are used, which is what weight normalisation of magnitude 1 does.
    """

    def __init__(self, architecture: Architecture, config: DinoConfig) -> None:
        super().__init__()
        self.embedding = EmbeddingHead(architecture, config)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(config.prototypes, config.dimension), dim=1))

    def forward(self, network: Network, *images: Tensor, frozen: bool = False) -> tuple[Tensor, Tensor]:
        """Unit vectors (all B, D) of images, and their cosines with the prototypes (all B, K)."""
        z_BD = F.normalize(self.embedding(network, *images).float(), dim=1)
        prototypes_KD = F.normalize(self.prototypes.float(), dim=1)
        if frozen:
            # without a gradient, an optimiser passes over them
            prototypes_KD = prototypes_KD.detach()
        with torch.autocast(z_BD.device.type, enabled=False):
            return z_BD, z_BD @ prototypes_KD.T


@register_method("dino", DinoConfig)
class Dino(Method):
    """A student tells of every view what a slower teacher tells of the global ones."""

    source = "Caron et al. 2021, arXiv:2104.14294"
    embeds = True
    adamw_lr = 1e-3

    head: DinoHead
    centre: Tensor
    outputs: Tensor
    rows: Tensor

    def __init__(self, network: Network, head: DinoHead, config: DinoConfig, scope: Scope) -> None:
        super().__init__(network, head, config, scope)
        self.teacher, self.teacher_head = teacher_of(network), teacher_of(head)
        scaled, said = base_momentum(scope.steps, MOMENTUM_OF_PAPER, STEPS_OF_PAPER), config.teacher_momentum
        self.momentum = scaled if said is None else said
        # buffers: a step that is skipped leaves them as they were
        self.register_buffer("centre", torch.zeros(config.prototypes))
        # the teacher's outputs since the last step: their sum, and how many there are
        self.register_buffer("outputs", torch.zeros(config.prototypes))
        self.register_buffer("rows", torch.zeros(()))

    @staticmethod
    def views(config: DinoConfig) -> ViewSpec:
        """Two global views, and local ones, of two volumes or more: of one, the head can take no mean off."""
        return ViewSpec(global_views=GLOBAL_VIEWS, local_views=config.local_views, volumes=2)

    @staticmethod
    def heads(scope: Scope, config: DinoConfig) -> DinoHead:
        """The student's head."""
        return DinoHead(scope.architecture, config)

    def forward(self, batch: Views, step: int) -> PretextResult:
        """The student's cross-entropy with the teacher, which is shown the global views alone."""
        config, steps = self.config, self.scope.steps
        # local views may have another extent: a pass of the network for each
        parts = [torch.cat(part) for part in (batch.views[:GLOBAL_VIEWS], batch.views[GLOBAL_VIEWS:]) if part]
        embeddings, told = self.head(self.network, *parts, frozen=step < config.frozen * steps)
        with torch.no_grad():
            _, teacher = self.teacher_head(self.teacher, parts[0])
        if self.training:
            every = gathered(teacher)
            self.outputs += every.sum(dim=0)
            self.rows += len(every)
        targets = dino_targets(
            teacher.unflatten(0, (GLOBAL_VIEWS, -1)),
            self.centre,
            temperature=teacher_temperature_at(step, steps, config),
        )
        loss = dino_loss(
            told.unflatten(0, (len(batch.views), -1)), targets, temperature=config.student_temperature
        )
        logs = {
            "teacher_entropy": entropy(targets),
            # cross-entropy is entropy and divergence
            "kl": loss.detach() - entropy(targets),
            # a teacher that is sure of everything, rightly, has no entropy and divergence either
            "teacher_information": information(gathered(targets.flatten(0, 1))),
        }
        of_views = embeddings.unflatten(0, (len(batch.views), -1))
        if config.koleo > 0:
            # each global view on its own: the two of a volume are not to part
            crowding = torch.stack([koleo_loss(gathered(z_BD)) for z_BD in of_views[:GLOBAL_VIEWS]]).mean()
            loss, logs = loss + config.koleo * crowding, {**logs, "koleo": crowding.detach()}
        return PretextResult(loss=loss, logs=logs, embeddings=of_views[0])

    def embed(self, view: Tensor) -> Tensor:
        """Unit vectors (B, D) of the student, which shows a collapse before its teacher does."""
        return self.head(self.network, view)[0]

    def resting_loss(self) -> float:
        """The entropy of a teacher that tells the same of everything: all prototypes alike."""
        return math.log(self.config.prototypes)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """The centre and the teacher follow."""
        self.centre.lerp_(self.outputs / self.rows, 1 - self.config.centre_momentum)
        self.outputs.zero_()
        self.rows.zero_()
        momentum = momentum_at(step, self.scope.steps, self.momentum)
        follow(self.teacher, self.network, momentum)
        follow(self.teacher_head, self.head, momentum)

    def exported_network(self) -> Network:
        """The teacher's, which is steadier, and the better one (section 5.2)."""
        return self.teacher
