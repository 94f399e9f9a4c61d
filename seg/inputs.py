"""What a network was shown: grey values of its inputs, and what its first convolution made of them."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..data.settings import settings
from .networks.network import Network

# percents of the voxels below the stored quantiles
QUANTILES = (1, 5, 25, 50, 75, 95, 99)


@settings
class ChannelStatistics:
    """Grey values of a channel, as the network sees them; `quantiles` are those of `QUANTILES`."""

    mean: float
    std: Annotated[float, Field(ge=0)]
    quantiles: Annotated[tuple[float, ...], Field(min_length=len(QUANTILES), max_length=len(QUANTILES))]


@settings
class InputStatistics:
    """Grey values of `patches` unaugmented patches, and how much the first convolution answers to them.

    `responses` is the standard deviation of each feature of the first convolution, before normalisation: how
    much its filters find in such patches.
    """

    patches: Annotated[int, Field(ge=1)]
    channels: tuple[ChannelStatistics, ...]
    responses: tuple[float, ...]


@torch.no_grad()
def input_statistics(network: Network, images: Tensor) -> InputStatistics:
    """What patches (B, C, Z, Y, X) look like to a network; they are what it sees, without augmentation."""
    convolution = network.first_convolution
    weight = convolution.weight
    # one patch at a time: the answers are many times as large
    moments = []
    for patch in images.split(1):
        answers = convolution(patch.to(weight)).double()
        moments.append(torch.stack([answers.mean((0, 2, 3, 4)), answers.square().mean((0, 2, 3, 4))]))
    mean, square = torch.stack(moments).mean(0)
    return InputStatistics(
        patches=len(images),
        channels=tuple(_of_channel(channel) for channel in images.transpose(0, 1).cpu().numpy()),
        responses=tuple((square - mean.square()).clamp(min=0).sqrt().tolist()),
    )


def _of_channel(values: np.ndarray) -> ChannelStatistics:
    return ChannelStatistics(
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        # torch's quantile takes 16 million values at most
        quantiles=tuple(np.percentile(values, QUANTILES).tolist()),
    )
