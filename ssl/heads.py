"""Features of a network by name, their pooling, and the head that embeds them.

A name is that of a block: "encoder.0" is the finest encoder level, "decoder.0" the coarsest decoder level,
as in a checkpoint. "encoder" stands for its coarsest level, "decoder" for all of its levels.
"""

# Shapes: B = batch, C = channels or features, D = embedding size.

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ..data.errors import UserError
from ..data.settings import settings
from ..seg.networks.network import Network
from ..seg.networks.registry import Architecture
from .gather import GatheredBatchNorm


@settings
class EmbeddingConfig:
    """An embedding of `dimension` numbers, by two layers of which the first has `hidden` units.

    `blocks` names the features that are embedded; every level of the decoder when None.
    """

    hidden: Annotated[int, Field(ge=1)] = 256
    dimension: Annotated[int, Field(ge=2)] = 64
    blocks: tuple[str, ...] | None = None


def feature_widths(architecture: Architecture) -> dict[str, int]:
    """The number of features of each block that can be read, by its name."""
    features = architecture.topology.features
    encoder = {f"encoder.{level}": width for level, width in enumerate(features)}
    decoder = {f"decoder.{level}": width for level, width in enumerate(reversed(features[:-1]))}
    return {**encoder, **decoder}


def chosen_blocks(architecture: Architecture, names: Sequence[str] | None) -> tuple[str, ...]:
    """The blocks to read: those named, every decoder level when None (the encoder's last without any).

    Raises UserError for a name the network does not have.
    """
    widths = feature_widths(architecture)
    encoder, decoder = ([name for name in widths if name.startswith(part)] for part in ("encoder", "decoder"))
    whole = {"encoder": encoder[-1:], "decoder": decoder or encoder[-1:]}
    names = ("decoder",) if names is None else names
    unknown = [name for name in names if name not in widths and name not in whole]
    if unknown or not names:
        raise UserError(
            "blocks",
            found=f"{', '.join(unknown) or 'none'}",
            rule=f"The network has: {', '.join([*whole, *widths])}",
            remedy="Choose some of these",
        )
    chosen = [block for name in names for block in whole.get(name, [name])]
    return tuple(dict.fromkeys(chosen))


def read_features(network: Network, images: Tensor, blocks: Sequence[str]) -> list[Tensor]:
    """Features (B, C, z, y, x) of the named blocks for images (B, C, Z, Y, X)."""
    encoded = network.encode(images)
    found = {f"encoder.{level}": features for level, features in enumerate(encoded)}
    if any(name.startswith("decoder.") for name in blocks):
        found |= {f"decoder.{level}": features for level, features in enumerate(network.decode(encoded))}
    return [found[name] for name in blocks]


def pool(features: Sequence[Tensor]) -> Tensor:
    """Mean and standard deviation over space of every feature, (B, 2 x all C).

    Both, as after instance normalisation the mean alone tells little (statistics pooling: Snyder et al.
    2018, "X-vectors", section 3.1).
    """
    pooled = []
    for f in features:
        # in 16 bits what tells volumes apart would be rounded away: it is small beside the mean
        flat = f.float().flatten(2)
        mean = flat.mean(dim=2)
        # its gradient is infinite at 0, where a feature is flat
        std = (flat.var(dim=2, correction=0) + 1e-5).sqrt()
        pooled += [mean, std]
    return torch.cat(pooled, dim=1)


class EmbeddingHead(nn.Module):
    """Pooled features of the named blocks, through two layers, as embeddings (B, D)."""

    def __init__(self, architecture: Architecture, config: EmbeddingConfig) -> None:
        super().__init__()
        self.blocks = chosen_blocks(architecture, config.blocks)
        widths = feature_widths(architecture)
        pooled = 2 * sum(widths[name] for name in self.blocks)
        # pooled features of all volumes point nearly the same way; without their mean taken off, unit
        # vectors begin as good as collapsed, and a few large steps finish it
        self.layers = nn.Sequential(
            GatheredBatchNorm(pooled),
            nn.Linear(pooled, config.hidden),
            nn.LayerNorm(config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.dimension),
        )

    def forward(self, network: Network, *images: Tensor) -> Tensor:
        """Embeddings (all B, D) of images (B, C, Z, Y, X), of which others may have another extent.

        Those of one extent go through the network together.
        """
        if len({image.shape[1:] for image in images}) == 1:
            images = (torch.cat(images),)
        return self.layers(torch.cat([pool(read_features(network, i, self.blocks)) for i in images]))
