"""A plan in nnU-Net's terms: its `plans.json`, and what of ours cannot be said there."""

from typing import Any

from ...data.errors import UserError
from ...data.plan import Plan, Preprocessing
from ..checkpoint import Checkpoint
from ..neighbours.preparation import AS_THEY_ARE, REORIENTS, SCHEMES, WINDOW, WITHOUT_UNIT
from ..networks.registry import Architecture
from .nnunet_network import REQUIRES_IMPORT, arguments, layout_of

PLANS, CONFIGURATION = "nnUNetPlans_fewvox", "3d_fullres"
_SCHEMES = {ours: theirs for theirs, ours in SCHEMES.items()}


def plans(checkpoint: Checkpoint, dataset: str) -> dict[str, Any]:
    """What stands in `plans.json`: preprocessing, patch and network for the nnU-Net data set of that name."""
    return plans_of(checkpoint.info.plan, checkpoint.info.architecture, dataset)


def plans_of(plan: Plan, architecture: Architecture, dataset: str) -> dict[str, Any]:
    """The same for a plan and a network that nothing was trained for yet."""
    spacing = list(plan.preprocessing.spacing or (1.0, 1.0, 1.0))
    network = layout_of(architecture)
    return {
        "dataset_name": dataset,
        "plans_name": PLANS,
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": list(plan.training.patch),
        "image_reader_writer": reader(plan.preprocessing),
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            CONFIGURATION: {
                "data_identifier": f"{PLANS}_{CONFIGURATION}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": max(2, plan.training.batch),
                "patch_size": list(plan.training.patch),
                # for readers; the median shape is not known here
                "median_image_size_in_voxels": list(plan.training.patch),
                "spacing": spacing,
                "normalization_schemes": [_SCHEMES[s] for s in plan.preprocessing.normalisation],
                "use_mask_for_norm": [False] * len(plan.preprocessing.channels),
                **_resampling(plan.preprocessing),
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet."
                    + network.class_name,
                    "arch_kwargs": arguments(architecture),
                    "_kw_requires_import": REQUIRES_IMPORT,
                },
                "batch_dice": False,
            }
        },
        "experiment_planner_used": "fewvox",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": _intensities(plan.preprocessing),
    }


def reader(how: Preprocessing) -> str:
    """nnU-Net's reader that gives voxels in our order."""
    return REORIENTS if how.orientation == "RAS" else WITHOUT_UNIT


def file_ending(how: Preprocessing) -> str:
    """How files end that this reader takes."""
    return ".nii.gz" if how.orientation == "RAS" else ".tif"


def check_plan(plan: Plan, where: object) -> None:
    """Raises UserError for preprocessing that nnU-Net does not know."""
    unknown = sorted(set(plan.preprocessing.normalisation) - _SCHEMES.keys())
    if unknown:
        raise UserError(
            where,
            found=f"the normalisation {unknown[0]}",
            rule=f"nnU-Net knows {', '.join(_SCHEMES)} of ours",
            remedy="Prepare and train with --normalisation zscore, or export with --to onnx or safetensors",
        )


def differences_in_preparing(how: Preprocessing) -> list[str]:
    """What nnU-Net does otherwise to such volumes before its network sees them, in sentences."""
    told = ["nnU-Net cuts off a border of exact zeros; fewvox shows it to the network."]
    if set(how.normalisation) == {"zscore"}:
        told = [
            "nnU-Net cuts off a border of exact zeros and takes mean and standard deviation of the rest, "
            "which changes masks a lot. Add 1 to every voxel of such volumes, as floats: the normalisation "
            "takes it away again, and nothing is cut off."
        ]
    if how.orders.count(0) > 1:
        told.append("Two coarse axes: nnU-Net keeps the slices of the coarsest one alone.")
    return told


def differences_in_predicting(plan: Plan) -> list[str]:
    """What nnU-Net does otherwise with the same volumes and the same network, in sentences."""
    told = [
        "nnU-Net sums logits in half precision: where two classes are equally likely, and in the corners of "
        "a volume, where its weights are smallest, single voxels may get another class."
    ]
    spacing, unit = plan.preprocessing.spacing, plan.preprocessing.unit or ""
    if spacing is not None:
        told.append(
            f"Volumes of another voxel size than {spacing} {unit} are resampled. Where an axis shrinks, "
            "fewvox smooths first and nnU-Net does not; back on the volume's own voxels, fewvox "
            "interpolates probabilities and nnU-Net logits. Borders of objects move a little."
        )
    if any(n % 2 for n in plan.training.patch):
        told.append("The patch is odd along an axis: windows lie elsewhere in volumes larger than it.")
    return told


def _resampling(how: Preprocessing) -> dict[str, Any]:
    if how.spacing is None:
        kinds = ("data", "seg", "probabilities")
        names = {f"resampling_fn_{kind}": AS_THEY_ARE for kind in kinds}
        return names | {f"resampling_fn_{kind}_kwargs": {} for kind in kinds}
    # None: separately, as one axis is coarse by the same threshold of 3; False: never
    apart = None if 0 in how.orders else False
    torch_name = "resample_torch_fornnunet"
    return {
        "resampling_fn_data": torch_name,
        "resampling_fn_data_kwargs": {"is_seg": False, "force_separate_z": apart},
        "resampling_fn_seg": torch_name,
        "resampling_fn_seg_kwargs": {"is_seg": True, "force_separate_z": apart},
        "resampling_fn_probabilities": torch_name,
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "force_separate_z": False},
    }


def _intensities(how: Preprocessing) -> dict[str, dict[str, float]]:
    """By channel number what `CTNormalization` needs; the other schemes need nothing."""
    windows = how.windows or (None,) * len(how.channels)
    return {
        str(c): {} if window is None else {theirs: getattr(window, ours) for ours, theirs in WINDOW.items()}
        for c, window in enumerate(windows)
    }
