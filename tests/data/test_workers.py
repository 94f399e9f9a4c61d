"""Workers that fail, die, or lose their parent: told at once, and nobody is left behind."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from fewvox.data import workers
from fewvox.data.errors import UserError
from fewvox.data.making import BatchError
from fewvox.data.workers import Workers

PATIENCE = 60.0
MAKER = """
import os
import signal
import time

import torch
from fewvox.data.errors import UserError
from fewvox.data.making import OperationError
from fewvox.data.workers import Workers


def make(step):
    if step == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    if step == 1:
        raise MemoryError
    if step == 2:
        raise UserError("a.b2nd", found="damaged", rule="whole", remedy="again")
    if step == 3:
        raise OperationError("Crop", found="smaller", rule="as large", remedy="leave it out")
    if step in (4, 9):
        time.sleep(1000)
    return torch.full((100,), torch.get_num_threads())


def cases_of(step):
    return (f"case{step}",)


def main():
    with Workers(make, cases_of, 8, 10, 1) as pool:
        pool.receive(8)
        print(pool.workers[0].process.pid, flush=True)
        pool.receive(9)
"""


@pytest.fixture(scope="module")
def maker(tmp_path_factory):
    """A module that workers can import: what they make, and what goes wrong with it."""
    folder = tmp_path_factory.mktemp("maker")
    (folder / "fewvox_maker.py").write_text(MAKER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        import fewvox_maker  # type: ignore[import-not-found]

        yield fewvox_maker


def broken_once(take):
    """What takes, at first from a connection that is broken."""
    broken = [ConnectionResetError()]

    def taken():
        if broken:
            raise broken.pop()
        return take()

    return taken


def ends(pid: int) -> bool:
    """Whether a process ends soon."""
    deadline = time.monotonic() + PATIENCE
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_whatever_goes_wrong_with_workers_is_told_and_none_is_left(maker):
    with Workers(maker.make, maker.cases_of, 0, 6, 2) as pool:
        # its signals are for the parent to answer
        assert pool.receive(0).tolist() == [1] * 100
        with pytest.raises(BatchError, match=r"^case case1: .*\(MemoryError\).*fewer workers") as raised:
            pool.receive(1)
        assert "in make" in raised.value.__notes__[0]
        with pytest.raises(UserError, match=r"^a\.b2nd: damaged\. Whole\. Again\."):
            pool.receive(2)
        with pytest.raises(BatchError, match=r"^case case3, Crop: smaller\. As large\. Leave it out\."):
            pool.receive(3)
        pids = [worker.process.pid for worker in pool.workers]
        os.kill(pids[0], signal.SIGKILL)
        with pytest.raises(BatchError, match=r"^case case4: .*ended by SIGKILL.*memory.*fewer workers"):
            pool.receive(4)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_what_this_process_cannot_take_is_told_at_once_while_the_worker_lives(maker):
    lacks = [OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), MemoryError()]

    def block(size):
        raise lacks.pop(0)

    with Workers(maker.make, maker.cases_of, 6, 8, 1, block) as pool:
        with pytest.raises(BatchError, match=r"^case case6: .*Cannot allocate memory.*fewer workers"):
            pool.receive(6)
        with pytest.raises(BatchError, match=r"^case case7: .*\(MemoryError\).*fewer workers"):
            pool.receive(7)
        assert pool.workers[0].process.is_alive()


def test_a_worker_that_no_longer_listens_is_not_waited_for(maker, monkeypatch):
    monkeypatch.setattr(workers, "_PATIENCE", 1.0)
    with Workers(maker.make, maker.cases_of, 4, 5, 1) as pool:
        monkeypatch.setattr(workers, "wait", lambda _: [])
        monkeypatch.setattr(pool.workers[0], "take", broken_once(pool.workers[0].take))
        with pytest.raises(BatchError, match=r"^case case4: .*ended by itself"):
            pool.receive(4)


def test_a_worker_ends_with_its_parent_even_while_it_works(maker, tmp_path):
    script = tmp_path / "main.py"
    script.write_text('import fewvox_maker\nif __name__ == "__main__":\n    fewvox_maker.main()\n')
    path = os.pathsep.join([str(Path(maker.__file__).parent), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE
    )
    worker = int(parent.stdout.readline())
    assert psutil.pid_exists(worker)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert ends(worker)


def test_a_script_without_a_main_guard_is_told_of_it(maker, tmp_path, monkeypatch, capfd):
    """Each worker imports the script, which starts workers again."""
    script = tmp_path / "main.py"
    script.write_text("import multiprocessing\nmultiprocessing.get_context('spawn').Process().start()\n")
    # pytest-xdist's own has no file
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with (
        pytest.raises(BatchError, match=r"^case case0: .*exit code 1.*if __name__ == "),
        Workers(maker.make, maker.cases_of, 0, 1, 1) as pool,
    ):
        pool.receive(0)
    assert "bootstrapping phase" in capfd.readouterr().err
