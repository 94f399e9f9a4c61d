"""MONAI as a peer: volumes in memory, and its transforms that do what nnU-Net's training does, as often."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import RandSpatialCropd
from monai.transforms.intensity.dictionary import (
    RandAdjustContrastd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
)
from monai.transforms.spatial.dictionary import RandAffined, RandFlipd, RandSimulateLowResolutiond

from ...data.store import Store
from ...data.volume import Shape
from .volumes import with_margin

_BOTH = ("image", "labels")


class MonaiPatches:
    """Patches of volumes in memory, cropped anywhere in them with a margin to turn them in."""

    def __init__(self, store: Store, patch: Shape) -> None:
        self._volumes = [_volume(store, case) for case in sorted(store.cases)]
        self._chain = training_chain(patch)

    def patches(self, count: int, seed: int) -> list[Any]:
        """So many, each with "image" and "labels"; the volumes in turn."""
        self._chain.set_random_state(seed=seed)
        return [self._chain(self._volumes[k % len(self._volumes)]) for k in range(count)]


def training_chain(patch: Shape) -> Compose:
    """Rotation and scale are drawn together, as often as nnU-Net does either or both of them.

    Those patches that are not turned are interpolated as well: that is how MONAI crops to the patch there.
    Blur and coarsening are as often as nnU-Net does them to an image of one channel.
    """
    sigma, gamma = (0.5, 1.0), (0.7, 1.5)
    return Compose(
        [
            RandSpatialCropd(_BOTH, with_margin(patch), random_size=False),
            RandAffined(
                _BOTH,
                prob=0.36,
                rotate_range=[np.pi / 6] * 3,
                scale_range=[(-0.3, 0.4)] * 3,
                spatial_size=patch,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandGaussianNoised("image", prob=0.1, std=0.1),
            RandGaussianSmoothd("image", sigma, sigma, sigma, prob=0.1),
            RandScaleIntensityd("image", 0.25, prob=0.15),
            RandScaleIntensityFixedMeand("image", prob=0.15, factors=0.25, preserve_range=True),
            RandSimulateLowResolutiond("image", prob=0.125, zoom_range=(0.5, 1.0)),
            RandAdjustContrastd("image", prob=0.1, gamma=gamma, invert_image=True, retain_stats=True),
            RandAdjustContrastd("image", prob=0.3, gamma=gamma, retain_stats=True),
            *(RandFlipd(_BOTH, prob=0.5, spatial_axis=axis) for axis in range(3)),
        ]
    )


def _volume(store: Store, case: str) -> Mapping[str, torch.Tensor]:
    image, labels = store.image(case)[:], store.label(case)[:]
    return {
        "image": torch.from_numpy(image).float(),
        "labels": torch.from_numpy(labels.astype(np.float32))[None],
    }
