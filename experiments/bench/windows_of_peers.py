"""The sliding windows of other tools, each called as its own program does.

Measured with nnunetv2 2.8.1 and monai 1.5. Names of nnU-Net's modules may change with its version.
"""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ...data.volume import Shape
from .nnunet import PREPARING, quietly

Windows = Callable[[nn.Module, Tensor], Tensor]
PREDICTING = f"{PREPARING} batchgeneratorsv2"


def nnunet_windows(patch: Shape, classes: int) -> Windows:
    """Logits (K, Z, Y, X) of a network for an image (C, Z, Y, X) by nnU-Net, without mirroring.

    Raises ImportError where it, or what it needs, is not installed.
    """
    made = quietly("nnunetv2.inference.predict_from_raw_data", "nnUNetPredictor")
    predictor = made(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=False,
        device=torch.device("cpu"),
        perform_everything_on_device=False,
        allow_tqdm=False,
    )
    predictor.configuration_manager = SimpleNamespace(patch_size=list(patch))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=classes)
    predictor.allowed_mirroring_axes = None

    def predict(network: nn.Module, image: Tensor) -> Tensor:
        predictor.network = network
        return predictor.predict_sliding_window_return_logits(image)

    return predict


def monai_windows(patch: Shape) -> Windows:
    """The same by MONAI, with its Gaussian weights and windows that overlap by half."""
    from monai.inferers.utils import sliding_window_inference

    @torch.inference_mode()
    def predict(network: nn.Module, image: Tensor) -> Tensor:
        found = sliding_window_inference(image[None], patch, 1, network, overlap=0.5, mode="gaussian")
        if not isinstance(found, Tensor):
            raise TypeError(f"MONAI gave {type(found).__name__} for the logits of one network")
        return found[0]

    return predict
