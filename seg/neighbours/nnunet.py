"""Trained models of nnU-Net v2: checkpoint_*.pth, alone or in their folder.

Source: `nnUNetTrainer.save_checkpoint` of nnunetv2 2.8.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...data.labels import LabelTable
from ...data.settings import checked
from ..networks.registry import Architecture
from ..source import Source
from .arrival import arrived
from .errors import SourceError, told
from .limits import refused
from .plans import Plans, configuration_of, known_class, topology_of
from .prefixes import place_of, plain_names
from .preparation import contract_of
from .state_dict import architecture_of, network_weights
from .turn import Turn

# in this order: nnU-Net predicts with the final one
_FILES = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")
_DESCRIPTION = ("init_args", "trainer_name", "current_epoch")


@dataclass(frozen=True, kw_only=True)
class _Dataset:
    """What of dataset.json is used; other keys may stand there."""

    channel_names: dict[int, str] | None = None
    modality: dict[int, str] | None = None
    labels: dict[str, int | list[int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Arguments:
    plans: Plans
    configuration: str
    dataset_json: _Dataset
    fold: int | str = "?"


@dataclass(frozen=True, kw_only=True)
class _Checkpoint:
    init_args: _Arguments
    trainer_name: str = "nnUNetTrainer"
    current_epoch: int | None = None


def is_nnunet(content: Mapping[Any, Any]) -> bool:
    """Whether a mapping is a checkpoint of nnU-Net v2."""
    return "network_weights" in content and "init_args" in content


def model_file(folder: Path) -> Path | None:
    """The checkpoint in a folder of nnU-Net, or of one of its folds; None where it is no such folder.

    Raises SourceError where there are several folds, or no checkpoint in them.
    """
    here = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if here or not (folder / "plans.json").is_file():
        return here
    folds = sorted(path for path in folder.glob("fold_*") if path.is_dir())
    if len(folds) != 1:
        raise SourceError(
            folder,
            found=f"{len(folds)} folds of an nnU-Net model ({', '.join(path.name for path in folds)})",
            rule="Weights are taken from one network",
            remedy=f"Give one of them{f', such as {folds[0]}' if folds else ''}",
        )
    file = model_file(folds[0])
    if file is None:
        raise SourceError(
            folds[0],
            found="no checkpoint in it",
            rule=f"A fold of nnU-Net holds {', '.join(_FILES)}",
            remedy="Let its training reach its first checkpoint",
        )
    return file


def of_nnunet(path: Path, content: Mapping[Any, Any]) -> Source:
    """The network of a checkpoint of nnU-Net v2, with how its volumes were prepared.

    Raises SourceError where it is none that there is here.
    """
    said = told(_Checkpoint, {key: content[key] for key in _DESCRIPTION if key in content}, path)
    arguments = said.init_args
    configuration = configuration_of(arguments.plans, arguments.configuration, path)
    if configuration.architecture is None:
        raise SourceError(
            path,
            found=f"plans whose configuration {arguments.configuration} tells no architecture",
            rule="nnU-Net's plans tell the architecture",
            remedy="Give the checkpoint as nnU-Net wrote it",
        )
    known = known_class(configuration.architecture.network_class_name, path)
    topology = topology_of(known, configuration.architecture.arch_kwargs, path)
    tensors, wrappers = plain_names(network_weights(content, path), path)
    place = place_of(tensors, path)
    if place.known != known:
        raise refused(
            path, f"tensors that are not those of its plans' {configuration.architecture.network_class_name}"
        )
    inside = place.inside(tensors)
    read = architecture_of(known, inside, path, topology.strides)
    channels = _channels(arguments.dataset_json, read.in_channels, arguments.configuration, path)
    turn = Turn.of(arguments.plans, path)
    found = arrived(
        known,
        Architecture(
            name=known.network, in_channels=read.in_channels, classes=read.classes, topology=topology
        ),
        inside,
        path,
    )
    contract, notes = contract_of(arguments.plans, configuration, channels, turn, path)
    epochs = "" if said.current_epoch is None else f", {said.current_epoch} epochs"
    return Source(
        path=path,
        kind="nnunet",
        tensors=turn.tensors(found.tensors),
        architecture=checked(
            Architecture(
                name=known.network,
                in_channels=read.in_channels,
                classes=read.classes,
                topology=turn.topology(topology),
            ),
            path,
        ),
        contract=contract,
        labels=_labels(arguments.dataset_json, read.classes),
        trained=found.parts,
        seen=None,
        told=f"nnU-Net, {said.trainer_name}, {arguments.configuration}, fold {arguments.fold}{epochs}",
        notes=(*wrappers, *place.notes(tensors), *found.notes, *turn.notes, *notes),
    )


def _channels(dataset: _Dataset, count: int, configuration: str, where: Path) -> tuple[str, ...] | int:
    """Names of the channels, or their number where there are none."""
    names = dataset.channel_names or dataset.modality
    if names is None:
        return count
    if len(names) != count:
        raise SourceError(
            where,
            found=f"a network with {count} input channels for {len(names)} ({', '.join(names.values())})",
            rule="Each input channel is a channel of the image",
            remedy=f"Give a network that takes images alone; {configuration} may be the second of a cascade",
        )
    return tuple(name for _, name in sorted(names.items()))


def _labels(dataset: _Dataset, classes: int) -> LabelTable | None:
    """The table of plain classes from 0 up; None for regions, and where the output has others."""
    values = {value for name, value in dataset.labels.items() if name != "ignore" and isinstance(value, int)}
    regions = any(isinstance(value, list) for value in dataset.labels.values())
    if regions or classes < 2 or values != set(range(classes)):
        return None
    ignore = dataset.labels.get("ignore")
    return LabelTable(values=tuple(range(classes)), ignore=ignore)  # type: ignore[arg-type] (no list)
