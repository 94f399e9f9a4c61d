"""Compiling works wherever fewvox is installed."""

import os
import subprocess
import sys
from pathlib import Path

import fewvox.data.compiled as compiling
import pytest


@pytest.mark.parametrize("writable", [True, False])
def test_machine_code_has_a_folder_even_where_nothing_known_is_writable(monkeypatch, writable):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(compiling, "_writable", lambda folder: writable)
    folder = compiling._folder()
    assert (folder is None) == writable
    if folder is not None:
        assert os.environ["NUMBA_CACHE_DIR"] == folder.name
        assert Path(folder.name).is_dir()
        folder.cleanup()


def test_a_folder_that_the_user_chose_is_left(monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/chosen")
    monkeypatch.setattr(compiling, "_writable", lambda folder: False)
    assert compiling._folder() is None
    assert os.environ["NUMBA_CACHE_DIR"] == "/chosen"


def test_numba_is_not_imported_before_something_is_compiled():
    """It takes half a second, which no command should that cuts no patch."""
    code = "import fewvox.data.loader, sys; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
