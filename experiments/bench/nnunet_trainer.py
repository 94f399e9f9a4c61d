"""nnU-Net's own trainer on the CPU, built for a plan of ours.

Measured with nnunetv2 2.8.1. Names of its modules and functions may change with its version.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.plan import Plan
from ...seg.export.nnunet_network import REQUIRES_IMPORT, arguments, layout_of
from ...seg.networks.registry import architecture_for
from .nnunet import PREPARING, NnUNetCases, quietly

TRAINING = f"{PREPARING} batchgeneratorsv2"
_DATASET, _PLANS, _CONFIGURATION = "Dataset001_bench", "nnUNetPlans", "3d_fullres"


def nnunet_step(folder: Path, plan: Plan, images: Tensor, labels: Tensor) -> Callable[[int], object]:
    """What makes a training step of nnU-Net on a batch (B, C, Z, Y, X), as `nnUNetv2_train -device cpu` does.

    `folder` takes what it writes: it reads its folders from the environment when it is first imported, so a
    process can have one such step. Raises ImportError where nnU-Net, or what it needs, is not installed.
    """
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    prepared = folder / "preprocessed" / _DATASET
    prepared.mkdir(parents=True)
    dataset = _dataset(plan)
    (prepared / "dataset.json").write_text(json.dumps(dataset))
    cases = NnUNetCases(prepared / f"{_PLANS}_{_CONFIGURATION}", plan.training.patch)
    cases.write("a", images[0, 0].numpy(), labels[0, 0].numpy(), {})
    # what nnUNetv2_train does for the CPU
    torch.set_num_threads(os.cpu_count() or 1)
    made = quietly("nnunetv2.training.nnUNetTrainer.nnUNetTrainer", "nnUNetTrainer")
    trainer = made(_plans(plan), _CONFIGURATION, 0, dataset, device=torch.device("cpu"))
    trainer.initialize()
    trainer.network.train()
    scales = trainer._get_deep_supervision_scales()
    batch = {"data": images, "target": [_coarser(labels, scale) for scale in scales]}
    return lambda _: trainer.train_step(batch)


def _coarser(labels: Tensor, scale: list[float]) -> Tensor:
    steps = [round(1 / s) for s in np.asarray(scale)]
    z, y, x = (slice(step // 2, None, step) for step in steps)
    return labels[..., z, y, x].short()


def _dataset(plan: Plan) -> dict[str, Any]:
    channels = {str(c): "image" for c in range(len(plan.preprocessing.channels))}
    return {
        "channel_names": channels,
        "labels": {"background": 0, "object": 1},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }


def _plans(plan: Plan) -> dict[str, Any]:
    architecture = architecture_for(plan)
    configuration = {
        "data_identifier": f"{_PLANS}_{_CONFIGURATION}",
        "batch_size": plan.training.batch,
        "patch_size": list(plan.training.patch),
        "batch_dice": False,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet."
            + layout_of(architecture).class_name,
            "arch_kwargs": arguments(architecture),
            "_kw_requires_import": REQUIRES_IMPORT,
        },
    }
    return {
        "dataset_name": _DATASET,
        "plans_name": _PLANS,
        "label_manager": "LabelManager",
        "image_reader_writer": "SimpleITKIO",
        "continue_training": False,
        "configurations": {_CONFIGURATION: configuration},
    }
