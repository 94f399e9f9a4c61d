"""The volumes that a store is measured with."""

from math import cos, pi, sin
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from ...data.plan import Plan, make_plan
from ...data.scan import Scan, scan
from ...data.volume import Shape


def volume(shape: Shape, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A float32 image (Z, Y, X) of tissue, objects and grain, and a label map of the objects."""
    rng = np.random.default_rng(seed)

    def smooth(size: float) -> np.ndarray:
        coarse = rng.normal(size=[int(n / size) + 2 for n in shape]).astype(np.float32)
        zoom = [n / m for n, m in zip(shape, coarse.shape, strict=True)]
        return np.asarray(ndimage.zoom(coarse, zoom, order=1, mode="nearest", grid_mode=True))

    labels = (smooth(8) > 0.6).astype(np.uint8)
    grain = rng.normal(0, 0.2, shape).astype(np.float32)
    return smooth(24) + 2 * labels + ndimage.gaussian_filter(grain, 0.6), labels


def with_margin(patch: Shape) -> Shape:
    """The box that is enough to turn a patch by 30 degrees and to shrink what is in it (nnU-Net's choice)."""
    z, y, x = (int(n * (cos(pi / 6) + sin(pi / 6)) / 0.85) for n in patch)
    return z, y, x


def spelled(shape: Shape) -> str:
    """A shape in words."""
    return " x ".join(map(str, shape))


def save_case(data: Path, name: str, image: np.ndarray, labels: np.ndarray) -> None:
    """Adds a volume with voxels of 1 mm to a data set."""
    for kind, array in (("images", image), ("labels", labels)):
        (data / kind).mkdir(parents=True, exist_ok=True)
        file = nib.Nifti1Image(array.T, np.eye(4))  # type: ignore[attr-defined]
        file.header.set_xyzt_units("mm")
        file.to_filename(data / kind / f"{name}.nii")


def scanned_and_planned(data: Path) -> tuple[Scan, Plan]:
    """A data set's scan and plan."""
    scanned = scan(data)
    return scanned, make_plan(scanned.fingerprint, budget="cpu")
