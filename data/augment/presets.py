"""Augmentations by name, as a configuration file would say them, and where they come from.

nnunet: the default training of nnU-Net 2 (Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z,
supplement 4; nnUNetTrainer.get_training_transforms). We differ in that scales are drawn evenly on a
logarithmic scale, a thin patch turns within its plane by as much as others turn (there by up to 180
degrees), and a blur continues the border instead of mirroring the image at it. What is called
`noise_variance` there is the deviation of the noise, as it is here.

biom3d: the default training of Biom3d 0.1 (Mougeot et al. 2022, semseg_patch_fast.py). We differ in that all
axes are scaled alike and evenly on a logarithmic scale; in thin patches as said above; anisotropy is drawn
evenly by what is left of the voxels; a bias field and gamma act within the image's range (there, on values
around 0 with their sign kept) and keep mean and deviation; the power is drawn evenly below and above 1
instead of on a logarithmic scale.

weak: flips, and brightness, contrast and gamma within narrow ranges.

strong: more than nnunet in every respect. Rotation, scale, blur, contrast, lost resolution and cut-out have
the ranges of nnU-Net's nnUNetTrainerDA5. Wider ranges of brightness and gamma stand for its added brightness
and local gamma, a bias field for its brightness gradient. Its median filter, sharpening, quarter turns and
exchanged axes are left out; shear, elastic deformation and curves come in addition, with numbers of our own.
Operations that move voxels away from their labels are not among them.

views: nnunet's changes, more often and with more noise, for the views of a pretraining: what a pretext task
must not tell views apart by has to differ between them. Scaling is left to SmartPatch.
"""

import math
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
        "noise": {"op": "noise", "probability": 0.1, "deviation": (0.0, 0.1)},
        "blur": {"op": "blur", "probability": 0.2, "channel_probability": 0.5, "sigma": (0.5, 1.0)},
        "brightness": {"op": "brightness", "probability": 0.15, "factor": (0.75, 1.25)},
        "contrast": {"op": "contrast", "probability": 0.15, "factor": (0.75, 1.25)},
        "low_resolution": {
            "op": "low_resolution",
            "probability": 0.25,
            "channel_probability": 0.5,
            "scale": (0.5, 1.0),
        },
        "inverted_gamma": {"op": "gamma", "probability": 0.1, "gamma": (0.7, 1.5), "inverted": True},
        "gamma": {"op": "gamma", "probability": 0.3, "gamma": (0.7, 1.5)},
    },
}

_BIOM3D = {
    "spatial": {
        "rotation_degrees": 45.0,
        "rotation_probability": 0.2,
        "scale": (0.7, 1.4),
        "scale_probability": 0.2,
        "flip_probability": 0.5,
    },
    "chain": {
        "low_resolution": {
            "op": "low_resolution",
            "probability": 0.1,
            "channel_probability": 1.0,
            "scale": (1 / 1.5, 1.0),
            "axes": "one",
        },
        "bias_field": {"op": "bias_field", "probability": 0.15, "order": 3, "coefficient": 0.2},
        "blur": {"op": "blur", "probability": 0.2, "sigma": (0.5, 1.0)},
        "noise": {"op": "noise", "probability": 0.2, "deviation": (0.0, 0.1)},
        "swap": {"op": "swap", "probability": 0.2, "times": (100, 100), "edge": 0.125},
        "gamma": {"op": "gamma", "probability": 0.3, "gamma": (math.exp(-0.35), math.exp(0.4))},
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

_STRONG = {
    "spatial": {
        "rotation_degrees": 30.0,
        "rotation_probability": 0.4,
        "scale": (0.7, 1.43),
        "scale_probability": 0.3,
        "shear_degrees": 10.0,
        "shear_probability": 0.2,
        "elastic_probability": 0.2,
    },
    "chain": {
        "noise": {"op": "noise", "probability": 0.2, "deviation": (0.0, 0.2)},
        "blur": {"op": "blur", "probability": 0.3, "channel_probability": 0.5, "sigma": (0.3, 1.5)},
        "brightness": {"op": "brightness", "probability": 0.2, "factor": (0.5, 1.5)},
        "contrast": {"op": "contrast", "probability": 0.2, "factor": (0.5, 2.0)},
        "low_resolution": {
            "op": "low_resolution",
            "probability": 0.3,
            "channel_probability": 0.5,
            "scale": (0.25, 1.0),
        },
        "bias_field": {"op": "bias_field", "probability": 0.3, "order": 3, "coefficient": 0.5},
        "inverted_gamma": {"op": "gamma", "probability": 0.2, "gamma": (0.5, 2.0), "inverted": True},
        "gamma": {"op": "gamma", "probability": 0.4, "gamma": (0.5, 2.0)},
        "curve": {"op": "curve", "probability": 0.1, "inversion_probability": 0.0},
        "cutout": {"op": "cutout", "probability": 0.4, "blocks": (1, 5), "edge": (0.1, 1 / 3)},
    },
}

_VIEWS = {
    "spatial": {"rotation_degrees": 30.0, "rotation_probability": 0.5, "scale_probability": 0.0},
    "chain": {
        "noise": {"op": "noise", "probability": 0.3, "deviation": (0.0, 0.3)},
        "blur": {"op": "blur", "probability": 0.3, "sigma": (0.5, 1.0)},
        "brightness": {"op": "brightness", "probability": 0.3, "factor": (0.75, 1.25)},
        "contrast": {"op": "contrast", "probability": 0.3, "factor": (0.75, 1.25)},
        "low_resolution": {"op": "low_resolution", "probability": 0.3, "scale": (0.5, 1.0)},
        "inverted_gamma": {"op": "gamma", "probability": 0.1, "gamma": (0.7, 1.5), "inverted": True},
        "gamma": {"op": "gamma", "probability": 0.5, "gamma": (0.7, 1.5)},
    },
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "nnunet": _NNUNET,
    "biom3d": _BIOM3D,
    "weak": _WEAK,
    "strong": _STRONG,
    "views": _VIEWS,
    "none": {},
}
