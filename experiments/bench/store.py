"""How fast the store is written and read, and what it takes on disk.

Float volumes as resampling makes them: structures of several sizes, and grain in every voxel. All reading is
of files that the machine has in memory, by one thread of one process.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import zarr

from ...data.boxes import read_box
from ...data.prepare import prepare
from ...data.settings import settings
from ...data.store import Store, case_folder
from ...data.volume import Shape
from .figure import Figure, Work, measured
from .nnunet import PREPARING, READING, NnUNetCases, preparation
from .one_thread import one_thread
from .volumes import save_case, scanned_and_planned, spelled, volume

# patches of one run, and runs for each that other work is measured: another program's burst of work
# lasts longer than a few patches take
PATCHES, MORE_RUNS = 8, 4
Read = Callable[[str, np.ndarray], object]


@settings
class StoreSizes:
    """Shapes in voxels: of volumes, patches, and the volume that is resampled from spacing 1 to `spacing`."""

    volumes: int = 2
    shape: Shape = (256, 320, 320)
    patch: Shape = (96, 96, 96)
    prepared: Shape = (128, 160, 160)
    spacing: float = 0.8


def store_figures(runs: int, sizes: StoreSizes | None = None) -> list[Figure]:
    """Reading beside nnU-Net, whole and mapped .npy and zarr; bytes and preparing beside nnU-Net."""
    sizes = sizes or StoreSizes()
    with tempfile.TemporaryDirectory() as folder, one_thread():
        files = StoredVolumes.written(Path(folder), sizes)
        return [*_reading(files, runs), *_bytes(files), _preparing(Path(folder), sizes, runs)]


@dataclass(frozen=True)
class StoredVolumes:
    """The same volumes as our store, as nnU-Net's (None where it is not installed), as .npy and as zarr."""

    folder: Path
    store: Store
    patch: Shape
    nnunet: NnUNetCases | None

    @classmethod
    def written(cls, folder: Path, sizes: StoreSizes) -> "StoredVolumes":
        """Writes them; the peers' hold our normalised voxels before any rounding."""
        try:
            nnunet = NnUNetCases(folder / "nnunet", sizes.patch)
        except ImportError:
            nnunet = None
        for k in range(sizes.volumes):
            image, labels = volume(sizes.shape, seed=k)
            save_case(folder / "data", f"v{k}", image, labels)
            image = (image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)
            image = image.astype(np.float32)
            np.save(folder / f"v{k}.npy", image[None])
            zarr.create_array(str(folder / f"v{k}.zarr"), data=image[None], chunks=(1, 64, 64, 64))
            if nnunet is not None:
                positions = np.argwhere(labels[None])[:: max(1, labels.sum() // 10_000)]
                nnunet.write(f"v{k}", image, labels, {"class_locations": {1: positions}})
        scanned, plan = scanned_and_planned(folder / "data")
        return cls(folder, prepare(scanned, plan, folder / "store"), sizes.patch, nnunet)

    @cached_property
    def cases(self) -> list[str]:
        """Their ids."""
        return sorted(self.store.cases)

    def ours(self, case: str, start: np.ndarray) -> np.ndarray:
        """A patch of the image."""
        return read_box(self.store.image(case), start, self.patch)

    def ours_with_labels(self, case: str, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A patch of image and labels."""
        return self.ours(case, start), read_box(self.store.label(case), start, self.patch)

    def whole(self, case: str, start: np.ndarray) -> np.ndarray:
        """A patch of a whole .npy that is read for it, as Biom3d does."""
        return read_box(np.load(self.folder / f"{case}.npy"), start, self.patch)

    def mapped(self, case: str, start: np.ndarray) -> np.ndarray:
        """A patch of a mapped .npy."""
        return np.array(read_box(np.load(self.folder / f"{case}.npy", mmap_mode="r"), start, self.patch))

    def zarred(self, case: str, start: np.ndarray) -> np.ndarray:
        """A patch of a zarr array in chunks of 64^3, with zarr's own choice of compression."""
        array = zarr.open_array(str(self.folder / f"{case}.zarr"), mode="r")
        return read_box(array, start, self.patch)  # type: ignore[arg-type]

    def view(self, level: int, factor: int, case: str, start: np.ndarray) -> np.ndarray:
        """The voxels at a level, coarser by `factor`, of a box of twice the patch."""
        z, y, x = (2 * n // factor for n in self.patch)
        return read_box(self.store.image(case, level), start // factor, (z, y, x))

    def anywhere(self, read: Read, size: Shape, k: int) -> None:
        """Reads `PATCHES` boxes of `size`, placed by `k` alone."""
        rng = np.random.default_rng(k)
        for i in range(PATCHES):
            case = self.cases[(k + i) % len(self.cases)]
            room = np.subtract(self.store.cases[case].shape, size)
            read(case, rng.integers(0, room, endpoint=True))


def _reading(files: StoredVolumes, runs: int) -> Iterator[Figure]:
    nnunet, patch = files.nnunet, files.patch

    def figure(work: str, ours: Read, peer: str, theirs: Read | None, size: Shape, **more: str) -> Figure:
        turn = [None if read is None else partial(files.anywhere, read, size) for read in (ours, theirs)]
        assert turn[0] is not None
        return measured(
            "store",
            work,
            turn[0],
            peer,
            turn[1],
            MORE_RUNS * runs,
            items=PATCHES,
            their_items=PATCHES,
            **more,
        )

    patches = f"a patch of {spelled(patch)}"
    missing = {} if nnunet else {"missing": f"nnU-Net is not installed: {READING}"}
    yield figure(
        patches,
        files.ours,
        "nnU-Net",
        nnunet.image if nnunet else None,
        patch,
        key="read_vs_nnunet",
        **missing,
    )
    yield figure(
        f"{patches} with its labels",
        files.ours_with_labels,
        "nnU-Net",
        nnunet.image_and_labels if nnunet else None,
        patch,
        **missing,
    )
    yield figure(patches, files.ours, "whole .npy read for it", files.whole, patch, key="read_vs_whole")
    yield figure(patches, files.ours, ".npy, mapped", files.mapped, patch)
    yield figure(patches, files.ours, "zarr, chunks of 64^3", files.zarred, patch)
    level = files.store.cases[files.cases[0]].levels.index((4, 4, 4))
    z, y, x = (2 * n for n in patch)
    yield figure(
        "a view to be shrunk 4 x, from a coarse level",
        partial(files.view, level, 4),
        "cropped at full resolution",
        partial(files.view, 0, 1),
        (z, y, x),
        key="coarse_vs_full",
    )


def _bytes(files: StoredVolumes) -> Iterator[Figure]:
    nnunet, missing = files.nnunet, None
    if nnunet is None:
        missing = f"nnU-Net is not installed: {READING}"
    for work, pattern, their_pattern, key in (
        ("all of the cases, coarser levels too", "*", "*", "bytes_vs_nnunet"),
        ("the images alone, finest level", "image_0*", ".b2nd", None),
    ):
        folders = [case_folder(files.store.path, case) for case in files.cases]
        yield Figure(
            what="store",
            work=work,
            ours=sum(f.stat().st_size for folder in folders for f in folder.glob(pattern)),
            peer="nnU-Net",
            theirs=None if nnunet is None else sum(nnunet.bytes(c, their_pattern) for c in files.cases),
            unit="bytes",
            key=key,
            missing=missing,
        )


def _preparing(folder: Path, sizes: StoreSizes, runs: int) -> Figure:
    """One case from file to store: read, z-scored, resampled, its foreground found, written."""
    data = folder / "raw"
    save_case(data, "raw", *volume(sizes.prepared, seed=0))
    scanned, plan = scanned_and_planned(data)
    target = (sizes.spacing, sizes.spacing, sizes.spacing)
    plan = replace(plan, preprocessing=replace(plan.preprocessing, spacing=target))
    missing, theirs = None, None
    try:
        image, labels = (data / kind / "raw.nii" for kind in ("images", "labels"))
        theirs = preparation(image, labels, target, sizes.patch, folder / "prepared_by_nnunet")
    except ImportError as error:
        missing = f"nnU-Net's preprocessor is not measured ({error}): {PREPARING}"
    ours: Work = lambda k: prepare(scanned, plan, folder / f"prepared_{k}")  # noqa: E731
    work = f"preparing a volume of {spelled(sizes.prepared)}, enlarged by {1 / sizes.spacing:.3g}"
    return measured(
        "store", work, ours, "nnU-Net", theirs, min(runs, 3), key="prepare_vs_nnunet", missing=missing
    )
