"""Models Genesis: a view is changed in its grey values, shuffled and painted over; the network restores it.

Source: Zhou et al. 2021, https://doi.org/10.1016/j.media.2020.101840, section 3, with the probabilities of
its code (https://github.com/MrGiovanni/ModelsGenesis, pytorch/config.py) and its order: shuffled, then mapped
through a curve, then in-painted or out-painted, never both. We differ in what the operations say of
themselves: noise is that of a z-scored volume instead of uniform between 0 and 1, a curve maps each channel's
own range, windows may touch the border. Flips and turns come with the views, before all else as flips there.
"""

# Shapes: B = batch, C = channels.

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator
from torch import Tensor, nn

from ...data.augment.curve import Curve
from ...data.augment.draws import Draws
from ...data.augment.masking import InPainting, OutPainting
from ...data.augment.shuffling import LocalShuffling
from ...data.settings import over, settings
from ..method import Method, PretextResult, Scope, Views, ViewSpec, register_method

# paint_rate 0.9, of which outpaint_rate 0.8
_IN, _OUT = InPainting(probability=0.18), OutPainting(probability=0.72)
# local_rate and nonlinear_rate
_SHUFFLING, _CURVE = LocalShuffling(probability=0.5), Curve(probability=0.9)


@settings
class GenesisConfig:
    """The operations, each with how often it is done. In a file, what of one is not said has its default.

    A view is in-painted or out-painted, so that their probabilities are no more than 1 together.
    """

    shuffling: Annotated[LocalShuffling, BeforeValidator(over(_SHUFFLING))] = _SHUFFLING
    curve: Annotated[Curve, BeforeValidator(over(_CURVE))] = _CURVE
    in_painting: Annotated[InPainting, BeforeValidator(over(_IN))] = _IN
    out_painting: Annotated[OutPainting, BeforeValidator(over(_OUT))] = _OUT

    def __post_init__(self) -> None:
        """Raises ValueError where views would be painted over more often than always."""
        both = self.in_painting.probability + self.out_painting.probability
        if both > 1 + 1e-9:
            raise ValueError(
                f"in_painting and out_painting exclude each other: 1 together at most, not {both:g}"
            )


def corrupted(view: Tensor, config: GenesisConfig, draws: Draws) -> Tensor:
    """A changed copy of a view (C, Z, Y, X); at times all operations are left out, as in the paper's code."""
    view = view.clone()
    if draws.chance(config.shuffling.probability):
        view = config.shuffling(view, draws)
    if draws.chance(config.curve.probability):
        view = config.curve(view, draws)
    painting = draws.within((0.0, 1.0))
    if painting < config.in_painting.probability:
        return config.in_painting(view, draws)
    if painting < config.in_painting.probability + config.out_painting.probability:
        return config.out_painting(view, draws)
    return view


@register_method("genesis", GenesisConfig)
class Genesis(Method):
    """A view is mapped through a curve, shuffled, and in- or out-painted; the network restores it."""

    source = "Zhou et al. 2021, doi:10.1016/j.media.2020.101840"

    @staticmethod
    def views(config: GenesisConfig) -> ViewSpec:  # noqa: ARG004
        """One view of each volume, with the grey values that are to be restored."""
        return ViewSpec(global_views=1, plain=True)

    @staticmethod
    def heads(scope: Scope, config: GenesisConfig) -> nn.Module:  # noqa: ARG004
        """One convolution from the last features to grey values."""
        architecture = scope.architecture
        return nn.Conv3d(architecture.topology.features[0], architecture.in_channels, 1)

    def forward(self, batch: Views, step: int) -> PretextResult:  # noqa: ARG002
        """Mean squared error over all voxels of the views."""
        (view,) = batch.views
        given = torch.stack(
            [corrupted(item, self.config, Draws((batch.seed, i))) for i, item in enumerate(view)]
        )
        restored = self.head(self.network.features(given)).float()
        loss = F.mse_loss(restored, view.float())
        # what painting the mean of all voxels would lose, and what a copy of the given view would
        spread = view.float().var(correction=0).clamp_min(1e-12)
        return PretextResult(
            loss=loss,
            logs={
                "unexplained_variance": loss.detach() / spread,
                "loss_of_a_copy": F.mse_loss(given.float(), view.float()),
            },
        )
