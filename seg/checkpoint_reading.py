"""Reading one checkpoint: verified against its hashes, brought to today's format, and never executed."""

import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..data.errors import UserError
from ..data.hashing import file_hash
from ..data.plan import Plan
from ..data.settings import parse, settings
from .digest import digest
from .inputs import InputStatistics
from .migrations import VERSION, migrated
from .neighbours.errors import SourceError
from .neighbours.pickles import read_torch, refuse_old_torch
from .networks.network import Network
from .networks.registry import Architecture, build
from .probe import Probe, probe_shape

WEIGHTS, STATE = "weights.safetensors", "training.pt"
# the hash of the training state, as sha256sum writes it
STATE_HASH = f"{STATE}.sha256"
# keys of the metadata: what the checkpoint says of itself, and the hash of that and of the tensors
DESCRIPTION, DIGEST = "fewvox", "sha256"
# voxels: eight levels, each half of the one before along every axis, take this many
_LARGEST_PROBE = 2**22
_UNDAMAGED = "A checkpoint has the bytes that were written, which its SHA-256 tells"
_FROM_HERE = "Give a checkpoint that `fewvox pretrain` or `finetune` wrote"


class CheckpointError(UserError):
    """A file that is no whole checkpoint of this program."""


@settings
class CheckpointInfo:
    """What a checkpoint says of itself; hashes of voxel values stand for the data, never file names.

    `trained` lists what of the network the loss reached: "encoder", "decoder", "output", or single blocks
    such as "decoder.0" where it did not reach the whole part. `labels_hash` is one hash for the label
    files of training and validation. `inherited` is what the weights it started from had seen, as far as that
    is known, and `inherited_all` whether all of it is. `stopped_early` marks the last checkpoint of a
    training that ended as nothing got better, `averaged` weights that are moving averages. `probe` is what
    the network gives for a fixed input, `inputs` what it was shown in training.
    """

    version: Literal[2] = 2
    architecture: Architecture
    plan: Plan
    method: str
    trained: tuple[str, ...]
    steps: int
    seed: int
    trained_on: tuple[str, ...]
    validated_on: tuple[str, ...]
    labels_hash: str | None = None
    inherited: tuple[str, ...] = ()
    inherited_all: bool = True
    stopped_early: bool = False
    averaged: bool = False
    scores: dict[str, float] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    probe: Probe | None = None
    inputs: InputStatistics | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights and what is known of them.

    `version` is the format version of the file, `notes` what had to be done to have them: the one that was
    asked for is damaged, or they come in an older format.
    """

    path: Path
    info: CheckpointInfo
    tensors: dict[str, Tensor]
    version: int = VERSION
    notes: tuple[str, ...] = ()

    def network(self) -> Network:
        """The network itself, every weight loaded (`strict`)."""
        network = build(self.info.architecture)
        _fill(network, self.tensors, self.path)
        return network


def read(file: Path) -> Checkpoint:
    """The checkpoint in a weights file; raises UserError unless it is whole and finite."""
    metadata, tensors = _opened(file)
    stored, text = metadata.get(DIGEST), metadata.get(DESCRIPTION)
    if text is None:
        raise CheckpointError(
            file,
            found="no fewvox description in its metadata",
            rule="A checkpoint tells architecture, plan and method",
            remedy=_FROM_HERE,
        )
    if stored is not None and stored != digest(text, tensors):
        raise _damaged(file)
    try:
        described = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            file,
            found=f"a description that is not readable as JSON ({error})",
            rule="A checkpoint tells architecture, plan and method as JSON",
            remedy=_FROM_HERE,
        ) from error
    version = described.get("version", VERSION) if isinstance(described, dict) else VERSION
    if version != VERSION:
        described, tensors = migrated(described, tensors, file)
    info = parse(CheckpointInfo, described, file)
    # version 1 had none
    if stored is None and version >= 2:
        raise CheckpointError(file, found="no SHA-256 in its metadata", rule=_UNDAMAGED, remedy=_FROM_HERE)
    _check_described(info, tensors, file)
    check_finite(tensors, file)
    notes = (f"{file}: read from format version {version}",) if version != VERSION else ()
    return Checkpoint(path=file, info=info, tensors=tensors, version=version, notes=notes)


def _check_described(info: CheckpointInfo, tensors: dict[str, Tensor], where: Path) -> None:
    """Raises CheckpointError unless tensors, probe and inputs are those of the network that is described."""
    architecture = info.architecture
    network = _without_values(architecture)
    _fill(network, {name: tensor.to("meta") for name, tensor in tensors.items()}, where)
    shape, mistakes = probe_shape(network, architecture.in_channels), []
    first = network.first_convolution.out_channels
    if info.probe is not None and (info.probe.shape != shape or math.prod(shape) > _LARGEST_PROBE):
        mistakes.append(f"a probe of shape {info.probe.shape} where the network has {shape}")
    if info.inputs is not None:
        found = (len(info.inputs.channels), len(info.inputs.responses))
        if found != (architecture.in_channels, first):
            mistakes.append(f"inputs of {found[0]} channels that {found[1]} features answered")
    if mistakes:
        raise CheckpointError(
            where,
            found="; ".join(mistakes),
            rule=f"What it tells is of its network of {architecture.in_channels} channels and "
            f"{first} features of its first convolution, and a probe is small",
            remedy=_FROM_HERE,
        )


@lru_cache(maxsize=4)
def _without_values(architecture: Architecture) -> Network:
    """A network that takes no memory; made once, as every save reads what it wrote."""
    with torch.device("meta"):
        return build(architecture)


def _fill(network: Network, tensors: dict[str, Tensor], where: Path) -> None:
    """Loads every tensor of a network."""
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            where,
            found=f"its weights are not those of the network it describes ({in_a_line(error)})",
            rule="Every tensor of the network is there in its shape, and no other",
            remedy=_FROM_HERE,
        ) from error


def read_state(folder: Path) -> dict[str, Any]:
    """The training state in a checkpoint folder: tensors and plain values, no code."""
    path = folder / STATE
    # no fault of the checkpoint
    refuse_old_torch(path)
    try:
        if (folder / STATE_HASH).read_text(encoding="ascii") != state_hash_line(file_hash(path)):
            raise _damaged(path)
        return read_torch(path)
    except (OSError, ValueError, SourceError) as error:
        found = error.found if isinstance(error, SourceError) else in_a_line(error)
        raise CheckpointError(
            path,
            found=f"not readable ({found})",
            rule="The training state holds tensors and plain values",
            remedy="Start the run anew in another folder",
        ) from error


def state_hash_line(hashed: str) -> str:
    """What stands beside the training state, so that `sha256sum --check` verifies it too."""
    return f"{hashed}  {STATE}\n"


def check_finite(tensors: dict[str, Tensor], where: object) -> None:
    """Raises CheckpointError for weights that are NaN or infinite, naming the first such tensor."""
    for name, tensor in tensors.items():
        finite = torch.isfinite(tensor.float())  # as the network holds it
        if not finite.all():
            raise CheckpointError(
                where,
                found=f"{int((~finite).sum())} of the {tensor.numel()} values of {name} are not finite",
                rule="Weights are finite numbers",
                remedy="Take an earlier checkpoint; if training gave it, lower optimizer.lr",
            )


def in_a_line(error: Exception) -> str:
    """An error of a library, short enough to stand inside another."""
    return " ".join(str(error).split())[:300]


def _opened(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(str(file), framework="pt") as opened:
            names = opened.keys()
            # copied out of the mapped file: what was verified is what is used, whatever becomes of the file
            return opened.metadata() or {}, {name: opened.get_tensor(name).clone() for name in names}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            file,
            found=f"not readable as safetensors ({error})",
            rule=f"A checkpoint is {WEIGHTS}; a pickle (.pt, .pth) is refused here: its tensors are for "
            "`fewvox finetune --pretrained` alone, which runs nothing in it",
            remedy="Give the run folder or its weights.safetensors",
        ) from error


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        path,
        found="damaged: its SHA-256 is not the one it was written with",
        rule=_UNDAMAGED,
        remedy="Copy it again from where it was whole, or take another checkpoint of its run",
    )
