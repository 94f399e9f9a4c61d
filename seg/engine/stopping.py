"""What SIGINT and SIGTERM do to a training: a step is finished and saved, a start is left at once."""

import signal
import threading
from collections.abc import Callable
from functools import wraps
from types import FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Interrupted(Exception):
    """The training was asked to stop (SIGINT or SIGTERM), and has saved what it had.

    `step` None: it came while no step was trained, and there was nothing to save.
    """

    def __init__(self, signal_number: int, step: int | None) -> None:
        self.signal_number, self.step = signal_number, step
        when = (
            "while no step was trained; checkpoints that are there stay"
            if step is None
            else f"after step {step}, checkpoint saved"
        )
        super().__init__(f"stopped by {signal.Signals(signal_number).name} {when}")


class Signals:
    """Answers SIGINT and SIGTERM within the block, where that may be done (in the main thread)."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, self._answer) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _answer(self, number: int, _: FrameType | None) -> None:
        raise Interrupted(number, None)


class StopSignal(Signals):
    """Notes a signal instead of dying in the middle of a step; asked by SIGINT twice, it does not wait.

    SIGTERM may come more than once for one request: who stops a job may tell all of its processes, and those
    that started others tell these again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __enter__(self) -> "StopSignal":
        super().__enter__()
        return self

    def _answer(self, number: int, _: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


def stoppable(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, which a signal ends at once with `Interrupted` where nothing else answers it."""

    @wraps(function)
    def stopped(*args: P.args, **kwargs: P.kwargs) -> R:
        with Signals():
            return function(*args, **kwargs)

    return stopped
