"""What every network has: an encoder and a decoder that can be taken level by level, and an output."""

# Shapes: B = batch, C = channels or features, K = classes; spatial extents shrink by the strides.

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Network(nn.Module, ABC):
    """Encoder, decoder and output of a segmentation network.

    Input (B, in_channels, Z, Y, X), with each extent a multiple of `multiple`, the product of its strides.
    `forward` gives logits (B, classes, Z, Y, X). Blocks are named "encoder.0", ..., finest first, and
    "decoder.0", ..., coarsest first; a method may read the features of any.

    With `checkpointing` a training keeps what goes into each block and computes the block a second time on
    the way back (Chen et al. 2016, arXiv:1604.06174): less memory, about a third more time, the same
    gradients. `exchanging` tells whether an encoder level also reads coarser ones.
    """

    checkpointing: bool = False
    exchanging: ClassVar[bool] = False

    encoder: nn.ModuleList
    decoder: nn.ModuleList
    output: nn.Conv3d
    multiple: tuple[int, ...]

    @abstractmethod
    def encode(self, images: Tensor) -> list[Tensor]:
        """Features of every encoder level, finest first."""

    @abstractmethod
    def decode(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        """Features of every decoder level, coarsest first; the last have the extent of the input."""

    def features(self, images: Tensor) -> Tensor:
        """Features (B, C, Z, Y, X) of the last decoder level, from which the output is read."""
        return self.decode(self.encode(images))[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, Z, Y, X)."""
        return self.output(self.features(images))

    @property
    def first_convolution(self) -> nn.Conv3d:
        """The convolution that reads the image."""
        return next(module for module in self.encoder.modules() if isinstance(module, nn.Conv3d))

    def _run(self, block: nn.Module, *features: Tensor) -> Any:
        """What a block gives, computed again on the way back where there is `checkpointing`."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            # no block draws random numbers
            return checkpoint(block, *features, use_reentrant=False, preserve_rng_state=False)
        return block(*features)

    def _check(self, images: Tensor) -> None:
        odd = [n % m for n, m in zip(images.shape[2:], self.multiple, strict=True)]
        if any(odd):
            raise ValueError(
                f"input of extent {tuple(images.shape[2:])}: each axis must be a multiple of {self.multiple}"
            )
