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


def _block(ours: str, theirs: str) -> dict[str, tuple[str, ...]]:
    """Two convolutions, each with its normalisation."""
    return {
        f"{ours}.{i}.{part}.{kind}": (
            f"{theirs}.convs.{i}.{name}.{kind}",
            f"{theirs}.convs.{i}.all_modules.{part}.{kind}",
        )
        for i in range(2)
        for part, name in ((0, "conv"), (1, "norm"))
        for kind in ("weight", "bias")
    }
