"""The folder of one training: everything it was given and everything it made.

RUN/config.yaml plan.yaml split.json environment.json   what it was given, resolved
RUN/data.json                                           what was corrected or accepted in the data, if any
RUN/transfer.json                                       what was loaded from a checkpoint, if any
RUN/extended.json                                       the steps it began with, if it was given more
RUN/metrics.jsonl tensorboard/                          what it measured
RUN/checkpoints/                                        see checkpoint.py
RUN/postprocess.yaml                                    what its validation cases chose, see postprocess.py
RUN/pictures/                                           how its predictions came on, see snapshots.py
RUN/README.md                                           the model card, written with each checkpoint
"""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..data.atomic import write_text
from ..data.errors import UserError
from ..data.plan import Plan
from ..data.settings import load_mapping, plain, write_yaml
from ..data.workers import START_METHOD
from .checkpoint import CheckpointInfo, load, read_index
from .engine.loop import LoopConfig, whole
from .transfer import TransferReport

CONFIG, TRANSFER, DATA, EXTENDED = "config.yaml", "transfer.json", "data.json", "extended.json"
_BEFORE_CONFIG = {"plan.yaml", "split.json", "environment.json", TRANSFER, DATA}
# settings of a run that may be others when it is continued
_CHANGE_NO_NUMBER = {"workers", "checkpointing", "keep_memory", "pictures", "validate_patches_every"}


C = TypeVar("C", bound=LoopConfig)


class RunError(UserError):
    """A run folder that cannot be started or continued."""


def start(
    path: Path,
    config: Any,
    plan: Plan,
    split: dict[str, list[str]],
    report: TransferReport | None = None,
    records: Sequence[str] = (),
) -> None:
    """Makes a run folder and writes what the run is given; raises RunError when a run is there already.

    `records` are those of the store: what was corrected or accepted in its data.
    """
    # without config.yaml the run never began: what a killed start left is written anew
    if path.exists() and {p.name for p in path.iterdir() if not p.name.startswith(".")} - _BEFORE_CONFIG:
        raise RunError(
            path,
            found="the folder is not empty",
            rule="A run is never written over",
            remedy="Continue it with --resume, or choose another --out",
        )
    path.mkdir(parents=True, exist_ok=True)
    write_yaml(path / "plan.yaml", plan, "The plan of this run; see docs/formats.md.")
    write_text(path / "split.json", json.dumps(split, indent=1))
    if report is not None:
        write_text(path / TRANSFER, json.dumps(plain(report), indent=1))
    if records:
        write_text(path / DATA, json.dumps(list(records), indent=1))
    write_text(path / "environment.json", json.dumps(environment(), indent=1))
    # written last: a folder with it can be resumed
    write_yaml(path / CONFIG, config, "The resolved configuration of this run.")


def check_resumable(
    path: Path,
    config: Any,
    split: dict[str, list[str]],
    report: TransferReport | None = None,
    *,
    extend: bool = False,
) -> None:
    """Raises RunError unless the run was started with the same configuration, cases and weights.

    What changes no number may differ, and with `extend` the steps.
    """
    if not (path / CONFIG).is_file():
        raise RunError(
            path,
            found="no run to continue",
            rule="--resume continues a run that was started before",
            remedy="Leave --resume out",
        )
    before, now = load_mapping(path / CONFIG), plain(config)
    if now.keys() - before.keys():
        raise RunError(
            path,
            found=f"a run of an earlier version, without the setting {min(now.keys() - before.keys())}",
            rule="A training is finished by the version that began it",
            remedy="Finish it with that version, or start another run, with its weights as --pretrained",
        )
    may_differ = {*_CHANGE_NO_NUMBER, *(["steps"] if extend else [])}
    changed = [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted((before.keys() | now.keys()) - may_differ)
        # as texts: the order of an augmentation's operations counts
        if json.dumps(before.get(key)) != json.dumps(now.get(key))
    ]
    if json.loads((path / "split.json").read_text(encoding="utf-8")) != split:
        changed.append("the cases are others")
    if _source_hash(path) != (report.source_hash if report else None):
        changed.append("the pretrained weights are others, or were left out")
    if changed:
        raise RunError(
            path,
            found="; ".join(changed),
            rule="A run is continued with the settings and cases it was started with",
            remedy="Give the same ones, or start another run; to train longer, say so with --extend",
        )


