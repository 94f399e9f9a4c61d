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
from .topology import Topology, Triple


class UNet(nn.Module):
    """Encoder, decoder and output of a segmentation network.

    Input (B, in_channels, Z, Y, X), with each extent a multiple of the product of its strides.
    `forward` gives logits (B, classes, Z, Y, X).
    """

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
        """Features of every encoder level, finest first."""
        self._check(images)
        features = [images]
        for block in self.encoder:
            features.append(block(features[-1]))
        return features[1:]

    def decode(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        """Features of every decoder level, coarsest first; the last have the extent of the input."""
        *skips, features = encoded
        decoded = []
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            features = block(features, skip)
            decoded.append(features)
        return decoded or [features]

    def features(self, images: Tensor) -> Tensor:
        """Features (B, C, Z, Y, X) of the last decoder level, from which the output is read."""
        return self.decode(self.encode(images))[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, Z, Y, X)."""
        return self.output(self.features(images))

    def _check(self, images: Tensor) -> None:
        odd = [n % m for n, m in zip(images.shape[2:], self.multiple, strict=True)]
        if any(odd):
            raise ValueError(
                f"input of extent {tuple(images.shape[2:])}: each axis must be a multiple of {self.multiple}"
            )
