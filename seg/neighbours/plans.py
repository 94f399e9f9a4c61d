"""nnU-Net's plans, and the network they ask for.

Source: nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), `utilities/plans_handling` of nnunetv2
2.8; nnssl keeps its plans in the same form. Spacing, patch, kernels and strides lie in the axes that volumes
have after `transpose_forward`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..networks.residual_unet import ResidualUNet
from ..networks.topology import MOST_LEVELS, Topology, Triple
from ..networks.unet import UNet
from .errors import SourceError, told
from .known import CLASSES, Known
from .limits import levels, refused

Lengths = int | list[int | list[int]]


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """A class and its arguments."""

    network_class_name: str
    arch_kwargs: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """How volumes are prepared for a network; other keys may stand there."""

    patch_size: list[int] | None = None
    spacing: list[float] | None = None
    normalization_schemes: list[str] = field(default_factory=list)
    use_mask_for_norm: bool | list[bool] = False
    resampling_fn_data: str | None = None
    architecture: NetworkPlan | None = None


@dataclass(frozen=True, kw_only=True)
class Plans:
    """What of the plans is used; other keys may stand there."""

    configurations: dict[str, dict[str, Any]]
    transpose_forward: list[int] = field(default_factory=lambda: [0, 1, 2])
    image_reader_writer: str | None = None
    foreground_intensity_properties_per_channel: dict[str, dict[str, Any]] | None = None
    # its name before nnU-Net 2.0
    foreground_intensity_properties_by_modality: dict[str, dict[str, Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class _Arguments:
    """Arguments of PlainConvUNet and ResidualEncoderUNet."""

    features_per_stage: int | list[int]
    kernel_sizes: Lengths
    strides: Lengths
    n_stages: int
    n_conv_per_stage: int | list[int] = 2
    n_blocks_per_stage: int | list[int] = field(default_factory=list)
    n_conv_per_stage_decoder: int | list[int]
    conv_op: str | None = None
    norm_op: str | None = None
    norm_op_kwargs: dict[str, Any] | None = None
    dropout_op: str | None = None
    dropout_op_kwargs: dict[str, Any] | None = None
    nonlin: str | None = None
    nonlin_kwargs: dict[str, Any] | None = None
    nonlin_first: bool = False
    block: str | None = None
    bottleneck_channels: int | list[int] | None = None
    stem_channels: int | None = None


def configuration_of(plans: Plans, name: str, where: Path) -> Configuration:
    """A configuration with all it inherits, those of before nnU-Net 2.3 included."""
    values: dict[str, Any] = {}
    seen: list[str] = []
    following: str | None = name
    while following is not None:
        name = following
        if name not in plans.configurations or name in seen:
            raise refused(where, f"no whole configuration {name!r} (there are {[*plans.configurations]})")
        seen.append(name)
        values = {**plans.configurations[name], **values}
        following = plans.configurations[name].get("inherits_from")
    if "UNet_class_name" in values:
        values["architecture"] = _as_since_2_3(values, where)
    return told(Configuration, values, where)


def _as_since_2_3(old: Mapping[str, Any], where: Path) -> dict[str, Any]:
    try:
        stages = len(old["n_conv_per_stage_encoder"])
        plain = old["UNet_class_name"] == "PlainConvUNet"
        base, most = int(old["UNet_base_num_features"]), int(old["unet_max_num_features"])
        return {
            "network_class_name": old["UNet_class_name"],
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": [min(base * 2**i, most) for i in range(min(stages, MOST_LEVELS + 1))],
                "conv_op": f"Conv{len(old['patch_size'])}d",
                "kernel_sizes": old["conv_kernel_sizes"],
                "strides": old["pool_op_kernel_sizes"],
                "n_conv_per_stage" if plain else "n_blocks_per_stage": old["n_conv_per_stage_encoder"],
                "n_conv_per_stage_decoder": old["n_conv_per_stage_decoder"],
            },
        }
    except (KeyError, TypeError, ValueError) as error:
        raise refused(where, f"plans of before nnU-Net 2.3 that are not whole ({error})") from error


def known_class(name: str, where: Path) -> Known:
    """The network of a class of nnU-Net; raises SourceError where there is none here."""
    known = CLASSES.get(name.split(".")[-1])
    if known is None:
        raise SourceError(
            where,
            found=f"the network {name}",
            rule=f"Networks that there are here too: {', '.join(CLASSES)}",
            remedy="Give a checkpoint of one of them",
        )
    return known


def topology_of(known: Known, arguments: Mapping[str, Any], where: Path) -> Topology:
    """The levels of a network; raises SourceError naming all that our network cannot be."""
    given = told(_Arguments, arguments, where)
    stages = given.n_stages
    if not 1 <= stages <= MOST_LEVELS:
        raise refused(where, f"{stages} levels")
    residual = known.block is not None
    convolutions = (ResidualUNet if residual else UNet).decoder_convolutions
    differing = [
        *_unless("conv_op", given.conv_op, (None, "Conv3d")),
        *_unless("n_conv_per_stage", {*each(given.n_conv_per_stage, stages)}, ({2},)),
        *_unless(
            "n_conv_per_stage_decoder",
            {*each(given.n_conv_per_stage_decoder, stages - 1)},
            ({convolutions}, set()),
        ),
        *_unless("norm_op", given.norm_op, (None, "InstanceNorm3d")),
        *_unless("eps of norm_op", (given.norm_op_kwargs or {}).get("eps", 1e-5), (1e-5,)),
        *_unless("affine of norm_op", (given.norm_op_kwargs or {}).get("affine", True), (True,)),
        *_unless("nonlin", given.nonlin, (None, "LeakyReLU")),
        *_unless("negative_slope", (given.nonlin_kwargs or {}).get("negative_slope", 0.01), (0.01,)),
        *_unless("nonlin_first", given.nonlin_first, (False,)),
        *_unless("block", given.block, (None, "BasicBlockD")),
        *_unless("bottleneck_channels", given.bottleneck_channels, (None,)),
        *_unless("stem_channels", given.stem_channels, (None, each(given.features_per_stage, 1)[0])),
    ]
    if given.dropout_op is not None:
        differing += _unless("p of dropout_op", (given.dropout_op_kwargs or {}).get("p", 0.5), (0,))
    first, *strides = _triples("strides", given.strides, stages, where)
    if first != (1, 1, 1):
        differing.append(f"a stride of {first} before the first level")
    if differing:
        raise refused(where, "; ".join(differing))
    return levels(
        features=each(given.features_per_stage, stages),
        kernels=_triples("kernel_sizes", given.kernel_sizes, stages, where),
        strides=strides,
        blocks=each(given.n_blocks_per_stage, stages) if residual else (),
        where=where,
    )


def _unless(name: str, value: Any, allowed: tuple[Any, ...]) -> list[str]:
    if isinstance(value, str):
        value = value.split(".")[-1]
    return [] if value in allowed else [f"{name} {value}"]


def each(value: Any, count: int) -> list[Any]:
    """A value for each of `count`, which plans may give once for all."""
    return value if isinstance(value, list) else [value] * count


def _triples(name: str, value: Lengths, count: int, where: Path) -> list[Triple]:
    found = [each(one, 3) for one in each(value, count)]
    if len(found) != count or any(len(one) != 3 for one in found):
        raise refused(where, f"{name} {value} for {count} levels in 3D")
    return [(z, y, x) for z, y, x in found]
