"""The prepared data set on disk: chunked, compressed, read box by box.

STORE/store.json                     what is in it; written last, so a folder without it is no store
STORE/plan.yaml                      the plan it was prepared with
STORE/cases/<id>/image_0.b2nd        (C, Z, Y, X) float16 or float32, image_1 ... coarser by 2 per pooled axis
STORE/cases/<id>/label_0.b2nd        (Z, Y, X) class numbers, label_1 ... beside each image
STORE/cases/<id>/foreground.npz      up to 10,000 positions (n, 3) of each class, named by its number
"""

import json
import os
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import blosc2
import numpy as np
import torch
from pydantic import Field

from .errors import UserError
from .plan import Plan
from .settings import plain, read_json, read_yaml, settings
from .volume import Shape, Triple, Voxels

STORE_FILE = "store.json"
PLAN_FILE = "plan.yaml"
# boxes are written where they begin and end at multiples of this (z, y, x)
CHUNK: Shape = (64, 64, 64)
# A patch decompresses the blocks it touches. Of all settings of which no volume tried takes more bytes than
# nnU-Net's, these are read fastest (docs/results/store.md).
_BLOCK: Shape = (16, 16, 32)
_CODEC = {"codec": blosc2.Codec.LZ4HC, "clevel": 5, "filters": [blosc2.Filter.NOFILTER], "filters_meta": [0]}
# up to here float16 rounds by at most 2**-7, under a hundredth of a z-scored volume's standard deviation
_FLOAT16_UP_TO = 32.0
# about 1 MiB and a file each; a process may hold a thousand files
_OPEN_ARRAYS = 256


class StoreError(UserError):
    """A folder that is no whole store, or does not fit what is asked of it."""


@settings
class StoredCase:
    """One case of a store. `levels` holds the factor (z, y, x) of each level against the finest.

    Hashes are SHA-256: of the source files' bytes, and of the source's voxel values (`content_hash`),
    which is the same for a copy in another format. `lost_classes` are those so small that no voxel
    was left of them at the plan's spacing.
    """

    id: str
    subject: str
    shape: Shape
    levels: tuple[tuple[int, int, int], ...]
    labelled: bool
    source_shape: Shape
    source_spacing: Triple | None
    source_unit: str | None
    image_hash: str
    label_hash: str | None
    content_hash: str
    foreground_voxels: dict[int, int] = field(default_factory=dict)
    lost_classes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@settings
class StoreIndex:
    """What stands in store.json."""

    version: Literal[1] = 1
    store_hash: str
    cases: Annotated[tuple[StoredCase, ...], Field(min_length=1)]


class Store:
    """A whole prepared data set, read lazily: opening it reads two small files."""

    def __init__(self, path: Path, plan: Plan, index: StoreIndex) -> None:
        self.path, self.plan = path, plan
        self.cases = {case.id: case for case in index.cases}

    @classmethod
    def open(cls, path: str | Path) -> "Store":
        """The store in a folder; raises StoreError when it is missing, unfinished or of another plan."""
        path = Path(path)
        if not (path / STORE_FILE).is_file():
            raise StoreError(
                path,
                found=f"no {STORE_FILE} in it" if path.is_dir() else "no such folder",
                rule="A store is a folder that `fewvox prepare` has finished",
                remedy=f"Run `fewvox prepare DATA --out {path}`",
            )
        index = read_json(path / STORE_FILE, StoreIndex)
        plan = read_yaml(path / PLAN_FILE, Plan)
        if plan.store_hash != index.store_hash:
            raise StoreError(
                path / PLAN_FILE,
                found="preprocessing or labels were edited after the store was prepared",
                rule="The volumes in a store are prepared by its own plan; only `training` may be edited",
                remedy=f"Make another store: `fewvox prepare DATA --plan {path / PLAN_FILE} --out NEW`",
            )
        return cls(path, plan, index)

    @cached_property
    def annotated(self) -> list[StoredCase]:
        """The cases with a label, in the order of their ids."""
        return [case for _, case in sorted(self.cases.items()) if case.labelled]

    def image(self, case: str, level: int = 0) -> Voxels:
        """The image (C, Z, Y, X) at a level, float32; slicing it reads only what the slice touches."""
        stored = self._open(case, f"image_{level}")
        return AsFloat32(stored) if stored.dtype == np.float16 else stored

    def label(self, case: str, level: int = 0) -> Voxels:
        """The class numbers (Z, Y, X) at a level."""
        return self._open(case, f"label_{level}")

    def foreground(self, case: str) -> dict[int, np.ndarray]:
        """Positions (n, 3) in voxels of the finest level, for each class that occurs."""
        with np.load(case_folder(self.path, case) / "foreground.npz") as file:
            return {int(name): file[name] for name in file.files}

    def _open(self, case: str, name: str) -> Voxels:
        path = case_folder(self.path, case) / f"{name}.b2nd"
        try:
            file = path.stat()
            written = (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns)
            return _opened(path, written, os.getpid())
        except (OSError, RuntimeError, ValueError) as error:
            raise StoreError(
                path,
                found=f"not readable ({error})",
                rule="A store's files stay as `fewvox prepare` wrote them",
                remedy="Prepare the store again",
            ) from error


