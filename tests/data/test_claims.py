"""One process at a time works in a folder, and a dead one does not count."""

import os

import psutil
import pytest
from fewvox.data.claims import claim_file, claimed
from fewvox.data.errors import UserError


def test_a_claim_stands_while_the_block_runs_and_goes_whatever_happens(tmp_path):
    folder = tmp_path / "new" / "out"

    def interrupted() -> None:
        with claimed(folder, "works"):
            assert claim_file(folder).read_text().split()[0] == str(os.getpid())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(folder.parent.iterdir()) == []


def test_a_living_process_is_respected(tmp_path):
    parent = psutil.Process(os.getppid())
    text = f"{parent.pid} {parent.create_time()}"
    claim_file(tmp_path).write_text(text)
    with (
        pytest.raises(UserError, match=f"process {parent.pid} .*One process at a time works"),
        claimed(tmp_path, "works"),
    ):
        pass
    assert claim_file(tmp_path).read_text() == text


@pytest.mark.parametrize("text", ["", "12", "999999999 1.0", f"{os.getppid()} 1.0", "no number"])
def test_what_no_living_process_wrote_is_taken_over(tmp_path, text):
    claim_file(tmp_path).write_text(text)
    with claimed(tmp_path, "works"):
        assert claim_file(tmp_path).read_text() != text
