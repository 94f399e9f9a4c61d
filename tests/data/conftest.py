"""Folders of files whose names alone matter."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def lay(tmp_path) -> Callable[..., Path]:
    """Makes empty files below a folder and gives it (names decide, no voxel is read)."""

    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make
