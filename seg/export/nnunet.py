"""A run as nnU-Net takes it: weights to train from, and a model folder to predict with.

    OUT/checkpoint.pth                                 for `nnUNetv2_train -pretrained_weights`
    OUT/nnUNetPlans_fewvox.json                        the plans it goes with
    OUT/nnUNetTrainer__nnUNetPlans_fewvox__3d_fullres  the model, of a run that was trained on labels
    OUT/README.md                                      the commands, and what nnU-Net does otherwise

Written for nnU-Net 2.8 (nnunetv2/run/load_pretrained_weights.py, inference/predict_from_raw_data.py).
"""

import json
import re
from pathlib import Path
from typing import Any

import torch

from ...data.atomic import new_folder
from ...data.errors import UserError
from ...data.plan import Plan
from ..checkpoint import Checkpoint
from . import nnunet_plans
from .nnunet_network import check_network, weights
from .nnunet_plans import CONFIGURATION, PLANS, plans

WEIGHTS, TRAINER = "checkpoint.pth", "nnUNetTrainer"
MODEL = f"{TRAINER}__{PLANS}__{CONFIGURATION}"
DATASET = "Dataset001_fewvox"


def export_nnunet(checkpoint: Checkpoint, out: Path, dataset: str = DATASET) -> list[str]:
    """Writes the folder `out`; gives what its reader should know, in lines.

    `dataset` is the name of the nnU-Net data set to train on: it stands in the plans.

    Raises UserError for what nnU-Net cannot do, and when `out` exists.
    """
    plan = checkpoint.info.plan
    _check_name(dataset)
    check_network(checkpoint)
    nnunet_plans.check_plan(plan, checkpoint.path)
    predicts = plan.labels is not None and "output" in checkpoint.info.trained
    if predicts:
        _check_labels(checkpoint)
    told = _told(checkpoint, predicts)
    with new_folder(out) as folder:
        _write_json(folder / f"{PLANS}.json", plans(checkpoint, dataset))
        torch.save({"network_weights": weights(checkpoint, with_output=predicts)}, folder / WEIGHTS)
        if predicts:
            _write_model(checkpoint, folder / MODEL, dataset)
        (folder / "README.md").write_text(_readme(checkpoint, dataset, told, predicts), encoding="utf-8")
    return told


def _write_model(checkpoint: Checkpoint, folder: Path, dataset: str) -> None:
    said, described = plans(checkpoint, dataset), _dataset_json(checkpoint)
    (folder / "fold_0").mkdir(parents=True)
    _write_json(folder / "plans.json", said)
    _write_json(folder / "dataset.json", described)
    model = {
        "network_weights": weights(checkpoint, with_output=True),
        "init_args": {"plans": said, "configuration": CONFIGURATION, "fold": 0, "dataset_json": described},
        "trainer_name": TRAINER,
        # fewvox predicts once, without mirroring
        "inference_allowed_mirroring_axes": None,
        "current_epoch": 0,
    }
    torch.save(model, folder / "fold_0" / "checkpoint_final.pth")


def _dataset_json(checkpoint: Checkpoint) -> dict[str, Any]:
    info = checkpoint.info
    labels = info.plan.labels
    classes = labels.classes if labels else 0
    return {
        "channel_names": {str(c): name for c, name in enumerate(info.plan.preprocessing.channels)},
        "labels": {"background": 0} | {f"class_{c}": c for c in range(1, classes)},
        "numTraining": len(info.trained_on),
        "file_ending": nnunet_plans.file_ending(info.plan.preprocessing),
    }


def _told(checkpoint: Checkpoint, predicts: bool) -> list[str]:
    plan = checkpoint.info.plan
    how = plan.preprocessing
    told = []
    if not {"encoder", "decoder"} <= set(checkpoint.info.trained):
        reached = ", ".join(checkpoint.info.trained) or "nothing"
        told.append(f"The loss reached {reached}; the rest of the network has its first, random weights.")
    if how.orientation == "stored" and how.spacing is not None:
        told.append(
            'nnU-Net reads the voxel size of a TIFF from CASE.json beside it: {"spacing": [z, y, x]}, in '
            f"{how.unit or 'the unit of the plan'}. Without it, it takes 1, 1, 1."
        )
    elif how.unit not in (None, "mm"):
        told.append(f"nnU-Net does not read units: files must tell their voxel size in {how.unit}.")
    told += nnunet_plans.differences_in_preparing(how)
    if predicts:
        if plan.labels and plan.labels.values != tuple(range(plan.labels.classes)):
            told.append(f"nnU-Net's masks hold class numbers: 0, 1, ... stand for {plan.labels.values}.")
        told += nnunet_plans.differences_in_predicting(plan)
    return told


def _check_name(dataset: str) -> None:
    if not re.fullmatch(r"Dataset\d{3}_\w[\w-]*", dataset):
        raise UserError(
            f"--dataset {dataset}",
            found="no name of an nnU-Net data set",
            rule="They are called DatasetNNN_NAME, with three digits",
            remedy="Give the name of its folder in nnUNet_raw",
        )


def _check_labels(checkpoint: Checkpoint) -> None:
    labels = checkpoint.info.plan.labels
    if labels is not None and labels.kind == "overlapping":
        raise UserError(
            checkpoint.path,
            found=f"{labels.outputs} classes that may overlap",
            rule="An nnU-Net mask has one class a voxel",
            remedy="Export with --to onnx or --to safetensors, or export the pretrained run to train from",
        )


def _readme(checkpoint: Checkpoint, dataset: str, told: list[str], predicts: bool) -> str:
    return "\n".join(
        [
            f"# A {checkpoint.info.architecture.name} of fewvox ({checkpoint.info.method}) for nnU-Net",
            "",
            *_training(dataset),
            *(_predicting(checkpoint.info.plan) if predicts else []),
            "## What to know",
            "",
            *(f"- {line}" for line in told),
            "",
        ]
    )


def _training(dataset: str) -> list[str]:
    number = int(dataset[7:10])
    return [
        "## Train from these weights",
        "",
        f"The plans are for `{dataset}`; for another one, export again with `--dataset`.",
        "",
        "```sh",
        f"nnUNetv2_plan_and_preprocess -d {number} --no_pp",
        f"cp {PLANS}.json $nnUNet_preprocessed/{dataset}/",
        f"nnUNetv2_preprocess -d {number} -plans_name {PLANS} -c {CONFIGURATION}",
        f"nnUNetv2_train {number} {CONFIGURATION} 0 -p {PLANS} -pretrained_weights {WEIGHTS}",
        "```",
        "",
        "nnU-Net starts its output layers anew. Its learning rate (0.01) is meant for random weights.",
        "",
    ]


def _predicting(plan: Plan) -> list[str]:
    ending = nnunet_plans.file_ending(plan.preprocessing)
    files = ", ".join(f"`CASE_{c:04}{ending}` ({name})" for c, name in enumerate(plan.preprocessing.channels))
    return [
        "## Predict",
        "",
        f"A file a channel: {files}.",
        "",
        "```sh",
        f"nnUNetv2_predict_from_modelfolder -i IMAGES -o MASKS -f 0 -device cpu -m {MODEL}",
        "```",
        "",
        "With `-device cuda` it computes in half precision, and more voxels differ from `fewvox predict`.",
        "",
    ]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
