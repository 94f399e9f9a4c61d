"""How fast patches and views are supplied: read, turned and changed."""

import tempfile
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from torchio.transforms import Compose

from ...data.augment.chain import AugmentConfig, preset
from ...data.loader import PatchBatch, PatchConfig, PatchSampler
from ...data.settings import settings
from ...data.store import Store
from ...data.supply import supplied
from ...data.volume import Shape
from .biom3d_patches import SUPPLYING as BIOM3D
from .biom3d_patches import Biom3dPatches
from .figure import Figure, measured
from .monai_patches import MonaiPatches
from .nnunet_patches import SUPPLYING as NNUNET
from .nnunet_patches import NnUNetPatches
from .one_thread import one_thread
from .scaling import worker_figure
from .store import StoredVolumes, StoreSizes
from .supply_parts import part_figures
from .torchio_patches import TorchIOPatches, scaling_chain
from .turned_box import spatial_figures
from .two_views import two_view_figures
from .volumes import spelled

_BATCH = 2


class Peer(Protocol):
    """What makes patches of the same volumes."""

    def patches(self, count: int, seed: int) -> object:
        """So many patches, all drawn from a seed."""


@settings
class SupplySizes:
    """Volumes and their shape, the patch's shape, and how many patches one run makes (an even number).

    What is done to a patch is drawn, so that few of them say little.
    """

    volumes: int = 2
    shape: Shape = (256, 320, 320)
    patch: Shape = (96, 96, 96)
    patches: int = 24


def supply_figures(runs: int, sizes: SupplySizes | None = None) -> list[Figure]:
    """Patches beside nnU-Net's, TorchIO's, Biom3d's and MONAI's, the spatial transform alone, two views.

    All in one thread; then what a second worker brings, and where our own time goes.
    """
    sizes = sizes or SupplySizes()
    stored = StoreSizes(volumes=sizes.volumes, shape=sizes.shape, patch=sizes.patch)
    with tempfile.TemporaryDirectory() as folder, one_thread():
        files = StoredVolumes.written(Path(folder), stored)
        return [
            *_full(files, sizes.patches, runs),
            *spatial_figures(sizes.patch, runs),
            *two_view_figures(files.store, sizes.patch, sizes.patches, runs),
            worker_figure(_from_workers(files), sizes.patches, min(runs, 3)),
            *part_figures(files.store, sizes.patch, training_augmentation(), runs),
        ]


def training_augmentation() -> AugmentConfig:
    """What nnU-Net's default training does, flips included."""
    return preset("nnunet", spatial={"flip_probability": 0.5})


def our_patches(store: Store, patch: Shape, count: int) -> Callable[[int], list[PatchBatch]]:
    """What makes so many of our patches, in batches as nnU-Net's; others for each run."""
    sampler = _sampler(store, patch)
    steps = count // _BATCH
    return lambda k: [sampler.batch(step) for step in range(k * steps, (k + 1) * steps)]


def _sampler(store: Store, patch: Shape) -> PatchSampler:
    config = PatchConfig(augment=training_augmentation())
    return PatchSampler(store, sorted(store.cases), patch, _BATCH, config, seed=0)


def _from_workers(files: StoredVolumes) -> Callable[[int, int], Generator[PatchBatch]]:
    sampler = _sampler(files.store, files.patch)
    return lambda workers, batches: supplied(sampler, 0, batches, workers=workers)


def _full(files: StoredVolumes, count: int, runs: int) -> Iterator[Figure]:
    store, patch = files.store, files.patch
    ours = our_patches(store, patch, count)
    for name, key, make, install in (
        ("nnU-Net", "full_vs_nnunet", lambda: _nnunet(files), NNUNET),
        ("TorchIO, volumes in memory", "full_vs_torchio", lambda: TorchIOPatches(store, patch), ""),
        ("TorchIO, empty corners", None, lambda: TorchIOPatches(store, patch, margin=False), ""),
        ("Biom3d", "full_vs_biom3d", lambda: _biom3d(files, scaling_chain()), BIOM3D),
        ("Biom3d, its own augmentation", None, lambda: _biom3d(files), BIOM3D),
        ("MONAI, volumes in memory", None, lambda: MonaiPatches(store, patch), ""),
    ):
        theirs, missing = _installed(name, make, install)
        yield measured(
            "supply",
            f"image and labels of {spelled(patch)}, read and augmented as by nnU-Net",
            ours,
            name,
            None if theirs is None else partial(theirs.patches, count),
            runs,
            items=count,
            their_items=count,
            key=key,
            missing=missing,
        )


def _nnunet(files: StoredVolumes) -> NnUNetPatches:
    if files.nnunet is None:
        raise ImportError("not even its reader is installed")
    return NnUNetPatches(files.nnunet)


def _biom3d(files: StoredVolumes, chain: Compose | None = None) -> Biom3dPatches:
    return Biom3dPatches(files.store, files.patch, files.folder / "biom3d", chain)


def _installed(name: str, make: Callable[[], Peer], install: str) -> tuple[Peer | None, str | None]:
    """A peer; or None, and how to have it."""
    try:
        return make(), None
    except ImportError as error:
        return None, f"{name} is not measured ({error}): {install}"
