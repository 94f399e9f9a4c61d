"""The prepared data set on disk: chunked, compressed, read box by box.

STORE/store.json                     what is in it; written last, so a folder without it is no store
STORE/plan.yaml                      the plan it was prepared with
STORE/cases/<id>/case.json           what the case is, and the checksum of each of its files
STORE/cases/<id>/image_0.b2nd        (C, Z, Y, X) float16 or float32, image_1 ... coarser by 2 per pooled axis
STORE/cases/<id>/label_0.b2nd        (Z, Y, X) class numbers, or (K, Z, Y, X) 0 and 1 where they overlap;
                                     -1 where nobody annotated; label_1 ... beside each image
STORE/cases/<id>/foreground.npz      up to 10,000 positions (n, 3) of each class, named by its number
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import blosc2
import numpy as np
from pydantic import Field

from .atomic import write_text
from .errors import UserError
from .hashing import file_hash, source_hash
from .plan import Plan
from .settings import plain, read_json, read_yaml, settings
from .volume import Shape, Triple, Voxels

STORE_FILE = "store.json"
PLAN_FILE = "plan.yaml"
# a chunk of 64^3 float32 (1 MiB) is what a patch decompresses at least; blocks of 32^3 stay in L2
CHUNK, _BLOCK = 64, 32
_CODEC = {"codec": blosc2.Codec.ZSTD, "clevel": 5}


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
    """A whole prepared data set, read lazily: opening it reads two small files."""

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
        return _AsFloat32(self._open(case, f"image_{level}"))

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
            return open_array(path)
        except (OSError, RuntimeError, ValueError) as error:
            raise _damaged(path, f"not readable ({error})") from error


class _AsFloat32:
    """An array of half precision, handed out as float32."""

    dtype = np.dtype(np.float32)

    def __init__(self, array: Voxels) -> None:
        self._array, self.shape = array, array.shape

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._array[key].astype(np.float32, copy=False)


def case_folder(store: Path, case: str) -> Path:
    """Where the arrays of a case lie."""
    return store / "cases" / case


def open_array(path: Path) -> Voxels:
    """An array of a store, to be sliced."""
    # one thread: the network needs the cores
    return cast("Voxels", blosc2.open(str(path), mode="r", dparams={"nthreads": 1}))


def create_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """A new array in chunks that a patch reads few of, to be filled box by box."""
    chunks, blocks = [min(CHUNK, n) for n in shape], [min(_BLOCK, n) for n in shape]
    if len(shape) == 4:
        chunks[0] = blocks[0] = 1
    return blosc2.empty(
        shape,
        dtype=dtype,
        urlpath=str(path),
        mode="w",
        chunks=tuple(chunks),
        blocks=tuple(blocks),
        cparams=blosc2.CParams(**_CODEC, nthreads=1),
    )


def stored_dtype(lowest: float, highest: float) -> np.dtype:
    """The type that keeps values of this range to a hundredth: float16 up to 32, float32 beyond."""
    # float16 has 11 bits: up to 32 its values lie 1/64 apart at most, and rounding errs by half of that
    return np.dtype(np.float16 if max(abs(lowest), abs(highest)) <= 32 else np.float32)


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes a whole array."""
    create_array(path, array.shape, array.dtype)[...] = array


def stored_file(path: Path) -> StoredFile:
    """What is noted of a file of the store."""
    return StoredFile(size=path.stat().st_size, sha256=file_hash(path))


def source_file(path: Path, kind: Literal["image", "label"]) -> SourceFile:
    """What is noted of a source."""
    size, modified = _state(path)
    return SourceFile(
        kind=kind, path=str(path.absolute()), size=size, modified_ns=modified, sha256=source_hash(path)
    )


def write_index(store: Path, plan: Plan, cases: Sequence[StoredCase], records: Sequence[str] = ()) -> None:
    """Writes store.json, which makes the folder a store."""
    index = StoreIndex(store_hash=plan.store_hash, cases=tuple(cases), records=tuple(records))
    write_text(store / STORE_FILE, json.dumps(plain(index), indent=1))


def _state(path: Path) -> tuple[int, int]:
    """Bytes and latest change of a file, or of all files below a folder."""
    found = [p.stat() for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file()]
    return sum(s.st_size for s in found), max((s.st_mtime_ns for s in found), default=0)


def _check_source(source: SourceFile, store: Path) -> None:
    path = Path(source.path)
    # the hash is taken only where size or time changed: sources may be large
    if not path.exists() or _state(path) == (source.size, source.modified_ns):
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
