"""What a network was shown: grey values of its inputs, and what its first convolution made of them."""

from typing import Annotated

from pydantic import Field

from ..data.settings import settings

# percents of the voxels below the stored quantiles
QUANTILES = (1, 5, 25, 50, 75, 95, 99)


@settings
class ChannelStatistics:
    """Grey values of a channel, as the network sees them; `quantiles` are those of `QUANTILES`."""

    mean: float
    std: Annotated[float, Field(ge=0)]
    quantiles: tuple[float, ...]


@settings
class InputStatistics:
    """Grey values of `patches` unaugmented patches, and how much the first convolution answers to them.

    `responses` is the standard deviation of each feature of the first convolution, before normalisation: how
    much its filters find in such patches.
    """

    patches: Annotated[int, Field(ge=1)]
    channels: tuple[ChannelStatistics, ...]
    responses: tuple[float, ...]
