"""Swin UNETR: attention within shifted windows in the encoder, convolutions in the decoder.

Source: Hatamizadeh et al. 2022 (arXiv:2201.01266), with the blocks of MONAI (`BasicLayer`), which are those
of Liu et al. 2021 (arXiv:2103.14030). We differ as follows. Patches are merged by the plan's strides, by a
strided convolution behind layer normalisation, so that every axis and any number of levels can be pooled.
The finest level reads the image by convolutions and the others read that, where the paper embeds patches of
the image a second time: so the image's channels are known in one place. Blocks stand behind each merging, as
Liu et al. have them, and the coarsest level has them too. Windows are smaller. Convolutions, their
normalisation and the decoder are those of our U-Nets.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from torch import Tensor, nn

from ...data.errors import UserError
from ...data.plan import Training
from .residual_unet import ResidualBlock
from .topology import Topology, Triple, topology
from .unet import UNet

# the first level with attention has three heads and two blocks, as published; heads double with the features
_HEADS, _BLOCKS = 3, 2
_MULTIPLE = 12
# voxels per axis. A plan leaves 4 or more at its coarsest level, and finer levels are multiples of that: the
# paper's 7 would pad all of them
WINDOW = 4


def swin_topology(training: Training) -> Topology:
    """The levels a plan asks for: F, F, 2F, 4F ... features, where F is its width or the next multiple of 12.

    None has more than the plan's `max_width`, or F. Raises UserError for a plan without pooling.
    """
    levels = topology(training)
    if not levels.strides:
        raise UserError(
            "network swin_unetr",
            found="a plan without pooling",
            rule="Its windows of attention stand on levels that are pooled at least once",
            remedy="Choose another network, or a larger patch",
        )
    size = math.ceil(training.width / _MULTIPLE) * _MULTIPLE
    most = max(size, training.max_width // size * size)
    features = (size, *(min(size * 2**i, most) for i in range(len(levels.strides))))
    return replace(levels, features=features)


class SwinUNETR(UNet):
    """A U-Net whose encoder levels but the finest are merged patches that attend to each other."""

    def _encoder(self, in_channels: int, topology: Topology, strides: list[Triple]) -> Iterator[nn.Module]:
        features, kernels = topology.features, topology.kernels
        yield ResidualBlock(in_channels, features[0], kernels[0])
        for level in range(1, len(features)):
            heads = _HEADS * features[level] // features[1]
            yield AttentionLevel(features[level - 1], features[level], kernels[level], strides[level], heads)

    def encode(self, images: Tensor) -> list[Tensor]:
        self._check(images)
        finest, *deeper = self.encoder
        tokens = self._run(finest, images)
        features = [tokens]
        for level in deeper:
            tokens, read = self._run(level, tokens)
            features.append(read)
        return features


class AttentionLevel(nn.Module):
    """Merges patches by the stride and lets them attend to each other.

    Gives the patches, for the next level, and the features that are read from them, for the decoder.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Triple, stride: Triple, heads: int) -> None:
        super().__init__()
        self.merging = nn.Sequential(
            VoxelNorm(inputs), nn.Conv3d(inputs, outputs, stride, stride, bias=False)
        )
        self.attention = _attention(outputs, math.gcd(outputs, heads))
        whole = next(_window_attentions(self.attention)).relative_position_index
        self.positions: Tensor
        self.register_buffer("positions", cast(Tensor, whole), persistent=False)
        self.reading = nn.Sequential(VoxelNorm(outputs), ResidualBlock(outputs, outputs, kernel))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.merging(features)
        self._place(patches)
        patches = self.attention(patches)
        return patches, self.reading(patches)

    def _place(self, patches: Tensor) -> None:
        """Tells the blocks how the voxels of a window lie to each other where the level is smaller than one.

        MONAI cuts its windows to the level, and goes on numbering their voxels as in a whole one.
        """
        z, y, x = (slice(min(WINDOW, extent)) for extent in patches.shape[2:])
        index = self.positions.unflatten(1, (WINDOW,) * 3).unflatten(0, (WINDOW,) * 3)[z, y, x, z, y, x]
        for module in _window_attentions(self.attention):
            module.relative_position_index = index.flatten(0, 2).flatten(1)


class VoxelNorm(nn.LayerNorm):
    """Layer normalisation of the features (B, C, Z, Y, X) of each voxel."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


def _attention(features: int, heads: int) -> nn.Module:
    """MONAI's blocks, every second one with shifted windows."""
    # takes seconds to import
    from monai.networks.nets.swin_unetr import BasicLayer

    window = (WINDOW, WINDOW, WINDOW)
    layer = BasicLayer(features, _BLOCKS, heads, window, drop_path=[0.0] * _BLOCKS, qkv_bias=True)
    for module in _window_attentions(layer):
        # it follows from the window: no weight
        index = cast(Tensor, module.relative_position_index)
        del module.relative_position_index
        module.register_buffer("relative_position_index", index, persistent=False)
    return layer


def _window_attentions(layer: nn.Module) -> Iterator[nn.Module]:
    return (module for module in layer.modules() if hasattr(module, "relative_position_index"))
