"""Hashes by which files, voxels and settings are known again."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes: whether a source has changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(array: np.ndarray) -> str:
    """SHA-256 of voxel values as float32 with their shape: the same volume in another format has the same."""
    digest = hashlib.sha256(repr(array.shape).encode())
    for channel in array:
        digest.update(np.ascontiguousarray(channel, dtype="<f4").data)
    return digest.hexdigest()


def settings_hash(values: Any) -> str:
    """SHA-256 of plain settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
