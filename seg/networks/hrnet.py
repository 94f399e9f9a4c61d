"""HRNet in three dimensions: levels side by side that exchange what they found, the finest never left.

Source: Wang et al. 2020 (arXiv:1908.07919), sections 3.1 to 3.3. We differ as follows. There is a branch for
each level of the plan, with its strides, kernels and features, the finest at the resolution of the image and
not at a quarter of it. For that a stage is one exchange behind two residual blocks, where the paper has one
to four behind four each. The branches are joined from coarse to fine by the decoder of our U-Net, which gives
features at every level, and not all at once (HRNetV2). Normalisation and rectifier are those of our U-Net.
"""

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor, nn

from .blocks import SLOPE, ConvBlock, convolution, normalised
from .residual_unet import ResidualBlock
from .topology import Topology, Triple
from .unet import UNet

_BLOCKS = 2


class HRNet(UNet):
    """Parallel branches, one more in every stage; decoder levels have one convolution."""

    decoder_convolutions: ClassVar[int] = 1
    exchanging: ClassVar[bool] = True

    def _encoder(self, in_channels: int, topology: Topology, strides: list[Triple]) -> Iterator[nn.Module]:
        return (Branch(level, in_channels, topology, strides) for level in range(len(strides)))

    def encode(self, images: Tensor) -> list[Tensor]:
        self._check(images)
        features = [images]
        for stage, newest in enumerate(self.encoder):
            entered = self._run(newest.enter, features[-1])  # type: ignore[arg-type]
            features = [*features, entered] if stage else [entered]
            grown = [
                self._run(branch.blocks[stage - level], found)  # type: ignore[index]
                for level, (branch, found) in enumerate(zip(self.encoder, features, strict=False))
            ]
            features = [
                self._run(branch.exchanges[stage - level], *grown)  # type: ignore[index]
                for level, branch in zip(range(len(grown)), self.encoder, strict=False)
            ]
        return features


class Branch(nn.Module):
    """All that computes the features of a level: how it begins, its blocks and exchanges stage by stage.

    Its first stage is that in which it begins, so that names mean the same in a network of other levels.
    """

    def __init__(self, level: int, in_channels: int, topology: Topology, strides: list[Triple]) -> None:
        super().__init__()
        features, kernel = topology.features, topology.kernels[level]
        self.enter = (
            convolution(features[level - 1], features[level], kernel, strides[level])
            if level
            else ConvBlock(in_channels, features[0], kernel)
        )
        stages = range(level, len(features))
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(features[level], features[level], kernel) for _ in range(_BLOCKS)))
            for _ in stages
        )
        self.exchanges = nn.ModuleList(Exchange(level, stage + 1, topology, strides) for stage in stages)


class Exchange(nn.Module):
    """The features of a level and those of all others in its shape, added and rectified.

    `finer` and `coarser` are by how far away the level is that they read, the nearest first.
    """

    def __init__(self, level: int, levels: int, topology: Topology, strides: list[Triple]) -> None:
        super().__init__()
        self.level = level
        self.finer = nn.ModuleList(
            _down(source, level, topology, strides) for source in reversed(range(level))
        )
        self.coarser = nn.ModuleList(
            Up(level, source, topology, strides) for source in range(level + 1, levels)
        )

    def forward(self, *features: Tensor) -> Tensor:
        """Features of this level for those of all levels, finest first."""
        before, own, after = features[: self.level], features[self.level], features[self.level + 1 :]
        for path, found in zip((*self.finer, *self.coarser), (*reversed(before), *after), strict=True):
            own = own + path(found)
        # not in place: the first stage has nothing to add
        return nn.functional.leaky_relu(own, SLOPE)


class Up(nn.Module):
    """Features of a coarser level, projected and repeated over the strides between."""

    def __init__(self, level: int, source: int, topology: Topology, strides: list[Triple]) -> None:
        super().__init__()
        features = topology.features
        self.projection = normalised(features[source], features[level], (1, 1, 1), bias=False)
        self.repeats = tuple(math.prod(axis) for axis in zip(*strides[level + 1 : source + 1], strict=True))

    def forward(self, features: Tensor) -> Tensor:
        projected = self.projection(features)
        for axis, times in enumerate(self.repeats, start=2):
            if times > 1:
                projected = projected.repeat_interleave(times, dim=axis)
        return projected


def _down(source: int, level: int, topology: Topology, strides: Sequence[Triple]) -> nn.Sequential:
    """Strided convolutions down to a level, the last to its number of features and not rectified."""
    features, kernels = topology.features, topology.kernels
    steps = [
        convolution(features[source], features[source], kernels[i], strides[i])
        for i in range(source + 1, level)
    ]
    return nn.Sequential(
        *steps, normalised(features[source], features[level], kernels[level], strides[level])
    )
