"""Checkpoints: weights that explain themselves, and the state that continues a training bit for bit.

    RUN/checkpoints/step_000100/weights.safetensors   tensors; CheckpointInfo and a hash in the metadata
    RUN/checkpoints/step_000100/training.pt           optimiser and counters; read with weights_only=True
    RUN/checkpoints/step_000100/training.pt.sha256    the hash of that
    RUN/checkpoints/index.json                        which is last and which is best

A folder appears whole by renaming, after it was read back; the index is replaced in one step, and only then
older folders go. When the last one is damaged later, the newest whole one before it is taken, which is told.
"""

import hashlib
import io
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..data.atomic import remove_leftovers, replaced_folder, write_text
from ..data.errors import UserError
from ..data.settings import SettingsError, plain
from .checkpoint_reading import (
    DESCRIPTION,
    DIGEST,
    STATE,
    STATE_HASH,
    WEIGHTS,
    Checkpoint,
    CheckpointError,
    CheckpointInfo,
    check_finite,
    read,
    read_state,
    state_hash_line,
)
from .digest import digest
from .migrations import VERSION

log = logging.getLogger(__name__)

INDEX = "index.json"
_STEP_FOLDER = re.compile(r"step_\d{6,}")


def load(path: str | Path, prefer: Literal["best", "last"] = "best") -> Checkpoint:
    """The checkpoint in a run, a checkpoint folder or a weights file; nothing in it is executed.

    Of a run, the best by validation is taken where there is one, else the last. In place of a last one that
    is damaged the newest whole one is given, and its `notes` say so; a damaged best one is an error.
    """
    path = Path(path)
    if path.is_file():
        return read(path)
    if (path / WEIGHTS).is_file():
        return read(path / WEIGHTS)
    index = _index_of(path)
    if prefer == "best" and "best" in index:
        return _read_best(path, index["best"])
    return _newest_whole(path, _newest_first(path, index["last"]), lambda folder: read(folder / WEIGHTS))


