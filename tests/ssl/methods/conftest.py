"""Two threads that stand for two processes, for the methods that compare what all processes hold."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fewvox.ssl import gather
from fewvox.ssl.method import Method, Views
from torch import Tensor


class _Rendezvous:
    """Gives each of two threads the rows of both, in order, with the graph of both."""

    def __init__(self) -> None:
        self.barrier, self.local = threading.Barrier(2, timeout=20), threading.local()
        self.rows: list[Tensor] = [torch.empty(0)] * 2

    def rank(self) -> int:
        return self.local.rank

    def gathered(self, rows: Tensor) -> Tensor:
        self.rows[self.rank()] = rows
        self.barrier.wait()
        both = torch.cat(self.rows)
        # before the next rows are laid down
        self.barrier.wait()
        return both


@pytest.fixture
def in_two_processes(monkeypatch) -> Callable[..., tuple[list[float], list[Tensor]]]:
    """The losses of two halves of a batch, each in a process of its own, and the gradients that DDP makes.

    Those are means over the processes of what flows back from both losses. `module` is the method's, whose
    `gathered` is replaced.
    """

    def run(module, method: Method, halves: tuple[Views, Views], step: int = 0):
        meeting = _Rendezvous()
        monkeypatch.setattr(gather, "processes", lambda: 2)
        monkeypatch.setattr(gather, "rank", meeting.rank)
        for place in (gather, module):
            monkeypatch.setattr(place, "gathered", meeting.gathered)

        def process(rank: int) -> Tensor:
            meeting.local.rank = rank
            return method(halves[rank], step).loss

        with ThreadPoolExecutor(2) as pool:
            losses = list(pool.map(process, range(2)))
        monkeypatch.undo()
        parameters = [p for p in method.parameters() if p.requires_grad]
        mean = torch.stack(losses).mean()
        gradients = torch.autograd.grad(mean, parameters, allow_unused=True)
        return [float(loss.detach()) for loss in losses], [g for g in gradients if g is not None]

    return run
