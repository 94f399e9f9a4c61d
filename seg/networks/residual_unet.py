"""The U-Net with residual blocks in its encoder.

Source: nnU-Net's ResEnc (Isensee et al. 2024, arXiv:2404.09556), that is `ResidualEncoderUNet` of
dynamic_network_architectures, whose weights pass here and back one by one; the blocks are those of ResNet-D
(He et al. 2018, arXiv:1812.01187). The checkpoints of nnssl are such networks. We differ as our U-Net does:
there is no deep supervision.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import ClassVar

from torch import Tensor, nn

from .blocks import convolution, normalised, rectifier
from .topology import Topology, Triple
from .unet import UNet

# residual blocks of the levels, finest first, the last number for all that are deeper; nnU-Net's, whatever
# the size of its presets
BLOCKS = (1, 3, 4, 6)


class ResidualUNet(UNet):
    """A U-Net whose encoder levels are `topology.blocks` residual blocks, the finest behind a stem.

    Decoder levels have one convolution.
    """

    decoder_convolutions: ClassVar[int] = 1

    def _encoder(self, in_channels: int, topology: Topology, strides: list[Triple]) -> Iterable[nn.Module]:
        features = topology.features
        inputs = [features[0], *features[:-1]]
        stacks = map(_stack, inputs, features, topology.kernels, strides, topology.blocks)
        levels = [OrderedDict[str, nn.Module](blocks=stack) for stack in stacks]
        stem = convolution(in_channels, features[0], topology.kernels[0])
        levels[0] = OrderedDict(stem=stem, **levels[0])
        return map(nn.Sequential, levels)


class ResidualBlock(nn.Module):
    """Two convolutions, the first with the stride, whose result is added to what came in.

    What came in is averaged over the stride, and projected where the number of features changes.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, kernel, stride)
        self.second = normalised(outputs, outputs, kernel)
        self.pool = nn.AvgPool3d(stride) if stride != (1, 1, 1) else nn.Identity()
        self.projection = (
            normalised(inputs, outputs, (1, 1, 1), bias=False) if inputs != outputs else nn.Identity()
        )
        self.rectifier = rectifier()
        # a block begins as its skip alone (Goyal et al. 2017, arXiv:1706.02677, section 5.1)
        nn.init.zeros_(self.second[1].weight)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        out = self.second(self.first(features))
        out += self.projection(self.pool(features))
        return self.rectifier(out)


def _stack(inputs: int, outputs: int, kernel: Triple, stride: Triple, number: int) -> nn.Sequential:
    more = (ResidualBlock(outputs, outputs, kernel) for _ in range(number - 1))
    return nn.Sequential(ResidualBlock(inputs, outputs, kernel, stride), *more)
