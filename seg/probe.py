"""What a network gives for a fixed input: the proof that weights arrived as they left."""

import copy
import math
from dataclasses import field
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ..data.settings import settings
from .networks.network import Network

Shape = tuple[int, int, int, int]
# how many values of a block are kept
_VALUES = 16


@settings
class BlockProbe:
    """Mean and standard deviation of what a block gives for the probe, and some of the values themselves."""

    mean: float
    std: Annotated[float, Field(ge=0)]
    values: Annotated[tuple[float, ...], Field(min_length=_VALUES, max_length=_VALUES)]


@settings
class Probe:
    """What every block of a network gives for the probe input of `shape` (C, Z, Y, X), by the block's name.

    Blocks are "encoder.0" (the finest), ..., "decoder.0" (the coarsest), ..., "output".
    """

    shape: Shape
    blocks: dict[str, BlockProbe] = field(default_factory=dict)


def probe_input(shape: Shape) -> Tensor:
    """Waves and the edges of blocks, (1, C, Z, Y, X) float64: a formula, the same everywhere.

    No period of it fits a stride, so that every voxel of every level sees something else.
    """
    c, z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
    waves = torch.sin(math.sqrt(2) * z + c) + torch.sin(math.sqrt(3) * y + 2 * c)
    waves += torch.sin(math.sqrt(5) * x + 3 * c) + torch.sin(0.1 * math.pi * (z + 2 * y + 3 * x))
    edges = (z // 3 + y // 5 + x // 7 + c) % 2
    return (0.5 * waves + edges - 0.5)[None]


def probed(network: Network, channels: int) -> Probe:
    """What a network gives for the smallest probe input that all its levels can make something of.

    Computed in double precision on the CPU, on a copy: neither threads nor the device show in it.
    """
    shape = probe_shape(network, channels)
    return Probe(shape=shape, blocks={name: _summary(t) for name, t in _outputs(network, shape).items()})


def probe_shape(network: Network, channels: int) -> Shape:
    """The smallest (C, Z, Y, X) that all levels of a network can make something of."""
    return (channels, *_extents(network))


def deviations(network: Network, probe: Probe) -> dict[str, float]:
    """How far each block of a network is from the probe, for the blocks that both have.

    The largest difference of mean, standard deviation and values, in standard deviations of the stored
    block. Raises ValueError when the network cannot read an input of the probe's shape.
    """
    channels = network.first_convolution.in_channels
    if channels != probe.shape[0]:
        raise ValueError(f"a probe of {probe.shape[0]} channels, and a network of {channels}")
    outputs = _outputs(network, probe.shape)
    return {
        name: _deviation(_summary(outputs[name]), stored)
        for name, stored in probe.blocks.items()
        if name in outputs
    }


def _extents(network: Network) -> tuple[int, int, int]:
    """The least extents with 4 voxels along every axis that is convolved, and two at the coarsest level."""
    kernel = network.first_convolution.kernel_size
    z, y, x = (max(m, 4 if k > 1 else 1) for m, k in zip(network.multiple, kernel, strict=True))
    alone = (z, y, x) == network.multiple
    # a single voxel has no variance to be normalised by
    return (z, y, 2 * x) if alone else (z, y, x)


@torch.no_grad()
def _outputs(network: Network, shape: Shape) -> dict[str, Tensor]:
    copied = copy.deepcopy(network).cpu().double().eval()
    encoded = copied.encode(probe_input(shape))
    decoded = copied.decode(encoded)
    found = {f"encoder.{level}": tensor for level, tensor in enumerate(encoded)}
    found |= {f"decoder.{n}": tensor for n, tensor in zip(range(len(copied.decoder)), decoded, strict=False)}
    return {**found, "output": copied.output(decoded[-1])}


def _summary(tensor: Tensor) -> BlockProbe:
    flat = tensor.flatten()
    places = torch.arange(_VALUES) * (len(flat) - 1) // (_VALUES - 1)
    return BlockProbe(
        mean=float(flat.mean()), std=float(flat.std(unbiased=False)), values=tuple(flat[places].tolist())
    )


def _deviation(found: BlockProbe, stored: BlockProbe) -> float:
    pairs = [(found.mean, stored.mean), (found.std, stored.std)]
    pairs += zip(found.values, stored.values, strict=True)
    far = [abs(ours - theirs) for ours, theirs in pairs]
    # max() may pass over a NaN
    return max(far) / (stored.std or 1.0) if all(map(math.isfinite, far)) else math.inf
