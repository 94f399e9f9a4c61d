"""EfficientNet in three dimensions as the encoder of a U-Net.

Source: Tan & Le 2019 (arXiv:1905.11946), table 1 and section 3.3: inverted bottlenecks with squeeze and
excitation, whose number and widths grow together from b0 to b4. The decoder is that of our U-Net.
We differ as follows. Kernels are cubes, 1 along an axis of one slice. The seven stages are shared out to the
plan's levels, whose strides they take, and the stem keeps the resolution, as a U-Net has a level at that of
the image. Batches hold two patches: group normalisation stands for batch normalisation, and not instance
normalisation, which takes away the means that squeeze and excitation reads. There is no stochastic depth.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from ...data.plan import Training
from .topology import Topology, Triple, topology
from .unet import UNet


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Blocks of one width; `expansion` is how many times wider they are within."""

    expansion: int
    width: int
    blocks: int
    kernel: int


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How many times wider and deeper than b0 a network is."""

    width: float
    depth: float

    def stages(self) -> list[Stage]:
        """Table 1, scaled; widths are multiples of 8 (`round_filters` of the authors' code)."""
        return [
            replace(s, width=_round_width(self.width * s.width), blocks=math.ceil(self.depth * s.blocks))
            for s in _B0
        ]


_B0 = tuple(
    Stage(expansion=expansion, width=width, blocks=blocks, kernel=kernel)
    for expansion, width, blocks, kernel in (
        (1, 16, 1, 3),
        (6, 24, 2, 3),
        (6, 40, 2, 5),
        (6, 80, 3, 3),
        (6, 112, 3, 5),
        (6, 192, 4, 5),
        (6, 320, 1, 3),
    )
)
# `efficientnet_params` of the authors' code
SCALINGS = {
    "efficientnet_b0": Scaling(width=1.0, depth=1.0),
    "efficientnet_b1": Scaling(width=1.0, depth=1.1),
    "efficientnet_b2": Scaling(width=1.1, depth=1.2),
    "efficientnet_b3": Scaling(width=1.2, depth=1.4),
    "efficientnet_b4": Scaling(width=1.4, depth=1.8),
}
# where the stages of a level end: the published resolutions for five levels; with fewer the coarsest level
# takes the rest, with more the widest stages have levels of their own
_LAST_STAGES = {5: (1, 2, 3, 5, 7), 6: (1, 2, 3, 5, 6, 7)}
# the width of a plan at which stages have the published widths
_PUBLISHED_WIDTH = 32


def efficientnet_topology(training: Training, scaling: Scaling) -> Topology:
    """The levels a plan asks for, as wide as the last stage of each.

    Widths are the published ones for a plan of width 32 and in proportion for others, as other networks have
    them; `max_width` is not used.
    """
    levels = topology(training)
    stages, share = scaling.stages(), training.width / _PUBLISHED_WIDTH
    last = [group[-1] for group in _groups(stages, len(levels.features))]
    return replace(levels, features=tuple(_scaled(stage.width, share) for stage in last))


class EfficientNetUNet(UNet):
    """A U-Net whose encoder levels are one or more stages of EfficientNet, the finest behind a stem.

    Within a level, stages before the last are as much narrower than it as published.
    """

    def __init__(self, in_channels: int, classes: int, topology: Topology, *, scaling: Scaling) -> None:
        self._stages = scaling.stages()
        super().__init__(in_channels, classes, topology)

    def _encoder(self, in_channels: int, topology: Topology, strides: list[Triple]) -> Iterator[nn.Module]:
        # twice the first stage, as published
        inputs = 2 * topology.features[0]
        stem: list[nn.Module] = [_normalised(in_channels, inputs, topology.kernels[0]), nn.SiLU(inplace=True)]
        groups = _groups(self._stages, len(topology.features))
        for group, features, kernel, stride in zip(
            groups, topology.features, topology.kernels, strides, strict=True
        ):
            share = features / group[-1].width
            stages = [replace(stage, width=_scaled(stage.width, share)) for stage in group[:-1]]
            stages.append(replace(group[-1], width=features))
            yield nn.Sequential(*stem, *_blocks(inputs, stages, kernel, stride))
            stem, inputs = [], features


class InvertedBottleneck(nn.Module):
    """Widens, convolves each feature by itself with the stride, weighs the features and narrows again.

    What came in is added where it has the shape of what goes out.
    """

    def __init__(self, inputs: int, stage: Stage, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        inner = inputs * stage.expansion
        widen = [_normalised(inputs, inner, (1, 1, 1)), nn.SiLU(inplace=True)] if stage.expansion > 1 else []
        self.layers = nn.Sequential(
            *widen,
            _normalised(inner, inner, kernel, stride, groups=inner),
            nn.SiLU(inplace=True),
            SqueezeExcitation(inner, max(1, inputs // 4)),
            _normalised(inner, stage.width, (1, 1, 1)),
        )
        self.residual = stride == (1, 1, 1) and inputs == stage.width

    def forward(self, features: Tensor) -> Tensor:
        out = self.layers(features)
        return out + features if self.residual else out


class SqueezeExcitation(nn.Module):
    """Features weighed by what their means over the patch say (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, features: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv3d(features, squeezed, 1)
        self.excite = nn.Conv3d(squeezed, features, 1)

    def forward(self, features: Tensor) -> Tensor:
        squeezed = nn.functional.silu(self.squeeze(features.mean(dim=(2, 3, 4), keepdim=True)))
        return features * torch.sigmoid(self.excite(squeezed))


def _groups(stages: list[Stage], levels: int) -> list[list[Stage]]:
    """The stages of each level; levels beyond the seventh repeat the last stage."""
    stages = stages + stages[-1:] * (levels - len(stages))
    ends = _LAST_STAGES.get(levels, (*range(1, levels), len(stages)))
    return [stages[begin:end] for begin, end in pairwise((0, *ends))]


def _blocks(inputs: int, stages: Iterable[Stage], kernel: Triple, stride: Triple) -> Iterator[nn.Module]:
    """The blocks of a level's stages; the first takes the stride."""
    for stage in stages:
        z, y, x = (1 if extent == 1 else stage.kernel for extent in kernel)
        for _ in range(stage.blocks):
            yield InvertedBottleneck(inputs, stage, (z, y, x), stride)
            inputs, stride = stage.width, (1, 1, 1)


def _normalised(
    inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1), *, groups: int = 1
) -> nn.Sequential:
    z, y, x = kernel
    padding = (z // 2, y // 2, x // 2)
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.GroupNorm(_norm_groups(outputs), outputs),
    )


def _norm_groups(features: int) -> int:
    """Up to 8 groups, each of 4 features or more where there are as many."""
    return max(n for n in range(1, 9) if features % n == 0 and (n == 1 or features // n >= 4))


def _round_width(width: float) -> int:
    """The nearest multiple of 8 that is not less than nine tenths."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def _scaled(width: int, share: float) -> int:
    """An even number of features: one alone could not be normalised where one voxel is left."""
    return max(2, 2 * round(width * share / 2))
