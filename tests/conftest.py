"""Tiny data sets for the tests of all floors."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from fewvox.data.fingerprint import CaseFacts
from fewvox.data.formats import tiff
from fewvox.data.intensities import Intensity
from fewvox.data.labels import IGNORED, LabelTable
from fewvox.data.plan import Plan, Preprocessing, Training, make_plan
from fewvox.data.prepare import prepare
from fewvox.data.scan import scan
from fewvox.data.settings import write_yaml
from fewvox.data.store import (
    PLAN_FILE,
    Store,
    StoredCase,
    case_folder,
    stored_dtype,
    write_array,
    write_index,
)
from hypothesis import settings

# how long an example takes says more about the machine than about the code
settings.register_profile("fewvox", deadline=None)
settings.load_profile("fewvox")

SHAPE = (12, 16, 14)
# seconds that processes are waited for
PATIENCE = 120.0


def blobs(index: int, shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """An image with a bright and a brighter ball, and their classes 1 and 2; (Z, Y, X) both."""
    rng = np.random.default_rng(index)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    label = np.zeros(shape, np.uint8)
    for value, share in ((1, 0.3), (2, 0.7)):
        centre = np.array(shape) * share + rng.uniform(-1, 1, 3)
        label[np.linalg.norm(places - centre, axis=-1) < min(shape) / 4] = value
    image = label * 100.0 + rng.normal(50, 5, shape)
    return image.astype(np.float32), label


def write_nifti(path: Path, array: np.ndarray, spacing=(2.0, 1.0, 1.0), unit="mm") -> Path:
    """Writes (Z, Y, X) as NIfTI, spacing (z, y, x) in `unit`; gives the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array.T, np.diag((*spacing[::-1], 1.0)))
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


