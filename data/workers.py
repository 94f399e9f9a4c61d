"""Processes that make batches: each step belongs to one of them, so that their number changes no batch."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from .errors import UserError
from .handover import Receiver, Sender, pageable
from .making import BatchError, making, named

# a forked process would inherit locks that threads of its parent hold (numba's, blosc2's, torch's)
START_METHOD = "spawn"
# one batch is made while one waits to be taken
_AHEAD = 2
_spawn = multiprocessing.get_context(START_METHOD)
# what killed processes are waited for
_PATIENCE = 10.0

T = TypeVar("T")


class Workers(Generic[T]):
    """Processes that make `make(step)` for `first` to `last` - 1, to be received in this order.

    Worker w of n makes steps first + w, first + w + n, ...; each has one thread. A worker ends with its
    parent, however that ends; it is deaf to SIGINT and SIGTERM, which are for the parent to answer.

    Args:
        make, cases_of: what is made of a step, and of which cases; both are pickled.
        first, last: steps.
        count: how many workers there are at most.
        block: makes the arrays of bytes that what is received lies in.
    """

    def __init__(
        self,
        make: Callable[[int], T],
        cases_of: Callable[[int], tuple[str, ...]],
        first: int,
        last: int,
        count: int,
        block: Callable[[int], np.ndarray] = pageable,
    ) -> None:
        self.make, self.cases_of, self.first, self.last = make, cases_of, first, last
        self.workers: list[_Worker] = []
        # before multiprocessing's own, which would wait for the workers when the program ends
        self.end = util.Finalize(self, _end, (self.workers,), exitpriority=100)
        with _deaf():
            for _ in range(min(count, last - first)):
                self.workers.append(_Worker(block))

    def __enter__(self) -> "Workers[T]":
        with suppress(BrokenPipeError):  # told by `receive`
            for n, worker in enumerate(self.workers):
                worker.connection.send((self.make, self.cases_of))
                for step in range(self.first + n, self.last, len(self.workers))[:_AHEAD]:
                    worker.ask(step)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def receive(self, step: int) -> T:
        """What was made for the next step.

        Raises:
            UserError: what the worker raised.
            BatchError: a worker is dead, or what it made could not be taken.
        """
        worker = self.workers[(step - self.first) % len(self.workers)]
        ready = wait([worker.connection, *(each.process.sentinel for each in self.workers)])
        for each in self.workers:
            if each.process.sentinel in ready:
                raise self._dead(each)
        with making(self.cases_of(step)):
            try:
                made = worker.take()
                following = step + _AHEAD * len(self.workers)
                if following < self.last:
                    worker.ask(following)
            except (EOFError, ConnectionError) as error:
                raise self._dead(worker) from error
        return made

    def _dead(self, worker: "_Worker") -> UserError:
        """Why a worker is dead; an error that it told of before goes first."""
        worker.process.join(_PATIENCE)
        code = worker.process.exitcode
        # of one that lives more may never come
        worker.end()
        with suppress(EOFError, OSError, MemoryError, RuntimeError):
            # what it had made already, to know what it was making
            while worker.steps:
                worker.take()
        # of one that waited, the batch it made last
        where = named(self.cases_of(worker.steps[0] if worker.steps else worker.last))
        if code is not None and code < 0:
            return _killed(where, signal.Signals(-code))
        return _ended(where, code, worker.answered)


class _Worker:
    """A process, and what was asked of it."""

    def __init__(self, block: Callable[[int], np.ndarray]) -> None:
        self.connection, other = _spawn.Pipe()
        self.process = _spawn.Process(target=_work, args=(other,), daemon=True, name="fewvox-worker")
        self.process.start()
        # the worker's end is its own: reading from a dead one ends
        other.close()
        self.receivers = deque(Receiver(self.connection, block) for _ in range(_AHEAD))
        self.steps: deque[int] = deque()
        self.last = 0
        self.answered = False

    def ask(self, step: int) -> None:
        self.connection.send(step)
        self.steps.append(step)

    def take(self) -> Any:
        made, error = self.receivers[0].take()
        self.answered = True
        self.receivers.rotate(-1)
        self.last = self.steps.popleft()
        if error is not None:
            raise error
        return made

    def end(self) -> None:
        """Kills it, and waits for its end."""
        self.process.kill()
        self.process.join(_PATIENCE)


def _work(connection: Connection) -> None:
    """What a worker does: it makes what it is asked for until nobody asks."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    senders = deque(Sender(connection) for _ in range(_AHEAD))
    with suppress(EOFError, OSError):  # the parent has gone
        make, cases_of = connection.recv()
        while True:
            _answer(senders[0], make, cases_of, connection.recv())
            senders.rotate(-1)


def _answer(sender: Sender, make: Callable[[int], Any], cases_of: Callable[[int], Any], step: int) -> None:
    """Sends what was made, or why it was not."""
    try:
        with making(cases_of(step)):
            sender.send((make(step), None))
    except UserError as error:
        error.add_note(traceback.format_exc())
        sender.send((None, error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _end(workers: "list[_Worker]") -> None:
    """Kills at once: workers only read, and what they made is no longer wanted."""
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join(_PATIENCE)


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started in the block never get SIGINT and SIGTERM (where there are such masks)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # its start would lift the mask
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _killed(where: str, number: signal.Signals) -> BatchError:
    if number == signal.SIGKILL:
        cause = "most likely by the system, for lack of memory"
        remedy = "Set fewer workers, a smaller batch or a smaller patch"
    else:
        cause = "most likely by a fault in a library, or by a damaged file"
        remedy = "Look at this case, or leave it out"
    return BatchError(
        where,
        found=f"the worker that made its batch was ended by {number.name}, {cause}",
        rule="Every worker lives as long as the training, and takes memory of its own",
        remedy=f"{remedy}; the last checkpoint is kept, and --resume continues from it",
    )


def _ended(where: str, code: int | None, answered: bool) -> BatchError:
    if answered:
        rule, remedy = "Every worker lives as long as the training", "Set workers=0 to see where it happens"
    else:
        rule = 'A script that trains with workers does so under `if __name__ == "__main__":`: each imports it'
        remedy = "Write this line above what the script does, or set workers=0"
    return BatchError(
        where,
        found=f"its worker ended by itself (exit code {code}; it may have said why above)",
        rule=rule,
        remedy=remedy,
    )
