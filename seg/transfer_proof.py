"""The proof that weights arrived: blocks that took over every weight answer the source's probe as there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from . import probe as probes
from .networks.network import Network
from .networks.registry import Architecture
from .source import Source
from .transfer_report import Proof, TransferredTensor, block_of, part_of

# in standard deviations of a block: what float32 on other machines leaves of the same weights
TOLERANCE = 1e-5


def prove(
    network: Network, architecture: Architecture, source: Source, tensors: Sequence[TransferredTensor]
) -> Proof:
    """How far each block that must answer alike is from the stored answer, and why others cannot be compared.

    A block must answer alike in a network of the same levels where all its weights, and those of all blocks
    that it reads from, were loaded as they were: of encoders whose levels exchange features, all of those.
    """
    blocks = tuple(dict.fromkeys(block_of(tensor.name) for tensor in tensors))
    theirs = source.architecture
    if source.probe is None:
        return Proof(deviations={}, left_out=dict.fromkeys(blocks, "the checkpoint holds no probe"))
    if replace(theirs, classes=architecture.classes) != architecture:
        why = "levels, features, kernels, strides or channels differ"
        return Proof(deviations={}, left_out=dict.fromkeys(blocks, why))
    changed = _changed(tensors)
    encoder = tuple(block for block in blocks if part_of(block) == "encoder") if network.exchanging else ()
    left_out = {
        block: why
        for block in blocks
        if (why := _why_not((*encoder, *blocks[: blocks.index(block) + 1]), changed))
    }
    left_out |= dict.fromkeys({*blocks} - {*source.probe.blocks, *left_out}, "the probe has none of it")
    compared = {b: probed for b, probed in source.probe.blocks.items() if b in blocks and b not in left_out}
    deviations = probes.deviations(network, replace(source.probe, blocks=compared)) if compared else {}
    return Proof(deviations={block: deviations[block] for block in compared}, left_out=left_out)


def _changed(tensors: Sequence[TransferredTensor]) -> dict[str, str]:
    """What became of the blocks whose weights are not all as they were.

    Where levels are shifted that is at least the finest, whose first convolution begins at random.
    """
    changed: dict[str, str] = {}
    for tensor in tensors:
        block = block_of(tensor.name)
        if tensor.state == "re-initialised":
            changed[block] = "begins at random"
        elif tensor.state == "adapted":
            changed.setdefault(block, "was adapted")
    return changed


def _why_not(way: Sequence[str], changed: Mapping[str, str]) -> str | None:
    """The first block on the way from the image that changed."""
    return next((f"{b} {changed[b]}" for b in way if b in changed), None)