def check_continued(
    path: Path,
    config: Any,
    split: dict[str, list[str]],
    info: CheckpointInfo,
    report: TransferReport | None = None,
    *,
    extend: bool = False,
) -> None:
    """Raises RunError unless `check_resumable` and, of its last checkpoint, `check_same_data` do not."""
    check_resumable(path, config, split, report, extend=extend)
    if has_checkpoint(path):
        check_same_data(path, load(path, "last").info, info)


def continued(path: Path, config: C, resolve: Callable[[C], C]) -> C:
    """The configuration that a run goes on with: resolved for the steps that it began with, however extended.

    What follows from the number of steps (the optimiser, shares of the schedule, intervals) stays so.
    """
    now, first = resolve(config), _first_steps(path)
    return now if first is None else replace(resolve(replace(config, steps=first)), steps=now.steps)


def extend(path: Path, config: LoopConfig) -> int:
    """Writes more steps into the configuration of a run; gives the number it had.

    Raises RunError where they are not more, or the run has stopped early.
    """
    before, steps = load_mapping(path / CONFIG)["steps"], whole(config.steps)
    early = has_checkpoint(path) and load(path, "last").info.stopped_early
    again = steps == before and (path / EXTENDED).exists()
    if early or (steps <= before and not again):
        raise RunError(
            path,
            found="it has stopped early" if early else f"{before} steps, and {steps} are asked for",
            rule="--extend gives more steps to a run that takes all of its steps",
            remedy="Start another run" if early else "Set steps to more than it has, or leave --extend out",
        )
    # first: without it the configuration could not be told to be the one the run began with
    if not (path / EXTENDED).exists():
        write_text(path / EXTENDED, json.dumps({"first_steps": before}))
    write_yaml(path / CONFIG, config, f"The resolved configuration of this run, extended to {steps} steps.")
    return before


def _first_steps(path: Path) -> int | None:
    """The steps a run was begun with; None where there is no run."""
    if (path / EXTENDED).is_file():
        return json.loads((path / EXTENDED).read_text(encoding="utf-8"))["first_steps"]
    return load_mapping(path / CONFIG).get("steps") if (path / CONFIG).is_file() else None


def _source_hash(path: Path) -> str | None:
    file = path / TRANSFER
    return json.loads(file.read_text(encoding="utf-8"))["source_hash"] if file.is_file() else None


def check_same_data(path: Path, before: CheckpointInfo, now: CheckpointInfo) -> None:
    """Raises RunError unless a checkpoint of the run saw the same volumes, prepared the same way."""
    changed = []
    if before.plan.store_hash != now.plan.store_hash:
        changed.append("preprocessing or labels of the store")
    if before.plan.training != now.plan.training:
        changed.append("the training section of the plan")
    if (before.trained_on, before.validated_on) != (now.trained_on, now.validated_on):
        changed.append("voxels of the training or validation cases")
    if before.labels_hash != now.labels_hash:
        changed.append("labels of the training or validation cases")
    if changed:
        raise RunError(
            path,
            found=f"other than before: {' and '.join(changed)}",
            rule="A run is continued on the very data it was started with",
            remedy="Give the store it was started with, or start another run",
        )


def has_checkpoint(path: Path) -> bool:
    """Whether the run has something to continue from."""
    return "last" in read_index(path)


def is_finished(path: Path, steps: int) -> bool:
    """Whether the run has taken all of so many steps, or stopped early."""
    if not has_checkpoint(path):
        return False
    last = load(path, "last").info
    return last.steps == steps or last.stopped_early


def environment() -> dict[str, str]:
    """Versions and machine, for the record."""
    names = ("fewvox", "torch", "numpy", "scipy", "blosc2")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
        "workers": f"started by {START_METHOD}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        **{name: version(name) for name in names},
    }
