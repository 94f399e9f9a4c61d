"""The names of a network's tensors in nnU-Net (`dynamic_network_architectures`), and here."""

from ..networks.topology import Topology


def nnunet_names(topology: Topology) -> dict[str, tuple[str, ...]]:
    """For each tensor of the U-Net its names in nnU-Net's `PlainConvUNet`, which lists most of them twice.

    Left out are the deep supervision outputs of the coarser decoder levels, which we do not have.
    """
    names: dict[str, tuple[str, ...]] = {}
    levels = len(topology.features)
    for level in range(levels):
        for ours, theirs in _block(f"encoder.{level}", f"encoder.stages.{level}.0").items():
            names[ours] = (*theirs, *(f"decoder.{name}" for name in theirs))
    for stage in range(levels - 1):
        for kind in ("weight", "bias"):
            names[f"decoder.{stage}.up.{kind}"] = (f"decoder.transpconvs.{stage}.{kind}",)
        names |= _block(f"decoder.{stage}.convolutions", f"decoder.stages.{stage}")
    for kind in ("weight", "bias"):
        names[f"output.{kind}"] = (f"decoder.seg_layers.{levels - 2}.{kind}",)
    return names


def nnunet_residual_names(topology: Topology) -> dict[str, tuple[str, ...]]:
    """For each tensor of the residual U-Net its names in nnU-Net's `ResidualEncoderUNet`.

    As for the plain one, most tensors are listed more than once there, and the coarser outputs left out.
    """
    names = {
        ours: (*theirs, *(f"decoder.{name}" for name in theirs))
        for ours, theirs in _residual_encoder(topology).items()
    }
    for stage in range(len(topology.strides)):
        for kind in ("weight", "bias"):
            names[f"decoder.{stage}.up.{kind}"] = (f"decoder.transpconvs.{stage}.{kind}",)
        names |= _convolution(f"decoder.{stage}.convolutions.0", f"decoder.stages.{stage}.convs.0")
    for kind in ("weight", "bias"):
        names[f"output.{kind}"] = (f"decoder.seg_layers.{len(topology.strides) - 1}.{kind}",)
    return names


def _residual_encoder(topology: Topology) -> dict[str, tuple[str, ...]]:
    names = _convolution("encoder.0.stem", "encoder.stem.convs.0")
    for level, blocks in enumerate(topology.blocks):
        ours, theirs = f"encoder.{level}.blocks", f"encoder.stages.{level}.blocks"
        for block in range(blocks):
            names |= _convolution(f"{ours}.{block}.first", f"{theirs}.{block}.conv1")
            names |= _convolution(f"{ours}.{block}.second", f"{theirs}.{block}.conv2")
        if level > 0 and topology.features[level] != topology.features[level - 1]:
            # their skip averages first, where there is a stride
            place = int(topology.strides[level - 1] != (1, 1, 1))
            names |= _convolution(f"{ours}.0.projection", f"{theirs}.0.skip.{place}", bias=False)
    return names


def _block(ours: str, theirs: str) -> dict[str, tuple[str, ...]]:
    """Two convolutions, each with its normalisation."""
    return _convolution(f"{ours}.0", f"{theirs}.convs.0") | _convolution(f"{ours}.1", f"{theirs}.convs.1")


def _convolution(ours: str, theirs: str, *, bias: bool = True) -> dict[str, tuple[str, ...]]:
    """A convolution with its normalisation."""
    return {
        f"{ours}.{part}.{kind}": (f"{theirs}.{name}.{kind}", f"{theirs}.all_modules.{part}.{kind}")
        for part, name in ((0, "conv"), (1, "norm"))
        for kind in ("weight", "bias")
        if bias or (name, kind) != ("conv", "bias")
    }
