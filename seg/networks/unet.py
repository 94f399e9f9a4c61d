"""A 3D U-Net whose poolings may differ per axis.

Source: Ronneberger et al. 2015 (arXiv:1505.04597) in the form of nnU-Net (Isensee et al. 2021): two
convolutions per level, instance normalisation, leaky ReLU, strided convolutions down, transposed
convolutions up, every convolution with a bias, so that weights pass to nnU-Net and back one by one. We
differ in that there is no deep supervision, and that encoder, decoder levels and output can be taken one
by one.
"""

# Shapes: B = batch, C = channels or features, K = classes; spatial extents shrink by the strides.

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .topology import Topology, Triple


class UNet(nn.Module):
    """Encoder, decoder and output of a segmentation network.

    Input (B, in_channels, Z, Y, X), with each extent a multiple of the product of its strides.
    `forward` gives logits (B, classes, Z, Y, X).
    """

    def __init__(self, in_channels: int, classes: int, topology: Topology) -> None:
        super().__init__()
        features, kernels, strides = topology.features, topology.kernels, topology.strides
        first: list[Triple] = [(1, 1, 1), *strides]
        inputs = [in_channels, *features[:-1]]
        self.encoder = nn.ModuleList(
            ConvBlock(i, o, kernel, stride)
            for i, o, kernel, stride in zip(inputs, features, kernels, first, strict=True)
        )
        self.decoder = nn.ModuleList(
            UpBlock(features[level + 1], features[level], kernels[level], strides[level])
            for level in reversed(range(len(strides)))
        )
        self.output = nn.Conv3d(features[0], classes, 1)
        self.multiple = tuple(math.prod(s[axis] for s in strides) for axis in range(3))
        self.apply(_initialise)

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


class ConvBlock(nn.Sequential):
    """Two convolutions, the first with the stride, each normalised and rectified."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple, stride: Triple) -> None:
        super().__init__(
            _convolution(inputs, outputs, kernel, stride), _convolution(outputs, outputs, kernel, (1, 1, 1))
        )


class UpBlock(nn.Module):
    """Doubles the extent where the stride is 2, joins the encoder's features and convolves twice."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(inputs, outputs, stride, stride)
        self.convolutions = ConvBlock(2 * outputs, outputs, kernel, (1, 1, 1))

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        return self.convolutions(torch.cat([self.up(coarse), skip], dim=1))


class InstanceNorm(nn.InstanceNorm3d):
    """Instance normalisation that lets a single voxel pass: it has no variance to divide by.

    torch refuses it in training; small or flat volumes reach it at the coarsest level.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[2:].numel() == 1:
            return input * self.weight.view(1, -1, 1, 1, 1) + self.bias.view(1, -1, 1, 1, 1)
        return super().forward(input)


def _convolution(inputs: int, outputs: int, kernel: Triple, stride: Triple) -> nn.Sequential:
    z, y, x = kernel
    padding = (z // 2, y // 2, x // 2)
    return nn.Sequential(
        # the normalisation takes the bias away again; nnU-Net's has one
        nn.Conv3d(inputs, outputs, kernel, stride, padding),
        InstanceNorm(outputs, affine=True),
        nn.LeakyReLU(0.01, inplace=True),
    )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