def load_training(run: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """The newest checkpoint of a run whose weights and training state are both whole, and that state.

    Raises UserError for a run that an older version began.
    """
    states: list[dict[str, Any]] = []

    def read_both(folder: Path) -> Checkpoint:
        found = read(folder / WEIGHTS)
        if found.version == VERSION:
            states.append(read_state(folder))
        return found

    found = _newest_whole(run, _newest_first(run, _index_of(run)["last"]), read_both)
    _check_version(run, found)
    return found, states[-1]


def check_version(run: Path) -> None:
    """Raises UserError for a run that an older version began; one without a checkpoint began now."""
    if read_index(run):
        _check_version(run, load(run, "last"))


def _check_version(run: Path, found: Checkpoint) -> None:
    if found.version != VERSION:
        raise UserError(
            run,
            found=f"a run of format version {found.version}; this release writes {VERSION}",
            rule="A training is finished by the version that began it, whose networks its state fits",
            remedy="Finish it with that version of fewvox, or start another run from its weights "
            "(`fewvox finetune --pretrained RUN`)",
        )


def load_state(run: Path) -> dict[str, Any]:
    """The training state beside the newest whole checkpoint: tensors and plain values, no code."""
    return load_training(run)[1]


def read_index(run: Path) -> dict[str, Any]:
    """Which checkpoints of a run are last and best; empty before the first.

    What a damaged index said is found again from the checkpoints themselves, which is told.
    """
    path = run / "checkpoints" / INDEX
    if not path.exists() and not _step_folders(run):
        return {}
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        index = None
    return index if index and _is_index(index) else _found_again(run)


def _index_of(run: Path) -> dict[str, Any]:
    index = read_index(run)
    if not index:
        raise CheckpointError(
            run,
            found="no checkpoint in it" if run.is_dir() else "no such file or folder",
            rule="A model is a run folder with checkpoints/, or a weights.safetensors file",
            remedy="Check the path, or let the training reach its first checkpoint",
        )
    return index


def save(
    run: Path,
    network: nn.Module,
    info: CheckpointInfo,
    state: dict[str, Any],
    score: float | None,
    keep_every: int | None = None,
) -> None:
    """Writes a checkpoint as the last one, and as the best when `score` is the highest so far.

    Kept are the last two, the best, and the first of every `keep_every` steps; what else is there goes.
    """
    folders, name = run / "checkpoints", f"step_{info.steps:06d}"
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    check_finite(tensors, folders / name)
    index = read_index(run)
    # after falling back the step of the best may be reached anew
    if score is not None and (name == index.get("best") or score > index.get("best_score", float("-inf"))):
        index |= {"best": name, "best_score": score}
    index["last"] = name
    with _told_when_full(run, tensors):
        folders.mkdir(parents=True, exist_ok=True)
        with replaced_folder(folders / name) as partial:
            _write(partial, tensors, info, state)
        write_text(folders / INDEX, json.dumps(index))
    remove_leftovers(folders)
    kept = _kept([folder.name for folder in _step_folders(run)], index, keep_every)
    for folder in _step_folders(run):
        if folder.name not in kept:
            shutil.rmtree(folder)


def _write(partial: Path, tensors: dict[str, Tensor], info: CheckpointInfo, state: dict[str, Any]) -> None:
    """Writes what belongs into a checkpoint folder, and reads it back."""
    description = json.dumps(plain(info))
    metadata = {DESCRIPTION: description, DIGEST: digest(description, tensors)}
    save_file(tensors, str(partial / WEIGHTS), metadata)
    # by way of memory: the hash is that of what should be in the file
    written = io.BytesIO()
    torch.save(state, written)
    (partial / STATE).write_bytes(written.getbuffer())
    hashed = hashlib.sha256(written.getbuffer()).hexdigest()
    (partial / STATE_HASH).write_text(state_hash_line(hashed), encoding="ascii")
    read(partial / WEIGHTS)
    read_state(partial)


def _kept(names: list[str], index: dict[str, Any], keep_every: int | None) -> set[str]:
    """Which of the step folders stay; the one before the last is what a damaged last one falls back to."""
    until_last = [name for name in names if _step(name) <= _step(index["last"])]
    kept = {*until_last[-2:], index.get("best", index["last"])}
    if keep_every is not None:
        later = [name for name in until_last if _step(name) >= keep_every]
        # the first of each stretch is what comes last here
        kept |= set({_step(name) // keep_every: name for name in reversed(later)}.values())
    return kept


def _newest_first(run: Path, last: str | None = None) -> list[str]:
    """The names of the step folders, from `last` down where it is given, whether it is there or not."""
    names = [folder.name for folder in reversed(_step_folders(run))]
    return names if last is None else [last, *(name for name in names if _step(name) < _step(last))]


def _newest_whole(run: Path, names: list[str], read_folder: Callable[[Path], Checkpoint]) -> Checkpoint:
    """The first of these checkpoints that is whole; those before it are told of."""
    failed: list[UserError] = []
    for name in names:
        try:
            found = read_folder(run / "checkpoints" / name)
        except (CheckpointError, SettingsError) as error:
            failed.append(error)
            continue
        notes = tuple(f"{name} is taken in place of a newer checkpoint: {error}" for error in failed)
        for note in notes:
            log.warning("%s", note)
        return replace(found, notes=(*notes, *found.notes))
    if len(failed) == 1:
        raise failed[0]
    raise CheckpointError(
        run / "checkpoints",
        found="no checkpoint in it is whole:" + "".join(f"\n  {error}" for error in failed) + "\n",
        rule="One whole checkpoint is needed, to predict or to go on from",
        remedy="Copy the run again from where it was whole, or train again in another folder",
    )


def _read_best(run: Path, best: str) -> Checkpoint:
    try:
        return read(run / "checkpoints" / best / WEIGHTS)
    except (CheckpointError, SettingsError) as error:
        whole = [str(found.path.parent) for found in _whole(run)]
        if not whole:
            raise
        raise CheckpointError(
            run,
            found=f"its best checkpoint cannot be used ({error})",
            rule="Another one is no silent stand-in for the best: its scores are others",
            remedy=f"Give one that is whole by its own path ({', '.join(whole)}), or the run from a copy",
        ) from error


def _found_again(run: Path) -> dict[str, Any]:
    last = _newest_whole(run, _newest_first(run), lambda folder: read(folder / WEIGHTS))
    index: dict[str, Any] = {"last": last.path.parent.name}
    told = {f.path.parent.name: f.info.scores for f in _whole(run) if "score" in f.info.scores}
    # runs from before scores were smoothed have none
    scores = {name: scored.get("smoothed_score", scored["score"]) for name, scored in told.items()}
    if scores:
        best = max(scores, key=lambda name: scores[name])
        index |= {"best": best, "best_score": scores[best]}
    log.warning(
        "%s is missing or damaged; by the checkpoints themselves %s is the last and %s the best",
        run / "checkpoints" / INDEX,
        index["last"],
        index.get("best", "none"),
    )
    return index


def _whole(run: Path) -> Iterator[Checkpoint]:
    for folder in _step_folders(run):
        try:
            yield read(folder / WEIGHTS)
        except (CheckpointError, SettingsError):  # the caller has told of damage already
            continue


def _is_index(index: Any) -> bool:
    if not isinstance(index, dict):
        return False
    names = [index.get("last"), *([index.get("best")] if {"best", "best_score"} & index.keys() else [])]
    named = all(isinstance(name, str) and _STEP_FOLDER.fullmatch(name) for name in names)
    return named and ("best" not in index or isinstance(index.get("best_score"), float | int))


def _step_folders(run: Path) -> list[Path]:
    """The checkpoint folders of a run, the oldest first."""
    found = [path for path in (run / "checkpoints").glob("step_*") if _STEP_FOLDER.fullmatch(path.name)]
    return sorted(found, key=lambda path: _step(path.name))


def _step(name: str) -> int:
    return int(name.removeprefix("step_"))


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
