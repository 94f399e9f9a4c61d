"""What the rows of the reliability table are checked with: the commands, and runs of a few steps."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fewvox.experiments import api, cli

TINY = ("steps=1", "patch=[8,16,8]", "width=4", "batch=2", "device=cpu")


@pytest.fixture
def fewvox(monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Runs a command as typed, in this process; gives its exit status and what it printed, in one line."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["fewvox", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), " ".join((printed.out + printed.err).split())

    return run


@pytest.fixture(scope="session")
def train() -> Callable[..., Path]:
    """Prepares a data set in `folder`/data and fine-tunes on all of its labels; gives the run."""

    def make(folder: Path, *, steps: int = 1, **reading) -> Path:
        api.prepare(folder / "data", folder / "store", budget="cpu", **reading)
        made = api.finetune(folder / "store", folder / "run", set=(*TINY, f"steps={steps}"))
        return made.path

    return make


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, nifti_folder, train) -> Path:
    """A fine-tuned run on three volumes (12, 16, 14); do not write into it."""
    folder = tmp_path_factory.mktemp("tiny_run")
    nifti_folder(folder / "data", 3)
    return train(folder)
