"""The prepared data set on disk: chunked, compressed, read box by box.

STORE/store.json                     what is in it; written last, so a folder without it is no store
STORE/plan.yaml                      the plan it was prepared with
STORE/cases/<id>/image_0.b2nd        (C, Z, Y, X) float32, image_1 ... coarser by 2 per pooled axis
STORE/cases/<id>/label_0.b2nd        (Z, Y, X) class numbers, label_1 ... beside each image
STORE/cases/<id>/foreground.npz      up to 10,000 positions (n, 3) of each class, named by its number
"""

import json
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import blosc2
import numpy as np
from pydantic import Field

from .errors import UserError
from .plan import Plan
from .settings import plain, read_json, read_yaml, settings
from .volume import Shape, Triple, Voxels

STORE_FILE = "store.json"
PLAN_FILE = "plan.yaml"
# a chunk of 64^3 float32 (1 MiB) is what a patch decompresses at least; blocks of 32^3 stay in L2
_CHUNK, _BLOCK = 64, 32
_CODEC = {"codec": blosc2.Codec.ZSTD, "clevel": 5}


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
        """The image (C, Z, Y, X) at a level; slicing it reads only the chunks that the slice touches."""
        return self._open(case, f"image_{level}")

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
            # one thread: the network needs the cores
            opened = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
            return cast("Voxels", opened)
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


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes one array in chunks that a patch reads few of."""
    chunks = [min(_CHUNK, n) for n in array.shape]
    blocks = [min(_BLOCK, n) for n in array.shape]
    if array.ndim == 4:
        chunks[0] = blocks[0] = 1
    blosc2.asarray(
        cast("Any", np.ascontiguousarray(array)),  # blosc2's stub does not know numpy's arrays
        urlpath=str(path),
        mode="w",
        chunks=tuple(chunks),
        blocks=tuple(blocks),
        cparams=blosc2.CParams(**_CODEC, nthreads=1),
    )


def write_index(store: Path, plan: Plan, cases: list[StoredCase]) -> None:
    """Writes store.json, which makes the folder a store."""
    index = StoreIndex(store_hash=plan.store_hash, cases=tuple(cases))
    (store / STORE_FILE).write_text(json.dumps(plain(index), indent=1), encoding="utf-8")
