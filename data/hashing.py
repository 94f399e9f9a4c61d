"""Hashes by which files, voxels and settings are known again."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from .slabs import Channel, parts
from .volume import Voxels


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes: whether a source has changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ContentHash:
    """SHA-256 of voxel values as float32 with their shape, added channel by channel and slice by slice.

    The same volume in another format has the same.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._digest = hashlib.sha256(repr(tuple(shape)).encode())

    def add(self, voxels: np.ndarray) -> None:
        """Takes in the next voxels."""
        self._digest.update(np.ascontiguousarray(voxels, dtype="<f4").data)

    def result(self) -> str:
        """The hash of all that was added."""
        return self._digest.hexdigest()


def content_hash(array: Voxels) -> str:
    """The `ContentHash` of an array (C, Z, Y, X), in memory or on disk."""
    digest = ContentHash(array.shape)
    for c in range(array.shape[0]):
        for _, part in parts(Channel(whole=array, number=c)):
            digest.add(part)
    return digest.result()


def settings_hash(values: Any) -> str:
    """SHA-256 of plain settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
