"""Deep supervision: coarser levels of the decoder are asked for the labels too.

Source: Lee et al. 2015 (arXiv:1409.5185), in the form of nnU-Net (`DeepSupervisionWrapper`, version 2.8).
"""

# Shapes: B = batch, C = features, K = classes.

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..data.volume import Shape
from .networks.blocks import initialise
from .networks.network import Network


class Heads(nn.Module):
    """A 1 x 1 x 1 convolution to the classes for each decoder level but the finest and the coarsest.

    The finest has the output of the network, and the coarsest is asked nothing, as in nnU-Net, whose weight
    of it is 0. Heads belong to the training: a network predicts without them. `weights` are those of the loss
    of each level, the finest first, the output of the network among them: halved from level to level and
    adding up to 1. `channels` and `patch` are those of the images of the training.
    """

    def __init__(self, network: Network, channels: int, patch: Shape, seed: int) -> None:
        super().__init__()
        classes = network.output.out_channels
        asked = _decoder_features(network, channels, patch)[1:-1]
        with torch.random.fork_rng(devices=[]):
            # other numbers than the network began with
            torch.manual_seed(int(np.random.SeedSequence([seed, 5]).generate_state(1)[0]))
            self.heads = nn.ModuleList(nn.Conv3d(features, classes, 1) for features in asked)
            self.apply(initialise)
        shares = [0.5**level for level in range(1 + len(asked))]
        self.weights = tuple(share / sum(shares) for share in shares)

    def forward(self, decoded: Sequence[Tensor]) -> list[Tensor]:
        """Logits (B, K, z, y, x) of the coarser levels, the finest first, from features coarsest first."""
        return [head(features) for head, features in zip(self.heads, decoded[-2:0:-1], strict=True)]


def labels_at(labels: Tensor, like: Tensor) -> Tensor:
    """Labels (..., Z, Y, X) at the coarser extent of `like`, each voxel the one nearest to its middle.

    What is `IGNORED` stays so. Raises ValueError where one extent is no multiple of the other.
    """
    steps = []
    for fine, coarse in zip(labels.shape[-3:], like.shape[-3:], strict=True):
        if fine % coarse:
            raise ValueError(f"labels of {tuple(labels.shape[-3:])} for features of {tuple(like.shape[-3:])}")
        steps.append(fine // coarse)
    z, y, x = (slice(step // 2, None, step) for step in steps)
    return labels[..., z, y, x]


def _decoder_features(network: Network, channels: int, patch: Shape) -> list[int]:
    """Features of every decoder level, finest first, found out on torch's meta device, without values."""
    copied = copy.deepcopy(network).to("meta")
    decoded = copied.decode(copied.encode(torch.empty((1, channels, *patch), device="meta")))
    return [features.shape[1] for features in reversed(decoded)]
