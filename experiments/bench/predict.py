"""How fast a whole volume is predicted."""

import torch
from torch import Tensor

from ...seg.networks.registry import architecture_for, build
from ...seg.sliding_window import stitch
from .figure import Figure, measured
from .nuclei import nuclei_store


def predict_figures(runs: int) -> list[Figure]:
    """Our sliding window beside MONAI's, with one network."""
    from monai.inferers.utils import sliding_window_inference

    with nuclei_store() as store:
        image = torch.from_numpy(store.image(next(iter(store.cases)))[:])
    network = build(architecture_for(store.plan), seed=0).eval()
    patch = store.plan.training.patch

    @torch.inference_mode()
    def ours(_: int) -> Tensor:
        return stitch(network, image, patch)

    @torch.inference_mode()
    def theirs(_: int) -> object:
        return sliding_window_inference(image[None], patch, 1, network, overlap=0.5, mode="gaussian")

    work = f"a volume of {tuple(image.shape[1:])}"
    return [measured("predict", work, ours, "MONAI sliding window", theirs, min(runs, 3))]
