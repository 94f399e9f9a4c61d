"""nnU-Net's own supply as a peer, where it is installed: its data loader, its training's transforms.

Measured with nnunetv2 2.8.1 and batchgeneratorsv2 0.3.6.
"""

from typing import Any

import numpy as np

from .nnunet import PREPARING, NnUNetCases, quietly
from .one_thread import drawn_from

SUPPLYING = f"{PREPARING} batchgeneratorsv2 connected-components-3d einops"
_ANGLES = (-np.pi / 6, np.pi / 6)


class NnUNetPatches:
    """Batches of two, as its trainer's data loader makes them in one process, without deep supervision.

    It reads a larger box than the patch, for what is turned into the patch. Raises ImportError where nnU-Net,
    or what its trainer needs, is not installed.
    """

    def __init__(self, cases: NnUNetCases) -> None:
        trainer = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"
        mirrored = (0, 1, 2)
        transforms = quietly(trainer, "nnUNetTrainer").get_training_transforms(
            cases.patch, _ANGLES, None, mirrored, do_dummy_2d_data_aug=False, use_mask_for_norm=[False]
        )
        labels = quietly("nnunetv2.utilities.label_handling.label_handling", "LabelManager")
        larger = quietly(trainer, "get_patch_size")(cases.patch, _ANGLES, _ANGLES, _ANGLES, (0.85, 1.25))
        self._loader = quietly("nnunetv2.training.dataloading.data_loader", "nnUNetDataLoader")(
            cases.data_set(),
            2,
            larger,
            cases.patch,
            labels({"background": 0, "object": 1}, None),
            oversample_foreground_percent=0.33,
            transforms=transforms,
        )

    def patches(self, count: int, seed: int) -> list[Any]:
        """So many patches, in batches of "data" and "target"."""
        with drawn_from(seed):
            return [next(self._loader) for _ in range(0, count, 2)]


def spatial_transform(
    shape: tuple[int, ...], angles: tuple[float, ...], scale: float, *, nearest: bool = False
) -> Any:
    """Its spatial transform with fixed angles (radians, around the axes in turn), enlarging by `scale`.

    Borders are as in its training, and so are labels, which it interpolates class by class, unless told
    to take the nearest. Raises ImportError where it is not installed.
    """
    return quietly("batchgeneratorsv2.transforms.spatial.spatial", "SpatialTransform")(
        shape,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_rotation=1,
        rotation=lambda image, dim: angles[dim],  # noqa: ARG005
        p_scaling=1,
        scaling=1 / scale,
        p_synchronize_scaling_across_axes=1,
        mode_seg="nearest" if nearest else "bilinear",
        border_mode_seg="constant",
        padding_value_seg=-1,
    )
