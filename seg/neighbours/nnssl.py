"""Checkpoints of nnssl, which tell in an adaptation plan how to go on from them.

Source: `adaptation_planning/adaptation_plan.py` of https://github.com/MIC-DKFZ/nnssl, its form of 2024
included, and the loader of nnU-Net's finetuning extension. nnssl pretrains encoders alone, or whole U-Nets
whose output gives back an image: that output is left out. We differ from the loader, which drops the decoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...data.settings import checked
from ..networks.registry import Architecture
from ..networks.topology import Triple
from ..source import Contract, Open, Source
from .arrival import arrived
from .errors import SourceError, told
from .plans import NetworkPlan, Plans, configuration_of, known_class, topology_of
from .prefixes import listed, place_of, plain_names
from .preparation import contract_of
from .state_dict import ALL_UNKNOWN, architecture_of, network_weights
from .turn import Turn

_KEY = "nnssl_adaptation_plan"
# nnssl's presets; the others are transformers
_PRESETS = {
    "ResEncL": NetworkPlan(
        network_class_name="ResidualEncoderUNet",
        arch_kwargs={
            "n_stages": 6,
            "features_per_stage": [32, 64, 128, 256, 320, 320],
            "kernel_sizes": 3,
            "strides": [1, 2, 2, 2, 2, 2],
            "n_blocks_per_stage": [1, 3, 4, 6, 6, 6],
            "n_conv_per_stage_decoder": 1,
        },
    )
}
# the same encoder; its decoder has no skip connections, which is another network
_WITHOUT_SKIPS = "NoSkipResEncL"


@dataclass(frozen=True, kw_only=True)
class _Network:
    arch_class_name: str
    arch_kwargs: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class _AdaptationPlan:
    """What of an adaptation plan is used; other keys may stand there."""

    architecture_plans: _Network
    pretrain_plan: dict[str, Any] | None = None
    pretrain_num_input_channels: int
    key_to_encoder: str
    recommended_downstream_patchsize: Triple | None = None
    pretrain_patch_size: Triple | None = None


def is_nnssl(content: Mapping[Any, Any]) -> bool:
    """Whether a mapping is a checkpoint of nnssl."""
    return "network_weights" in content and _KEY in content


def of_nnssl(path: Path, content: Mapping[Any, Any]) -> Source:
    """The encoder of a checkpoint of nnssl, and the decoder where it was pretrained too.

    Raises SourceError where it is a network that there is not here.
    """
    plan = _plan(content[_KEY], path)
    name = plan.architecture_plans.arch_class_name
    network = _network(plan.architecture_plans, path)
    known = known_class(network.network_class_name, path)
    topology = topology_of(known, network.arch_kwargs, path)
    tensors, wrappers = plain_names(network_weights(content, path), path)
    # the key ends in the levels, such as encoder.stages
    place = place_of(tensors, path, f"{plan.key_to_encoder}.".removesuffix("stages."))
    inside = {
        tensor: value
        for tensor, value in place.inside(tensors).items()
        if not tensor.startswith("decoder.seg_layers.")
        and not (name == _WITHOUT_SKIPS and tensor.startswith("decoder."))
    }
    channels = architecture_of(known, inside, path, topology.strides).in_channels
    if channels != plan.pretrain_num_input_channels:
        raise SourceError(
            path,
            found=f"{channels} input channels, {plan.pretrain_num_input_channels} by its adaptation plan",
            rule="The adaptation plan is that of the weights",
            remedy="Give the checkpoint as nnssl wrote it",
        )
    architecture = checked(
        Architecture(name=known.network, in_channels=channels, classes=1, topology=topology), path
    )
    found = arrived(known, architecture, inside, path)
    contract, notes, turn = _contract(plan, channels, path)
    if left_out := place.inside(tensors).keys() - inside.keys():
        notes += (f"left out, as it gives back images: {listed(sorted(left_out))}",)
    trainer = content.get("trainer_name")
    trainer = trainer[:80] if isinstance(trainer, str) else "unknown trainer"
    return Source(
        path=path,
        kind="nnssl",
        tensors=turn.tensors(found.tensors),
        architecture=Architecture(
            name=known.network, in_channels=channels, classes=1, topology=turn.topology(topology)
        ),
        contract=contract,
        labels=None,
        trained=found.parts,
        seen=None,
        told=f"nnssl, {trainer}, {name} ({' and '.join(found.parts)})",
        notes=(*wrappers, *place.notes(tensors), *found.notes, *turn.notes, *notes),
    )


def _plan(values: Any, where: Path) -> _AdaptationPlan:
    """The adaptation plan; that of 2024 has other names."""
    if isinstance(values, dict) and "architecture_name" in values:
        values = {
            "architecture_plans": {"arch_class_name": values["architecture_name"]},
            "pretrain_num_input_channels": values.get("num_input_channels"),
            "pretrain_patch_size": values.get("input_patch_size"),
            "key_to_encoder": values.get("state_dict_key_to_encoder"),
        }
    return told(_AdaptationPlan, values, where)


def _network(said: _Network, where: Path) -> NetworkPlan:
    name = said.arch_class_name
    if said.arch_kwargs is not None:
        return NetworkPlan(network_class_name=name, arch_kwargs=said.arch_kwargs)
    preset = _PRESETS.get("ResEncL" if name == _WITHOUT_SKIPS else name)
    if preset is None:
        why = "a transformer" if name.startswith("Primus") else "without arguments"
        raise SourceError(
            where,
            found=f"the network {name}, {why}",
            rule=f"Presets of nnssl that there are here too: {', '.join([*_PRESETS, _WITHOUT_SKIPS])}",
            remedy="Give a checkpoint of one of them",
        )
    return preset


def _contract(plan: _AdaptationPlan, channels: int, where: Path) -> tuple[Contract, tuple[str, ...], Turn]:
    """How volumes were prepared; the plan's one configuration tells."""
    patch = plan.pretrain_patch_size
    if plan.pretrain_plan is None:
        contract = ALL_UNKNOWN
        notes, turn = ("its adaptation plan does not tell how volumes were prepared",), Turn(order=(0, 1, 2))
    else:
        plans = told(Plans, plan.pretrain_plan, where)
        configuration = configuration_of(plans, next(iter(plans.configurations), ""), where)
        turn = Turn.of(plans, where)
        contract, notes = contract_of(plans, configuration, channels, turn, where)
    if patch is None:
        return contract, notes, turn
    unknown: tuple[Open, ...] = tuple(one for one in contract.unknown if one != "patch")
    return replace(contract, patch=turn.triple(patch), unknown=unknown), notes, turn
