"""nnU-Net as a peer, where it is installed: its own code writes, reads and prepares, none of it is here.

Measured with nnunetv2 2.8.1. Names of its modules and functions may change with its version.
"""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from torch import Tensor

from ...data.volume import Shape, Triple

READING = "pip install --no-deps nnunetv2 acvl-utils batchgenerators"
# what its planner writes
_COARSE = {"order_z": 0, "force_separate_z": None}
RESAMPLING = {
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **_COARSE},
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **_COARSE},
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **_COARSE},
}
PREPARING = f"{READING} tqdm pandas scikit-image lazy-loader dynamic-network-architectures"


class NnUNetCases:
    """Cases that nnU-Net has stored, and patches of them as its data loader crops them.

    Raises ImportError where nnU-Net, or what its reader needs, is not installed.
    """

    def __init__(self, folder: Path, patch: Shape) -> None:
        module = "nnunetv2.training.dataloading.nnunet_dataset"
        self._dataset, self._layout = (
            quietly(module, "nnUNetDatasetBlosc2"),
            quietly(module, "comp_blosc2_params"),
        )
        self._crop = quietly("acvl_utils.cropping_and_padding.bounding_boxes", "crop_and_pad_nd")
        self.folder, self.patch = folder, patch
        folder.mkdir()

    def write(self, case: str, image: np.ndarray, labels: np.ndarray, properties: dict[str, Any]) -> None:
        """Writes an image (Z, Y, X) in float32 and its labels in int16, as its preprocessor does."""
        self.save(case, image[None], labels[None].astype(np.int16), properties)

    def save(self, case: str, data: np.ndarray, seg: np.ndarray, properties: dict[str, Any]) -> None:
        """Writes an image (C, Z, Y, X) and its labels (1, Z, Y, X) as its preprocessor gave them."""
        blocks, chunks = self._layout(data.shape, self.patch, data.itemsize)
        blocks_seg, chunks_seg = self._layout(seg.shape, self.patch, seg.itemsize)
        self._dataset.save_case(
            data,
            seg,
            properties,
            str(self.folder / case),
            chunks=chunks,
            blocks=blocks,
            chunks_seg=chunks_seg,
            blocks_seg=blocks_seg,
        )

    def image(self, case: str, start: np.ndarray) -> Tensor:
        """A patch of the image alone, opened with the options of `load_case` and cropped by its cropper."""
        opened = blosc2.open(
            str(self.folder / f"{case}.b2nd"), mode="r", dparams={"nthreads": 1}, **self._open().mmap_kwargs
        )
        return torch.from_numpy(self._crop(opened, self._box(start), 0)).float()

    def image_and_labels(self, case: str, start: np.ndarray) -> tuple[Tensor, Tensor]:
        """A patch of both by `load_case`, which also reads the properties, as its data loader does."""
        data, seg, _, _ = self._open().load_case(case)
        box = self._box(start)
        labels = self._crop(seg, box, -1, cast_cropped_to=np.int16)
        return torch.from_numpy(self._crop(data, box, 0)).float(), torch.from_numpy(labels)

    def data_set(self) -> Any:
        """Its own data set of all cases that were written."""
        return self._dataset(str(self.folder))

    def bytes(self, case: str, pattern: str = "*") -> int:
        """What the files of a case take."""
        return sum(file.stat().st_size for file in self.folder.glob(f"{case}{pattern}"))

    def _open(self) -> Any:
        return self._dataset(str(self.folder), [])

    def _box(self, start: np.ndarray) -> list[list[int]]:
        return [[int(low), int(low) + n] for low, n in zip(start, self.patch, strict=True)]


def preparation(
    image: Path, labels: Path, spacing: Triple, patch: Shape, out: Path
) -> Callable[[int], object]:
    """Its default preprocessor on one case (crop, z-score, cubic resampling, positions, writing).

    Raises ImportError where it, or what it needs, is not installed.
    """
    preprocessor = quietly("nnunetv2.preprocessing.preprocessors.default_preprocessor", "DefaultPreprocessor")
    manager = quietly("nnunetv2.utilities.plans_handling.plans_handler", "PlansManager")
    configuration = {
        "architecture": {},
        "spacing": list(spacing),
        "patch_size": list(patch),
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        **RESAMPLING,
    }
    plans = manager(
        {
            "transpose_forward": [0, 1, 2],
            "foreground_intensity_properties_per_channel": {"0": {}},
            "label_manager": "LabelManager",
            "image_reader_writer": "SimpleITKIO",
            "configurations": {"3d_fullres": configuration},
        }
    )
    facts = {"labels": {"background": 0, "object": 1}, "channel_names": {"0": "image"}, "file_ending": ".nii"}
    chosen, made = plans.get_configuration("3d_fullres"), preprocessor(verbose=False)
    out.mkdir()
    return lambda k: made.run_case_save(str(out / str(k)), [str(image)], str(labels), plans, chosen, facts)


def quietly(module: str, name: str) -> Any:
    """What a module of nnU-Net has under a name, without what it prints: that its folders are not set."""
    with redirect_stdout(io.StringIO()):
        return getattr(import_module(module), name)
