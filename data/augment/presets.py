"""Augmentations by name, as a configuration file would say them, and where they come from.

nnunet: the default training of nnU-Net 2 (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z,
supplement 4; nnUNetTrainer.get_training_transforms). We differ in that scales are drawn evenly on a
logarithmic scale.

weak: flips, and brightness, contrast and gamma within narrow ranges.

views: nnunet's changes, more often, for the views of a pretraining: what a pretext task must not tell views
apart by has to differ between them. Scaling is left to SmartPatch.
"""

from collections.abc import Mapping
from typing import Any

_NNUNET = {
    "spatial": {
        "rotation_degrees": 30.0,
        "rotation_probability": 0.2,
        "scale": (0.7, 1.4),
        "scale_probability": 0.2,
    },
    "chain": {
        "noise": {"op": "noise", "probability": 0.1, "variance": (0.0, 0.1)},
        "blur": {"op": "blur", "probability": 0.2, "channel_probability": 0.5, "sigma": (0.5, 1.0)},
        "brightness": {"op": "brightness", "probability": 0.15, "factor": (0.75, 1.25)},
        "contrast": {"op": "contrast", "probability": 0.15, "factor": (0.75, 1.25)},
        "inverted_gamma": {"op": "gamma", "probability": 0.1, "gamma": (0.7, 1.5), "inverted": True},
        "gamma": {"op": "gamma", "probability": 0.3, "gamma": (0.7, 1.5)},
    },
}

_WEAK = {
    "spatial": {"rotation_probability": 0.0, "scale_probability": 0.0},
    "chain": {
        "brightness": {"op": "brightness", "probability": 0.15, "factor": (0.9, 1.1)},
        "contrast": {"op": "contrast", "probability": 0.15, "factor": (0.9, 1.1)},
        "gamma": {"op": "gamma", "probability": 0.15, "gamma": (0.8, 1.25)},
    },
}

_VIEWS = {
    "spatial": {"rotation_degrees": 30.0, "rotation_probability": 0.5, "scale_probability": 0.0},
    "chain": {
        "noise": {"op": "noise", "probability": 0.3, "variance": (0.0, 0.1)},
        "blur": {"op": "blur", "probability": 0.3, "sigma": (0.5, 1.0)},
        "brightness": {"op": "brightness", "probability": 0.3, "factor": (0.75, 1.25)},
        "contrast": {"op": "contrast", "probability": 0.3, "factor": (0.75, 1.25)},
        "inverted_gamma": {"op": "gamma", "probability": 0.1, "gamma": (0.7, 1.5), "inverted": True},
        "gamma": {"op": "gamma", "probability": 0.5, "gamma": (0.7, 1.5)},
    },
}

PRESETS: Mapping[str, Mapping[str, Any]] = {"nnunet": _NNUNET, "weak": _WEAK, "views": _VIEWS, "none": {}}
