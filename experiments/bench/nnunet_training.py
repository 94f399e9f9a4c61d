"""A short training by nnU-Net's own trainer, preprocessing and augmentation, and its own predictor.

Measured with nnunetv2 2.8.1. Names of its modules and functions may change with its version.
"""

import json
import os
import random
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data.labels import LabelTable
from ...data.plan import Plan
from ...data.volume import Volume
from ...seg.export.nnunet_plans import CONFIGURATION, plans_of
from ...seg.networks.registry import architecture_for
from .nnunet import RESAMPLING, NnUNetCases, quietly

# its learning rate falls from epoch to epoch
_EPOCHS = 10
_NAME = "Dataset001_bench"
# a volume's class numbers (Z, Y, X)
Predict = Callable[[Volume], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What nnU-Net is trained with: one of its trainers, plans and `dataset.json` in its terms, steps, seed.

    `unit` is that of the voxel size in the plans.
    """

    trainer: str
    plans: dict[str, Any]
    dataset: dict[str, Any]
    unit: str | None
    steps: int
    seed: int


def plans_for(plan: Plan) -> dict[str, Any]:
    """A plan of ours in nnU-Net's terms, but for what it has its own rules for: resampling, normalisation.

    Its normalisation is by z-score for all but CT.
    """
    schemes = tuple("ct" if scheme == "ct" else "zscore" for scheme in plan.preprocessing.normalisation)
    plan = replace(plan, preprocessing=replace(plan.preprocessing, normalisation=schemes))
    made = plans_of(plan, architecture_for(plan), _NAME)
    configuration = made["configurations"][CONFIGURATION]
    configuration |= RESAMPLING
    configuration["batch_size"] = plan.training.batch
    return made


def dataset_for(plan: Plan, cases: int) -> dict[str, Any]:
    """What stands in `dataset.json`; labels are class numbers."""
    table = plan.labels or LabelTable()
    return {
        "channel_names": {str(c): name for c, name in enumerate(plan.preprocessing.channels)},
        "labels": {"background": 0, **{f"class_{k}": k for k in range(1, table.classes)}},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }


def epochs_of(steps: int) -> tuple[int, int]:
    """In how many epochs, at most ten, so many steps part evenly, and the steps of each."""
    epochs = next(n for n in range(_EPOCHS, 0, -1) if steps % n == 0)
    return epochs, steps // epochs


def train(
    task: Task, cases: Iterable[tuple[str, Volume, np.ndarray]], folder: Path, timed: AbstractContextManager
) -> Predict:
    """Trains on cases (name, image, class numbers (1, Z, Y, X)); gives what predicts with the last weights.

    `folder` takes what nnU-Net writes, `timed` is entered for the training alone. Raises ImportError where
    nnU-Net, or what it needs, is not installed.
    """
    _set_environment(folder)
    trainer = _trainer(task)
    _write_cases(task, trainer, cases)
    with timed:
        trainer.run_training()
    return _predictor(task, trainer)


def _set_environment(folder: Path) -> None:
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    if not torch.cuda.is_available():
        # in the process of the training: its workers are not seeded, and the cores are busy
        os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112


def _trainer(task: Task) -> Any:
    variants = "nnunetv2.training.nnUNetTrainer."
    module = "nnUNetTrainer" if task.trainer == "nnUNetTrainer" else "variants.optimizer.nnUNetTrainerAdam"
    made = quietly(variants + module, task.trainer)
    for seeded in (random.seed, np.random.seed, torch.manual_seed):
        seeded(task.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plans = {**task.plans, "continue_training": False}
    trainer = made(plans, CONFIGURATION, "all", task.dataset, device=device)
    trainer.num_epochs, trainer.num_iterations_per_epoch = epochs_of(task.steps)
    # its log needs one; no checkpoint is chosen by it
    trainer.num_val_iterations_per_epoch = 1
    trainer.disable_checkpointing = True
    return trainer


def _write_cases(task: Task, trainer: Any, cases: Iterable[tuple[str, Volume, np.ndarray]]) -> None:
    """The cases as its preprocessor makes them, where its trainer looks for them."""
    base = Path(trainer.preprocessed_dataset_folder_base)
    base.mkdir(parents=True)
    for name, content in (("dataset.json", task.dataset), ("dataset_fingerprint.json", {})):
        (base / name).write_text(json.dumps(content), encoding="utf-8")
    module = "nnunetv2.preprocessing.preprocessors.default_preprocessor"
    preprocessor = quietly(module, "DefaultPreprocessor")(verbose=False)
    plans, configuration = trainer.plans_manager, trainer.configuration_manager
    z, y, x = configuration.patch_size
    stored = NnUNetCases(Path(trainer.preprocessed_dataset_folder), (z, y, x))
    for name, volume, labels in cases:
        made = preprocessor.run_case_npy(
            volume.array, labels.astype(np.int16), _spacing(volume, task), plans, configuration, task.dataset
        )
        stored.save(name.replace("/", "_"), *made)


def _spacing(volume: Volume, task: Task) -> dict[str, Any]:
    """What its readers tell of a volume: the voxel size (z, y, x), in the unit of the plan."""
    return {"spacing": list(volume.in_unit(task.unit).spacing or (1.0, 1.0, 1.0))}


def _predictor(task: Task, trainer: Any) -> Predict:
    """Its sliding window with its defaults, among them mirroring, over the trainer's network."""
    trainer.set_deep_supervision_enabled(False)
    network = trainer.network.eval()
    module = "nnunetv2.inference.predict_from_raw_data"
    predictor = quietly(module, "nnUNetPredictor")(device=trainer.device, allow_tqdm=False)
    predictor.manual_initialization(
        network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [getattr(network, "_orig_mod", network).state_dict()],
        task.dataset,
        task.trainer,
        trainer.inference_allowed_mirroring_axes,
    )
    return lambda volume: predictor.predict_single_npy_array(
        volume.array.astype(np.float32), _spacing(volume, task)
    )
