"""Parts of an image taken away: cut-out, in-painting and out-painting.

All channels lose the same places; noise differs between them.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..settings import Probability, settings
from .blocks import Block, CountRange, ShareRange, as_slices, draw_blocks
from .draws import Draws

# what stands in a masked place: 0, the mean of a z-scored volume, or noise of its mean and deviation
Fill = Literal["mean", "noise"]


@settings
class Cutout:
    """Blocks are masked.

    Source: DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552 (one square); number and size from the
    BlankRectangleTransform of nnU-Net's nnUNetTrainerDA5. Differs from it: the volume's mean stands there,
    not the patch's, and all channels are masked alike.
    """

    op: Literal["cutout"] = "cutout"
    probability: Probability = 0.4
    # drawn evenly; edges are shares of the image's, each drawn evenly
    blocks: CountRange = (1, 5)
    edge: ShareRange = (0.1, 1 / 3)
    fill: Fill = "mean"

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image with its blocks filled."""
        return fill_blocks(image, _drawn(image, self.blocks, self.edge, draws), self.fill, draws)


@settings
class InPainting:
    """Windows are filled with noise, for what surrounds them to tell what was there.

    Source: Zhou et al. 2021, Models Genesis, https://doi.org/10.1016/j.media.2020.101840, section 3.1 (its
    code: edges of a sixth to a third, https://github.com/MrGiovanni/ModelsGenesis). Differs from it: noise is
    normal, of a z-scored image's mean and deviation, instead of uniform between 0 and 1; windows may touch
    the border; and their number is drawn from a range.
    """

    op: Literal["in_painting"] = "in_painting"
    probability: Probability = 0.2
    # drawn evenly; edges are shares of the image's, each drawn evenly
    windows: CountRange = (1, 5)
    edge: ShareRange = (1 / 6, 1 / 3)
    fill: Fill = "noise"

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """The image with its windows filled."""
        return fill_blocks(image, _drawn(image, self.windows, self.edge, draws), self.fill, draws)


@settings
class OutPainting:
    """All but a union of windows is filled with noise, for the middle to tell what surrounded it.

    Source and differences: as `InPainting`'s (its code: up to five windows, edges of 3 to 4 sevenths).
    """

    op: Literal["out_painting"] = "out_painting"
    probability: Probability = 0.2
    # drawn evenly; edges are shares of the image's, each drawn evenly
    windows: CountRange = (1, 5)
    edge: ShareRange = (3 / 7, 4 / 7)
    fill: Fill = "noise"

    def __call__(self, image: Tensor, draws: Draws) -> Tensor:
        """A new image that has the old one's windows."""
        return keep_blocks(image, _drawn(image, self.windows, self.edge, draws), self.fill, draws)


def fill_blocks(image: Tensor, blocks: Sequence[Block], fill: Fill, draws: Draws) -> Tensor:
    """The image (C, Z, Y, X) itself, its blocks overwritten."""
    for block in blocks:
        image[:, *block] = _filling(image[:, *block], fill, draws)
    return image


def keep_blocks(image: Tensor, blocks: Sequence[Block], fill: Fill, draws: Draws) -> Tensor:
    """An image (C, Z, Y, X) that is as the given one within the blocks, and filled elsewhere."""
    result = _filling(image, fill, draws)
    for block in blocks:
        result[:, *block] = image[:, *block]
    return result


def _drawn(image: Tensor, count: tuple[int, int], edge: tuple[float, float], draws: Draws) -> list[Block]:
    z, y, x = image.shape[1:]
    return as_slices(draw_blocks((z, y, x), draws.integer(*count), edge, draws))


def _filling(like: Tensor, fill: Fill, draws: Draws) -> Tensor:
    return draws.normal(like) if fill == "noise" else torch.zeros_like(like)
