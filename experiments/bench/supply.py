"""How fast patches and views are supplied: read, turned and changed."""

import numpy as np
import torch

from ...data.loader import PatchSampler
from ...data.store import Store
from ...ssl.method import ViewSpec
from ...ssl.views import ViewConfig, ViewSampler
from .figure import Figure, Work, measured
from .nuclei import nuclei_store, patch_sampler


def supply_figures(runs: int) -> list[Figure]:
    """Supervised patches beside MONAI's, and views of a pretraining."""
    with nuclei_store() as store:
        sampler = patch_sampler(store)
        cases, patch, batch = sampler.cases, sampler.patch, sampler.batch_size
        views = ViewSampler(
            store, cases, patch, batch, ViewSpec(global_views=1, local_views=1), ViewConfig(), 0, 100
        )
        return [
            measured(
                "supply",
                "a supervised patch, read from the store and augmented",
                sampler.batch,
                "MONAI, volumes in memory",
                _monai_chain(store, sampler),
                runs,
                items=batch,
            ),
            measured("supply", "a SmartPatch view", views.batch, None, None, runs, items=2 * batch),
        ]


def _monai_chain(store: Store, sampler: PatchSampler) -> Work:
    """MONAI's transforms with our probabilities and ranges, on a volume that is in memory already."""
    from monai.transforms.compose import Compose
    from monai.transforms.croppad.dictionary import RandSpatialCropd
    from monai.transforms.intensity.dictionary import (
        RandAdjustContrastd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
    )
    from monai.transforms.spatial.dictionary import RandAffined

    case = sampler.cases[0]
    item = {
        "image": torch.from_numpy(store.image(case)[:]),
        "label": torch.from_numpy(store.label(case)[:].astype(np.float32))[None],
    }
    turn = [np.pi / 6] * 3
    chain = Compose(
        [
            RandSpatialCropd(("image", "label"), sampler.patch, random_size=False),
            RandAffined(
                ("image", "label"),
                prob=0.36,  # ours turns a fifth and scales a fifth of the patches
                rotate_range=turn,
                scale_range=[(-0.3, 0.4)] * 3,
                spatial_size=sampler.patch,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandGaussianNoised("image", prob=0.1, std=0.3),
            RandGaussianSmoothd("image", (0.5, 1.0), (0.5, 1.0), (0.5, 1.0), prob=0.2),
            RandScaleIntensityd("image", 0.25, prob=0.15),
            RandAdjustContrastd("image", prob=0.4, gamma=(0.7, 1.5)),
        ]
    )
    chain.set_random_state(seed=0)
    return lambda _: chain(item)
