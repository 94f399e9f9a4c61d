"""Biom3d's own supply as a peer, where it is installed: its class for patches, from whole volumes on disk.

Measured with biom3d 0.1.2.
"""

import io
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

import numpy as np
from torch import Tensor
from torchio.transforms import Compose

from ...data.store import Store
from ...data.volume import Shape
from .one_thread import drawn_from

# without what it pins: an older torch, and the packages of its window
SUPPLYING = "pip install --no-deps biom3d; pip install pandas scikit-image pyyaml yacs requests tqdm"
_LISTED = 10_000


class Biom3dPatches:
    """Patches of `SemSeg3DPatchFast` in its training mode: each reads the whole volume and its labels.

    A fifth of them are turned, in a larger box; then comes `chain`, or Biom3d's own. Raises ImportError where
    Biom3d, or what its class needs, is not installed.
    """

    def __init__(self, store: Store, patch: Shape, folder: Path, chain: Compose | None = None) -> None:
        module = import_module("biom3d.datasets.semseg_patch_fast")
        larger = import_module("biom3d.auto_config").get_aug_patch(patch)
        _write(folder, store)
        # it prints what it found
        with redirect_stdout(io.StringIO()), drawn_from(0):
            self._patches = module.SemSeg3DPatchFast(
                img_path=str(folder / "images"),
                msk_path=str(folder / "masks"),
                fg_path=str(folder / "foreground"),
                batch_size=2,
                patch_size=np.array(patch),
                aug_patch_size=np.array(larger),
                nbof_steps=1,
                fg_rate=0.5,
                use_softmax=False,
            )
        if chain is not None:
            self._patches.transform = chain

    def patches(self, count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
        """So many images and labels."""
        with drawn_from(seed):
            return [self._patches[k] for k in range(count)]


def _write(folder: Path, store: Store) -> None:
    """What its preprocessing leaves of cases: whole arrays, and some voxels of each class (by its writer)."""
    images, masks, foreground = (folder / kind for kind in ("images", "masks", "foreground"))
    found = {}
    for case in sorted(store.cases):
        labels = store.label(case)[:][None]
        _save(images, case, store.image(case)[:].astype(np.float32))
        _save(masks, case, labels)
        voxels = np.argwhere(labels[0])
        found[case] = {1: voxels[:: max(1, len(voxels) // _LISTED)]}
    paths = {"img_outpath": images, "msk_path": masks, "msk_outpath": masks, "fg_outpath": foreground}
    writer = import_module("biom3d.utils").DataHandlerFactory.get(
        str(images), preprocess=True, **{name: str(path) for name, path in paths.items()}
    )
    for case, listed in found.items():
        writer.save(str(masks / f"{case}.npy"), listed, "fg")


def _save(folder: Path, case: str, array: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{case}.npy", array)
