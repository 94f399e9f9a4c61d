"""Files as other programs write them, of networks as small as they come."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fewvox.seg.neighbours.names import nnunet_names
from fewvox.seg.networks.registry import Architecture, build
from fewvox.seg.networks.topology import Topology
from torch import Tensor

TOPOLOGY = Topology(
    features=(4, 8, 12), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)), strides=((1, 2, 2), (2, 2, 2))
)
ARCHITECTURE = Architecture(in_channels=2, classes=3, topology=TOPOLOGY)
PLANS = {
    "dataset_name": "Dataset004_Hippocampus",
    "plans_name": "nnUNetPlans",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "image_reader_writer": "SimpleITKIO",
    "foreground_intensity_properties_per_channel": {
        "0": {"mean": 100.0, "std": 50.0, "percentile_00_5": -20.0, "percentile_99_5": 300.0, "max": 400.0},
        "1": {"mean": 1.0, "std": 2.0, "percentile_00_5": 0.0, "percentile_99_5": 5.0, "max": 9.0},
    },
    "configurations": {
        "3d_fullres": {
            "patch_size": [8, 16, 24],
            "spacing": [3.0, 1.0, 0.5],
            "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
            "use_mask_for_norm": [False, False],
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": 3,
                    "features_per_stage": [4, 8, 12],
                    "conv_op": "torch.nn.modules.conv.Conv3d",
                    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
                    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
                    "n_conv_per_stage": [2, 2, 2],
                    "n_conv_per_stage_decoder": [2, 2],
                    "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                    "dropout_op": None,
                    "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
    },
}
DATASET = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "Anterior": 1, "Posterior": 2},
    "numTraining": 260,
    "file_ending": ".nii.gz",
}


class Canary:
    """An object whose unpickling makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def canary(tmp_path) -> Canary:
    """An object whose unpickling makes the folder `canary.path`."""
    return Canary(tmp_path / "sung")


@pytest.fixture(scope="session")
def architecture() -> Architecture:
    """That of a small U-Net of two channels and three classes, anisotropic."""
    return ARCHITECTURE


@pytest.fixture(scope="session")
def own_weights() -> dict[str, Tensor]:
    """The tensors of a network of `architecture`, no two alike."""
    network = build(ARCHITECTURE, 0)
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(t.shape, generator=generator) for name, t in network.state_dict().items()}


@pytest.fixture(scope="session")
def nnunet_weights(own_weights) -> dict[str, Tensor]:
    """The same by nnU-Net's names, most of them twice, with the output of a coarser level."""
    names = nnunet_names(TOPOLOGY)
    weights = {theirs: own_weights[ours] for ours in own_weights for theirs in names[ours]}
    return weights | {"decoder.seg_layers.0.weight": torch.zeros(3, 8, 1, 1, 1)}


@pytest.fixture
def nnunet_content(nnunet_weights) -> Callable[..., dict]:
    """What `nnUNetTrainer.save_checkpoint` saves after an epoch; changes of plans, dataset and weights.

    `changes` are of the configuration, or of the arguments of its network.
    """

    def make(*, plans=None, dataset=DATASET, weights=nnunet_weights, drop=(), **changes) -> dict:
        configuration = PLANS["configurations"]["3d_fullres"]
        arguments = configuration["architecture"]["arch_kwargs"]
        arguments = {} if "architecture" in drop else arguments
        of_network = {
            key: value for key, value in changes.items() if key in arguments or key == "nonlin_first"
        }
        changed = {
            **configuration,
            "architecture": {**configuration["architecture"], "arch_kwargs": arguments | of_network},
            **{key: value for key, value in changes.items() if key not in of_network},
        }
        changed = {key: value for key, value in changed.items() if key not in drop}
        all_plans = {**PLANS, "configurations": {"3d_fullres": changed}, **(plans or {})}
        losses = {"train_losses": [np.float32(0.5)], "mean_fg_dice": [np.float64(0.25)], "lrs": [0.01]}
        return {
            "network_weights": weights,
            "optimizer_state": {
                "state": {0: {"momentum_buffer": torch.zeros(3)}},
                "param_groups": [{"lr": 0.01}],
            },
            "grad_scaler_state": None,
            "logging": losses | {"dice_per_class_or_region": [[np.float64(0.5), np.float64("nan")]]},
            "_best_ema": np.float64(0.25),
            "current_epoch": 1,
            "init_args": {
                "plans": all_plans,
                "configuration": "3d_fullres",
                "fold": 0,
                "dataset_json": dataset,
                "device": torch.device("cpu"),
            },
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 1, 2),
        }

    return make


@pytest.fixture
def saved(tmp_path) -> Callable[..., Path]:
    """Saves a value as torch does; gives the file."""

    def save(value: object, name: str = "checkpoint_final.pth") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(value, path)
        return path

    return save
