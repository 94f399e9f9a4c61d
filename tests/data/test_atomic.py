"""Files and folders appear whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fewvox.data.atomic import new_file, new_folder, replaced_folder, write_text
from fewvox.data.errors import UserError


@pytest.fixture
def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


def fill(partial) -> None:
    (partial / "sub").mkdir()
    (partial / "sub" / "a.txt").write_text("whole")


def test_a_folder_appears_when_its_block_has_ended(tmp_path):
    out = tmp_path / "deep" / "out"
    with new_folder(out) as partial:
        fill(partial)
        assert not out.exists()
    assert (out / "sub" / "a.txt").read_text() == "whole"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_whose_block_fails_leaves_nothing(tmp_path, error):
    def fail() -> None:
        with new_folder(tmp_path / "out") as partial:
            fill(partial)
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_never_written_over(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"), new_folder(tmp_path / "out"):
        pytest.fail("the block was entered")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_process_left_is_taken_away(tmp_path, dead_pid):
    left = tmp_path / f".partial-{dead_pid}-abc.out"
    of_the_living = tmp_path / f".partial-{os.getpid()}-abc.out"
    of_another = tmp_path / f".partial-{dead_pid}-abc.other"
    for folder in (left, of_the_living, of_another):
        folder.mkdir()
        fill(folder)
    with new_folder(tmp_path / "out"):
        assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"out", of_the_living.name, of_another.name}


def test_a_file_is_replaced_when_its_block_has_ended(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_text("old")
    with new_file(path) as partial:
        assert partial.name.startswith(".")
        assert partial.name.endswith(".a.nii.gz")
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_whose_block_fails_stays_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with new_file(path) as partial:
            partial.write_text("half")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "é 1")
    write_text(path, "é 2")
    assert path.read_text(encoding="utf-8") == "é 2"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_what_had_its_name_only_when_its_block_has_ended(tmp_path):
    for _ in range(2):
        with replaced_folder(tmp_path / "out") as partial:
            fill(partial)
        (tmp_path / "out" / "older").touch()
    with pytest.raises(ValueError, match="half"), replaced_folder(tmp_path / "out") as partial:
        raise ValueError("half")
    assert (tmp_path / "out" / "older").exists()
    with replaced_folder(tmp_path / "out") as partial:
        fill(partial)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sub"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if (path / "sub").exists():
            raise OSError("no space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no space"), replaced_folder(tmp_path / "out") as partial:
        fill(partial)
    assert list((tmp_path / "out").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
