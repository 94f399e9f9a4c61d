"""The prepared data set on disk: chunked, compressed, read box by box.

STORE/store.json                     what is in it; written last, so a folder without it is no store
STORE/plan.yaml                      the plan it was prepared with
STORE/cases/<id>/case.json           what the case is, and the checksum of each of its files
STORE/cases/<id>/image_0.b2nd        (C, Z, Y, X) float16 or float32, image_1 ... coarser by 2 per pooled axis
STORE/cases/<id>/label_0.b2nd        (Z, Y, X) class numbers, or (K, Z, Y, X) 0 and 1 where they overlap;
                                     -1 where nobody annotated
STORE/cases/<id>/foreground.npz      up to 10,000 positions (n, 3) of each class, named by its number
"""

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from zipfile import BadZipFile

import blosc2
import numpy as np
import torch
from pydantic import Field

from .atomic import write_text
from .errors import UserError, VolumeError
from .hashing import file_hash
from .plan import Plan
from .settings import plain, read_json, read_yaml, settings
from .sources import source_hash, source_state
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
class StoredFile:
    """Bytes and SHA-256 of a file of the store."""

    size: int
    sha256: str


@settings
class SourceFile:
    """A file (or folder) that a case was made of, as it was then; `modified_ns` is its time stamp."""

    kind: Literal["image", "label"]
    path: str
    size: int
    modified_ns: int
    sha256: str


@settings
class StoredCase:
    """One case of a store. `levels` holds the factor (z, y, x) of each level against the finest.

    Hashes are SHA-256: of the source files' bytes, and of the source's voxel values (`content_hash`),
    which is the same for a copy in another format. `recipe` is the hash of all that the case was made by.
    `lost_classes` are those so small that no voxel was left of them at the plan's spacing; `corrections`
    tells what of the source was mended.
    """

    id: str
    subject: str
    shape: Shape
    levels: tuple[tuple[int, int, int], ...]
    labelled: bool
    annotated_share: float = 1.0
    source_shape: Shape
    source_spacing: Triple | None
    source_unit: str | None
    image_hash: str
    label_hash: str | None
    content_hash: str
    recipe: str = ""
    foreground_voxels: dict[int, int] = field(default_factory=dict)
    lost_classes: tuple[int, ...] = ()
    corrections: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sources: tuple[SourceFile, ...] = ()
    files: dict[str, StoredFile] = field(default_factory=dict)


@settings
class StoreIndex:
    """What stands in store.json. `records` tells what was corrected or accepted in the data set."""

    version: Literal[2] = 2
    store_hash: str
    cases: Annotated[tuple[StoredCase, ...], Field(min_length=1)]
    records: tuple[str, ...] = ()


class Store:
    """A whole prepared data set, read lazily: opening it reads index and plan, and the sizes of its files."""

    def __init__(self, path: Path, plan: Plan, index: StoreIndex) -> None:
        self.path, self.plan, self.records = path, plan, index.records
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
        _refuse_older(path / STORE_FILE)
        index = read_json(path / STORE_FILE, StoreIndex)
        plan = read_yaml(path / PLAN_FILE, Plan)
        if plan.store_hash != index.store_hash:
            raise StoreError(
                path / PLAN_FILE,
                found="preprocessing or labels were edited after the store was prepared",
                rule="The volumes in a store are prepared by its own plan; only `training` may be edited",
                remedy=f"Make another store: `fewvox prepare DATA --plan {path / PLAN_FILE} --out NEW`",
            )
        store = cls(path, plan, index)
        store._check_sizes()
        return store

    def check(self, cases: Iterable[str], *, labels: bool = True) -> None:
        """Reads all files of these cases, and looks whether their sources are what they were.

        Without `labels` images alone.

        Raises StoreError where a file of the store is damaged, or a source was changed since. Sources that
        are no longer there are not missed.
        """
        for case in (self.cases[name] for name in cases):
            for name, stored in case.files.items():
                path = case_folder(self.path, case.id) / name
                if (labels or name.startswith("image")) and file_hash(path) != stored.sha256:
                    raise _damaged(path, "its content is not what was written")
            for source in case.sources:
                if labels or source.kind == "image":
                    _check_source(source, self.path)

    def _check_sizes(self) -> None:
        for case in self.cases.values():
            for name, stored in case.files.items():
                path = case_folder(self.path, case.id) / name
                size = path.stat().st_size if path.is_file() else None
                if size != stored.size:
                    raise _damaged(path, "missing" if size is None else f"{size} bytes, not {stored.size}")

    @cached_property
    def annotated(self) -> list[StoredCase]:
        """The cases with a label, in the order of their ids."""
        return [case for _, case in sorted(self.cases.items()) if case.labelled]

    def image(self, case: str, level: int = 0) -> Voxels:
        """The image (C, Z, Y, X) at a level, float32; slicing reads only the chunks it touches."""
        return as_float32(self._open(case, f"image_{level}"))

    def label(self, case: str) -> Voxels:
        """The class numbers (Z, Y, X), or (K, Z, Y, X) where classes overlap, of the finest level."""
        return self._open(case, "label_0")

    def foreground(self, case: str) -> dict[int, np.ndarray]:
        """Positions (n, 3) in voxels of the finest level, for each class that occurs."""
        path = case_folder(self.path, case) / "foreground.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                return {int(name): file[name] for name in file.files}
        except (OSError, ValueError, BadZipFile) as error:
            raise _damaged(path, f"not readable ({error})") from error

    def _open(self, case: str, name: str) -> Voxels:
        path = case_folder(self.path, case) / f"{name}.b2nd"
        try:
            array = open_array(path)
        except (OSError, RuntimeError, ValueError) as error:
            raise _damaged(path, f"not readable ({error})") from error
        if not isinstance(array, blosc2.NDArray):
            raise _damaged(path, f"a {type(array).__name__}, no array of numbers")
        return array


