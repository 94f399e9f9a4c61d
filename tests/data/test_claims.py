"""One process at a time works in a folder, and a dead one does not count."""

import os
import subprocess
import sys

import pytest
from fewvox.data.claims import claim_file, claimed
from fewvox.data.errors import UserError

HOLDING = """
import sys, time
from pathlib import Path
from fewvox.data.claims import claimed
with claimed(Path(sys.argv[1]), "works"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has claimed the folder."""
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_claim_stands_while_the_block_runs_and_goes_whatever_happens(tmp_path):
    folder = tmp_path / "new" / "out"

    def interrupted() -> None:
        with claimed(folder, "works"):
            assert claim_file(folder).read_text() == str(os.getpid())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(folder.parent.iterdir()) == []


def test_a_living_process_is_respected_and_a_killed_one_forgotten(other, tmp_path):
    with pytest.raises(UserError, match=f"process {other.pid} .*One process at a time works"):
        claimed(tmp_path / "out", "works").__enter__()
    other.kill()
    other.wait()
    assert claim_file(tmp_path / "out").is_file()
    with claimed(tmp_path / "out", "works"):
        assert claim_file(tmp_path / "out").read_text() == str(os.getpid())


@pytest.mark.parametrize("text", ["", "12", "no number"])
def test_what_no_living_process_holds_is_taken_over(tmp_path, text):
    claim_file(tmp_path).write_text(text)
    with claimed(tmp_path, "works"):
        assert claim_file(tmp_path).read_text() == str(os.getpid())
    assert not claim_file(tmp_path).exists()