def write_tiff(path: Path, array: np.ndarray, spacing=None, unit=None) -> Path:
    """Writes (Z, Y, X) or (C, Z, Y, X) as TIFF, spacing (z, y, x) in `unit` if given; gives the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tiff.write_new(path, array, spacing, unit)
    return path


@pytest.fixture(scope="session")
def save_nifti() -> Callable[..., Path]:
    """`write_nifti`, for tests that make volumes of their own."""
    return write_nifti


@pytest.fixture(scope="session")
def save_tiff() -> Callable[..., Path]:
    """`write_tiff`, for tests that make volumes of their own."""
    return write_tiff


@pytest.fixture(scope="session")
def nifti_folder() -> Callable[..., Path]:
    """Makes `images/` and `labels/` of NIfTI volumes c00, c01, ... with blobs; gives their folder.

    The first `labelled` of the `count` volumes have a label (all when None).
    """

    def make(folder: Path, count=3, *, labelled=None, shape=SHAPE, spacing=(2.0, 1.0, 1.0)) -> Path:
        for index in range(count):
            image, label = blobs(index, shape)
            write_nifti(folder / "images" / f"c{index:02}.nii.gz", image, spacing)
            if labelled is None or index < labelled:
                write_nifti(folder / "labels" / f"c{index:02}.nii.gz", label, spacing)
        return folder

    return make


def differences(found: Any, expected: Any, at: str = "") -> list[str]:
    """Where two training states differ: tensors by every bit, all else by type and value."""
    if type(found) is not type(expected):
        return [at]
    if isinstance(found, list | tuple):
        found, expected = dict(enumerate(found)), dict(enumerate(expected))
    if isinstance(found, dict):
        if found.keys() != expected.keys():
            return [at]
        return [place for key in found for place in differences(found[key], expected[key], f"{at}/{key}")]
    if isinstance(found, torch.Tensor):
        same = found.dtype == expected.dtype and torch.equal(found, expected)
    else:
        same = found == expected
    return [] if same else [at]


@pytest.fixture(scope="session")
def state_differences() -> Callable[..., list[str]]:
    """`differences`, for tests of what is saved and read again."""
    return differences


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory, nifti_folder) -> Store:
    """A store of ten volumes (12, 16, 14) with blobs of classes 1 and 2; do not write into it."""
    folder = tmp_path_factory.mktemp("tiny")
    scanned = scan(nifti_folder(folder / "source", 10))
    return prepare(scanned, make_plan(scanned.fingerprint, budget="cpu"), folder / "store")


def written_store(folder: Path, table: LabelTable, cases: dict[str, tuple[np.ndarray, np.ndarray]]) -> Store:
    """A store written by hand of images (Z, Y, X) and class numbers as the store holds them."""
    preprocessing = Preprocessing(
        unit="um",
        spacing=(1.0, 1.0, 1.0),
        orientation="stored",
        channels=("channel0",),
        normalisation=("zscore",),
    )
    training = Training(patch=(4, 8, 8), strides=((1, 2, 2),), width=4)
    plan = Plan(preprocessing=preprocessing, labels=table, training=training)
    stored = []
    for name, (image, numbers) in cases.items():
        case_folder(folder, name).mkdir(parents=True)
        dtype = stored_dtype(float(image.min()), float(image.max()))
        write_array(case_folder(folder, name) / "image_0.b2nd", image[None].astype(dtype))
        write_array(case_folder(folder, name) / "label_0.b2nd", numbers)
        positions = annotated_positions(table, numbers)
        np.savez(case_folder(folder, name) / "foreground.npz", **{str(c): p for c, p in positions.items()})
        stored.append(
            StoredCase(
                id=name,
                subject=name,
                shape=image.shape,
                levels=((1, 1, 1),),
                labelled=True,
                source_shape=image.shape,
                source_spacing=(1.0, 1.0, 1.0),
                source_unit="um",
                image_hash=name,
                label_hash=name,
                content_hash=name,
                foreground_voxels={c: len(p) for c, p in positions.items() if c > 0},
            )
        )
    write_yaml(folder / PLAN_FILE, plan, "")
    write_index(folder, plan, stored)
    return Store.open(folder)


def annotated_positions(table: LabelTable, numbers: np.ndarray) -> dict[int, np.ndarray]:
    """Positions of each class; those of the background, as class 0, where some voxels are `IGNORED`."""
    found = {c: np.argwhere(table.members(numbers, c)) for c in range(1, table.classes)}
    if (numbers == IGNORED).any():
        background = (numbers == 0).reshape(-1, *numbers.shape[-3:]).all(axis=0)
        found[0] = np.argwhere(background)
    return found


@pytest.fixture(scope="session")
def write_store() -> Callable[..., Store]:
    """`written_store`, for stores of labels that are partial or overlap."""
    return written_store


def facts_of(id: str, **fields) -> CaseFacts:
    """What a scan may have found of a TIFF of 10 x 20 x 20 voxels."""
    grey = Intensity(lowest=0, percentile_0_5=1, median=9, percentile_99_5=90, highest=99, mean=20, std=30)
    told = {
        "subject": id,
        "shape": (10, 20, 20),
        "spacing": (2.0, 1.0, 1.0),
        "unit": "um",
        "orientation": "stored",
        "channels": ("channel0",),
        "dtype": "uint8",
        "intensities": (grey,) * len(fields.get("channels", ("channel0",))),
        "label_voxels": None,
        "image_hash": id,
        "label_hash": None,
        "content_hash": id,
    }
    return CaseFacts(id=id, **{**told, **fields})


@pytest.fixture(scope="session")
def make_facts() -> Callable[..., CaseFacts]:
    """`facts_of`, for tests of what is concluded from a scan."""
    return facts_of


@pytest.fixture(scope="session")
def in_two_processes(tmp_path_factory) -> Callable[..., list[Any]]:
    """Runs a script in two processes that may train together; gives what each wrote, None where it did not.

    They are started as torchrun does it, without the process that it is itself. The script is told a file to
    write (`torch.save`) and the arguments.
    """
    import torch
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    def run(script: Path, *arguments: object, statuses: Sequence[int] = (0, 0)) -> list[Any]:
        folder = tmp_path_factory.mktemp("two")
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        written = [folder / f"{rank}.pt" for rank in range(2)]
        started = []
        for rank, file in enumerate(written):
            environment = {
                "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2,
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "OMP_NUM_THREADS": 1,
                "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": 0,
            }  # fmt: skip
            with file.with_suffix(".log").open("w") as log:
                process = subprocess.Popen(
                    [sys.executable, str(script), str(file), *map(str, arguments)],
                    env={**os.environ, **{name: str(value) for name, value in environment.items()}},
                    stdout=log,
                    stderr=log,
                )
            started.append(process)
        try:
            found = [process.wait(PATIENCE) for process in started]
        finally:
            for process in started:
                process.kill()
        told = "\n".join(file.with_suffix(".log").read_text() for file in written)
        assert found == list(statuses), told
        return [torch.load(file) if file.exists() else None for file in written]

    return run