def case_folder(store: Path, case: str) -> Path:
    """Where the arrays of a case lie."""
    # one folder each: the case `a/b` lies not in that of `a`
    return store / "cases" / case.replace("%", "%25").replace("/", "%2F")


@dataclass(frozen=True)
class _AsFloat32:
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
        voxels = self.stored[key]
        # numpy's memory comes in larger pages than torch's, but it converts 25 times as slowly where the
        # processor has no AVX-512
        out = np.empty(voxels.shape, np.float32)
        torch.from_numpy(out).copy_(torch.from_numpy(voxels))
        return out


def open_array(path: Path) -> Voxels:
    """An array of a store as it is stored, to be sliced."""
    file = path.stat()
    written = (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns)
    return _opened(path, written, os.getpid())


def as_float32(array: Voxels) -> Voxels:
    """The same array, read as float32 where it is stored in float16."""
    return _AsFloat32(array) if array.dtype == np.float16 else array


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
        # a file tells of it, and should not depend on the machine
        dparams=blosc2.DParams(nthreads=1),
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
        # interpolation may round beyond the values it began with
        if not max(abs(lowest), abs(highest)) <= 1.01 * _FLOAT16_UP_TO:
            raise ValueError(f"values from {lowest} to {highest} are not stored in float16")
        # numpy takes six times as long
        voxels = torch.from_numpy(voxels).half().numpy()
    box = tuple(slice(low, low + n) for low, n in zip(start, voxels.shape[-3:], strict=True))
    array[(*(slice(None) for _ in array.shape[:-3]), *box)] = voxels


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes one array in chunks that a patch reads few of."""
    write_box(create_array(path, array.shape, array.dtype), (0, 0, 0), array)


def stored_file(path: Path) -> StoredFile:
    """What is noted of a file of the store."""
    return StoredFile(size=path.stat().st_size, sha256=file_hash(path))


def source_file(path: Path, kind: Literal["image", "label"]) -> SourceFile:
    """What is noted of a source."""
    size, modified = source_state(path)
    return SourceFile(
        kind=kind, path=str(path.absolute()), size=size, modified_ns=modified, sha256=source_hash(path)
    )


def write_index(store: Path, plan: Plan, cases: Sequence[StoredCase], records: Sequence[str] = ()) -> None:
    """Writes store.json, which makes the folder a store."""
    index = StoreIndex(store_hash=plan.store_hash, cases=tuple(cases), records=tuple(records))
    write_text(store / STORE_FILE, json.dumps(plain(index), indent=1))


def _check_source(source: SourceFile, store: Path) -> None:
    path = Path(source.path)
    try:
        # the hash is taken only where size or time changed: sources may be large
        if not path.exists() or source_state(path) == (source.size, source.modified_ns):
            return
    except VolumeError:  # a header whose voxels are gone
        return
    if source_hash(path) != source.sha256:
        raise StoreError(
            path,
            found=f"it was changed after the store {store} was made of it",
            rule="A network is trained on what the files hold",
            remedy="Prepare the store again, or bring the file back",
        )


def _damaged(path: Path, found: str) -> StoreError:
    return StoreError(
        path,
        found=found,
        rule="A store's files stay as `fewvox prepare` wrote them",
        remedy="Prepare the store again",
    )


def _refuse_older(path: Path) -> None:
    with suppress(OSError, ValueError, AttributeError):
        if json.loads(path.read_text(encoding="utf-8")).get("version") == 1:
            raise StoreError(
                path,
                found="a store of an earlier fewvox (version 1)",
                rule="This version reads stores of version 2, which hold checksums",
                remedy="Prepare the data again into a new folder",
            )
