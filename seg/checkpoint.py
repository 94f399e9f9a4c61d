"""Checkpoints: weights that explain themselves, and the state that continues a training bit for bit.

    RUN/checkpoints/step_000100/weights.safetensors   tensors, with CheckpointInfo in the metadata
    RUN/checkpoints/step_000100/training.pt           optimiser and counters; read with weights_only=True
    RUN/checkpoints/index.json                        which is last and which is best

A folder appears whole by renaming, the index is replaced in one step, and only then older folders go.
"""

import json
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..data.atomic import new_folder, write_text
from ..data.errors import UserError
from ..data.plan import Plan
from ..data.settings import parse, plain, settings
from .inputs import InputStatistics
from .networks.registry import Architecture, build
from .networks.unet import UNet
from .probe import Probe

WEIGHTS, STATE, INDEX = "weights.safetensors", "training.pt", "index.json"
_KEY = "fewvox"


class CheckpointError(UserError):
    """A file that is no whole checkpoint of this program."""


@settings
class CheckpointInfo:
    """What a checkpoint says of itself; hashes of voxel values stand for the data, never file names.

    `trained` lists what of the network the loss reached: "encoder", "decoder", "output", or single blocks
    such as "decoder.0" where it did not reach the whole part. `labels_hash` is one hash for the label
    files of training and validation. `inherited` is what the checkpoint it started from had seen. `probe` is
    what the network gives for a fixed input, `inputs` what it was shown in training.
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
    scores: dict[str, float] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    probe: Probe | None = None
    inputs: InputStatistics | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights and what is known of them."""

    path: Path
    info: CheckpointInfo
    tensors: dict[str, Tensor]

    def network(self) -> UNet:
        """The network itself, every weight loaded (`strict`)."""
        network = build(self.info.architecture)
        network.load_state_dict(self.tensors, strict=True)
        return network


def load(path: str | Path, prefer: Literal["best", "last"] = "best") -> Checkpoint:
    """The checkpoint in a run, a checkpoint folder or a weights file; nothing in it is executed.

    Of a run, the best by validation is taken where there is one, else the last.
    """
    file = _weights_file(Path(path), prefer)
    try:
        with safe_open(str(file), framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            file,
            found=f"not readable as safetensors ({error})",
            rule=f"Weights are read from {WEIGHTS} alone; a pickle (.pt, .pth) can run code and is refused",
            remedy="Give the run folder or its weights.safetensors",
        ) from error
    if _KEY not in metadata:
        raise CheckpointError(
            file,
            found="no fewvox description in its metadata",
            rule="A checkpoint tells architecture, plan and method",
            remedy="Give a checkpoint that `fewvox pretrain` or `finetune` wrote",
        )
    try:
        described = json.loads(metadata[_KEY])
    except ValueError as error:
        raise CheckpointError(
            file,
            found=f"a description that is not readable as JSON ({error})",
            rule="A checkpoint tells architecture, plan and method as JSON",
            remedy="Give a checkpoint that `fewvox pretrain` or `finetune` wrote",
        ) from error
    return Checkpoint(path=file, info=parse(CheckpointInfo, described, file), tensors=tensors)


def _weights_file(path: Path, prefer: Literal["best", "last"]) -> Path:
    if path.is_file():
        return path
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    index = read_index(path)
    name = index.get(prefer) or index.get("last")
    if name is None:
        raise CheckpointError(
            path,
            found="no checkpoint in it" if path.is_dir() else "no such file or folder",
            rule="A model is a run folder with checkpoints/, or a weights.safetensors file",
            remedy="Check the path, or let the training reach its first checkpoint",
        )
    return path / "checkpoints" / str(name) / WEIGHTS


def read_index(run: Path) -> dict[str, Any]:
    """Which checkpoints of a run are last and best; empty before the first."""
    path = run / "checkpoints" / INDEX
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def save(
    run: Path, network: nn.Module, info: CheckpointInfo, state: dict[str, Any], score: float | None
) -> None:
    """Writes a checkpoint as the last one, and as the best when `score` is the highest so far."""
    index = read_index(run)
    name = f"step_{info.steps:06d}"
    folder = run / "checkpoints" / name
    if folder.exists() and name not in (index.get("last"), index.get("best")):
        shutil.rmtree(folder)  # a killed run wrote it but did not reach the index
    if not folder.exists():
        tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
        with _told_when_full(run, tensors), new_folder(folder) as partial:
            save_file(tensors, str(partial / WEIGHTS), {_KEY: json.dumps(plain(info))})
            torch.save(state, partial / STATE)
    index["last"] = name
    if score is not None and score > index.get("best_score", float("-inf")):
        index |= {"best": name, "best_score": score}
    write_text(run / "checkpoints" / INDEX, json.dumps(index))
    for other in (run / "checkpoints").glob("step_*"):
        if other.name not in (index["last"], index.get("best")):
            shutil.rmtree(other)


@contextmanager
def _told_when_full(run: Path, tensors: dict[str, Tensor]) -> Iterator[None]:
    """Tells in words that a checkpoint cannot be written; safetensors and torch hardly do."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        weights = sum(tensor.nbytes for tensor in tensors.values())
        raise CheckpointError(
            run / "checkpoints",
            found=f"a checkpoint cannot be written ({error}), "
            f"{shutil.disk_usage(run).free / 2**20:.1f} MiB free on the disk",
            # weights, and the two moments of each beside them
            rule=f"It takes up to {3 * weights / 2**20:.1f} MiB",
            remedy="Free some space and continue with --resume: the checkpoint before is whole",
        ) from error


def load_state(run: Path) -> dict[str, Any]:
    """The training state beside the last checkpoint: tensors and plain values, no code."""
    path = _weights_file(run, "last").with_name(STATE)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(
            path,
            found=f"not readable ({' '.join(str(error).split())[:200]})",
            rule="The training state holds tensors and plain values",
            remedy="Start the run anew in another folder",
        ) from error
