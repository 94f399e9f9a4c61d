"""Rotation: by which quarter turn a view was turned.

Source: Taleb et al. 2020, https://arxiv.org/abs/2006.03829, section 3.4 (3D-Rot): ten classes, none and 90,
180 or 270 degrees about one of three axes; after Gidaris et al. 2018, https://arxiv.org/abs/1803.07728,
section 2. We differ from Taleb et al. in that each view is shown in several turns at a step, all different,
as Gidaris et al. do with all of their four, which they found to work better. There are fewer classes where a
view is not a cube of equally resolved voxels: 90 and 270 degrees need a square plane (see `quarter_turns`),
or the grid of voxels would tell the turn.
"""

# Shapes: B = batch, T = turns that a view is shown in, K = classes.

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ...data.settings import settings
from ...seg.networks.network import Network
from ..cell_heads import CellClassifier, CellHeadConfig
from ..cell_task import CellTask
from ..classified import classified
from ..method import PretextResult, Scope, Views, ViewSpec, register_method
from ..quarter_turns import QuarterTurns, turns_of


@settings
class RotationConfig(CellHeadConfig):
    """Each view is shown in `turns` different turns at a step, or in all there are."""

    # Gidaris et al.: all 4 of the plane; Taleb et al.: 1 of 10
    turns: Annotated[int, Field(ge=1, le=10)] = 4


def draw_turns(batch: int, possible: int, shown: int, generator: torch.Generator) -> Tensor:
    """Numbers of turns (B, T): for each view some of all possible ones, each as likely, none twice."""
    return torch.rand(batch, possible, generator=generator).argsort(dim=1)[:, :shown]


def all_turned(view: Tensor, turns: QuarterTurns, numbers_BT: Tensor) -> Tensor:
    """Views (B, C, Z, Y, X), each in the turns of its numbers, (B, T, C, z, y, x)."""
    repeated = view.repeat_interleave(numbers_BT.shape[1], dim=0)
    return turns.turned(repeated, numbers_BT.flatten()).unflatten(0, tuple(numbers_BT.shape))


@register_method("rotation", RotationConfig)
class Rotation(CellTask):
    """By which quarter turn the view was turned."""

    source = "Taleb et al. 2020, arXiv:2006.03829, section 3.4; Gidaris et al. 2018, arXiv:1803.07728"

    def __init__(self, network: Network, head: CellClassifier, config: RotationConfig, scope: Scope) -> None:
        super().__init__(network, head, config, scope)
        self.turns = turns_of(scope)

    @staticmethod
    def views(config: RotationConfig) -> ViewSpec:
        """One view of each volume, as it stands; the head takes the mean of two images or more off."""
        return ViewSpec(upright=True, volumes=2 if config.turns == 1 else 1, times=config.turns)

    @staticmethod
    def heads(scope: Scope, config: RotationConfig) -> CellClassifier:
        """A classifier of single images."""
        return CellClassifier(scope.architecture, config, cells=1, classes=len(turns_of(scope).turns))

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """Cross-entropy over the turns that every view is shown in."""
        (view,), generator = batch.views, torch.Generator().manual_seed(batch.seed)
        numbers = draw_turns(len(view), self.head.classes, self.config.turns, generator)
        vectors = self.head.each(self.network, all_turned(view, self.turns, numbers))
        return classified(self.head(vectors.flatten(0, 1)[:, None]), numbers.flatten().to(view.device))
