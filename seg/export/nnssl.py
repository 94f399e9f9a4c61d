"""Weights with an adaptation plan, as nnssl publishes them and nnU-Net's fine-tuning extension reads them.

Source: MIC-DKFZ/nnssl, `src/nnssl/adaptation_planning/adaptation_plan.py` and `experiment_planners/plan.py`.
We differ in that the configuration is called "fewvox" after its preprocessing, which is not one of nnssl's.
"""

from pathlib import Path
from typing import Any

import torch

from ...data.atomic import new_file
from ...data.errors import UserError
from ..checkpoint import Checkpoint
from . import nnunet_plans
from .nnunet_network import REQUIRES_IMPORT, arguments, check_network, layout_of, weights

PLAN = "nnssl_adaptation_plan"


def export_nnssl(checkpoint: Checkpoint, out: Path) -> list[str]:
    """Writes the file `out` (.pth); gives what its reader should know, in lines.

    Raises UserError for what nnU-Net cannot do, and when `out` exists.
    """
    if out.exists():
        raise UserError(
            out,
            found="it exists already",
            rule="Finished results are never written over",
            remedy="Choose another name, or delete it",
        )
    check_network(checkpoint)
    nnunet_plans.check_plan(checkpoint.info.plan, checkpoint.path)
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_file(out) as partial:
        kept = {
            "network_weights": weights(checkpoint, with_output="output" in checkpoint.info.trained),
            PLAN: adaptation_plan(checkpoint),
            "trainer_name": f"fewvox {checkpoint.info.method}",
        }
        torch.save(kept, partial)
    return [
        "nnU-Net's fine-tuning extension (nnUNetv2_train_pretrained) takes the encoder alone; "
        "`--to nnunet` hands the decoder on too."
    ]


def adaptation_plan(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the weights are and where the encoder lies in them, as plain values."""
    info = checkpoint.info
    layout, patch = layout_of(info.architecture), list(info.plan.training.patch)
    return {
        "architecture_plans": {
            "arch_class_name": layout.class_name,
            "arch_kwargs": arguments(info.architecture),
            "arch_kwargs_requiring_import": REQUIRES_IMPORT,
        },
        "pretrain_plan": _pretrain_plan(checkpoint),
        "pretrain_num_input_channels": info.architecture.in_channels,
        "recommended_downstream_patchsize": patch,
        "key_to_encoder": layout.encoder,
        "key_to_stem": layout.stem,
        "keys_to_in_proj": list(layout.projections),
        "key_to_lpe": None,
    }


def _pretrain_plan(checkpoint: Checkpoint) -> dict[str, Any]:
    """The part of our plans that nnssl's have too, with the spacing None where nothing is resampled."""
    said = nnunet_plans.plans(checkpoint, "Dataset001_fewvox")
    (whole,) = said["configurations"].values()
    spacing = checkpoint.info.plan.preprocessing.spacing
    configuration = {
        "data_identifier": "nnsslPlans_fewvox",
        "preprocessor_name": whole["preprocessor_name"],
        "spacing_style": "noresample" if spacing is None else "fixed",
        "normalization_schemes": whole["normalization_schemes"],
        "use_mask_for_norm": whole["use_mask_for_norm"],
        "resampling_fn_data": whole["resampling_fn_data"],
        "resampling_fn_data_kwargs": whole["resampling_fn_data_kwargs"],
        "resampling_fn_mask": whole["resampling_fn_seg"],
        "resampling_fn_mask_kwargs": whole["resampling_fn_seg_kwargs"],
        "spacing": spacing and list(spacing),
        "patch_size": whole["patch_size"],
    }
    kept = (
        "dataset_name",
        "original_median_spacing_after_transp",
        "image_reader_writer",
        "transpose_forward",
        "transpose_backward",
        "experiment_planner_used",
    )
    return {
        **{key: said[key] for key in kept},
        "plans_name": "nnsslPlans",
        "configurations": {"fewvox": configuration},
    }
