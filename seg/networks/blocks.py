"""What the levels of every network are made of: convolutions that are normalised and rectified."""

import torch
from torch import Tensor, nn

from .topology import Triple

SLOPE = 0.01


class InstanceNorm(nn.InstanceNorm3d):
    """Instance normalisation that lets a single voxel pass: it has no variance to divide by.

    torch refuses it in training; small or flat volumes reach it at the coarsest level.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[2:].numel() == 1:
            return input * self.weight.view(1, -1, 1, 1, 1) + self.bias.view(1, -1, 1, 1, 1)
        return super().forward(input)


def normalised(
    inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1), *, bias: bool = True
) -> nn.Sequential:
    """A convolution and its normalisation, which takes the bias away again; nnU-Net's have one."""
    z, y, x = kernel
    padding = (z // 2, y // 2, x // 2)
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=bias), InstanceNorm(outputs, affine=True)
    )


def convolution(inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> nn.Sequential:
    """A convolution, normalised and rectified."""
    return normalised(inputs, outputs, kernel, stride).append(rectifier())


def rectifier() -> nn.Module:
    """Leaky ReLU, in place."""
    return nn.LeakyReLU(SLOPE, inplace=True)


class ConvBlock(nn.Sequential):
    """Convolutions (two by default), the first with the stride, each normalised and rectified."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1), number: int = 2
    ) -> None:
        more = (convolution(outputs, outputs, kernel) for _ in range(number - 1))
        super().__init__(convolution(inputs, outputs, kernel, stride), *more)


class UpBlock(nn.Module):
    """Grows the extent by the stride, joins the encoder's features and convolves `number` times."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple, stride: Triple, number: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(inputs, outputs, stride, stride)
        self.convolutions = ConvBlock(2 * outputs, outputs, kernel, number=number)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        return self.convolutions(torch.cat([self.up(coarse), skip], dim=1))


def initialise(module: nn.Module) -> None:
    """Weights of convolutions after He et al. 2015 (arXiv:1502.01852), biases 0, as nnU-Net has it."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
