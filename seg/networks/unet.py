"""A 3D U-Net whose poolings may differ per axis.

Source: Ronneberger et al. 2015 (arXiv:1505.04597) in the form of nnU-Net (Isensee et al. 2021,
doi:10.1038/s41592-020-01008-z): two convolutions per level, instance normalisation, leaky ReLU, strided
convolutions down, transposed convolutions up, every convolution with a bias, so that weights pass to nnU-Net
and back one by one. We differ in that there is no deep supervision, and that encoder, decoder levels and
output can be taken one by one.
"""

# Shapes: B = batch, C = channels or features, K = classes; spatial extents shrink by the strides.

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

from torch import Tensor, nn

from .blocks import ConvBlock, UpBlock, initialise
from .network import Network
from .topology import Topology, Triple


class UNet(Network):
    """Levels of convolutions, joined across at equal extent."""

    decoder_convolutions: ClassVar[int] = 2

    def __init__(self, in_channels: int, classes: int, topology: Topology) -> None:
        super().__init__()
        features, kernels, strides = topology.features, topology.kernels, topology.strides
        self.encoder = nn.ModuleList(self._encoder(in_channels, topology, [(1, 1, 1), *strides]))
        self.decoder = nn.ModuleList(
            UpBlock(
                features[level + 1],
                features[level],
                kernels[level],
                strides[level],
                self.decoder_convolutions,
            )
            for level in reversed(range(len(strides)))
        )
        self.output = nn.Conv3d(features[0], classes, 1)
        self.multiple = tuple(math.prod(s[axis] for s in strides) for axis in range(3))
        self.apply(initialise)

    def _encoder(self, in_channels: int, topology: Topology, strides: list[Triple]) -> Iterable[nn.Module]:
        """The levels, finest first; `strides[i]` leads into level i."""
        inputs = [in_channels, *topology.features[:-1]]
        return map(ConvBlock, inputs, topology.features, topology.kernels, strides)

    def encode(self, images: Tensor) -> list[Tensor]:
        self._check(images)
        features = [images]
        for block in self.encoder:
            features.append(self._run(block, features[-1]))
        return features[1:]

    def decode(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        *skips, features = encoded
        decoded = []
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            features = self._run(block, features, skip)
            decoded.append(features)
        return decoded or [features]