def case_folder(store: Path, case: str) -> Path:
    """Where the arrays of a case lie."""
    return store / "cases" / case


@dataclass(frozen=True)
class AsFloat32:
    """An array that is stored in float16 and read as float32."""

    stored: Voxels

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        return self.stored.shape

    @property
    def dtype(self) -> np.dtype:
        """What slices are."""
        return np.dtype(np.float32)

    def __getitem__(self, key: Any) -> np.ndarray:
        # numpy takes 25 times as long on processors without AVX-512
        return torch.from_numpy(self.stored[key]).float().numpy()


@lru_cache(_OPEN_ARRAYS)
def _opened(path: Path, written: tuple[int, ...], process: int) -> Voxels:  # noqa: ARG001
    """The array of a file, kept open: opening costs about as much as reading a patch.

    Threads share it: blosc2 lets one at a time read. A forked process has its own, as it could inherit a
    lock that nobody opens. `written` tells a file from another one that took its place.
    """
    # decompressing in one thread: the network needs the cores; Windows cannot replace a mapped file
    mapped: Any = None if os.name == "nt" else "r"
    return cast("Voxels", blosc2.open(str(path), mode="r", dparams={"nthreads": 1}, mmap_mode=mapped))


def stored_dtype(lowest: float, highest: float) -> np.dtype:
    """float16 for normalised voxels from `lowest` to `highest` that it rounds by less than 0.01, or float32.

    float16 keeps 11 bits: numbers of up to 32 are rounded by at most 0.0078, those of up to 4 by 0.001.
    """
    fits = lowest >= -_FLOAT16_UP_TO and highest <= _FLOAT16_UP_TO
    return np.dtype(np.float16 if fits else np.float32)


def create_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> blosc2.NDArray:
    """A new array (..., Z, Y, X) of zeros, to be filled by `write_box`."""
    lead, extent = shape[:-3], shape[-3:]
    return blosc2.zeros(
        shape,
        dtype,
        urlpath=str(path),
        mode="w",
        chunks=(*(1 for _ in lead), *map(min, CHUNK, extent)),
        blocks=(*(1 for _ in lead), *map(min, _BLOCK, extent)),
        cparams=blosc2.CParams(**_CODEC, nthreads=1),
    )


def write_box(array: blosc2.NDArray, start: Shape, voxels: np.ndarray) -> None:
    """Writes voxels (..., Z, Y, X), rounded to the type of the array; the first of them comes to `start`.

    A box should begin and end at multiples of `CHUNK`, or at the border: a chunk that is written in parts
    is decompressed and compressed again for each of them.

    Raises ValueError for voxels that float16 does not hold (`stored_dtype`) in an array of float16.
    """
    voxels = np.ascontiguousarray(voxels)
    if array.dtype == np.float16:
        lowest, highest = voxels.min(), voxels.max()
        if stored_dtype(lowest, highest) != np.float16:
            raise ValueError(f"values from {lowest} to {highest} are not stored in float16")
        # numpy takes six times as long
        voxels = torch.from_numpy(voxels).half().numpy()
    box = tuple(slice(low, low + n) for low, n in zip(start, voxels.shape[-3:], strict=True))
    array[(*(slice(None) for _ in array.shape[:-3]), *box)] = voxels


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes one array in chunks that a patch reads few of."""
    write_box(create_array(path, array.shape, array.dtype), (0, 0, 0), array)


def write_index(store: Path, plan: Plan, cases: list[StoredCase]) -> None:
    """Writes store.json, which makes the folder a store."""
    index = StoreIndex(store_hash=plan.store_hash, cases=tuple(cases))
    (store / STORE_FILE).write_text(json.dumps(plain(index), indent=1), encoding="utf-8")
