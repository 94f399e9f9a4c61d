"""Values handed from one process to another: a pipe tells of them, their voxels lie in memory that both map.

A pipe alone brings about 1 GB a second. The memory has no name (Linux's memfd): nothing is left of it
however the processes end, and it is no file of /dev/shm, whose size (64 MB in a container) does not limit it.
Where a system has none, all goes through the pipe.

Pickle is used as `multiprocessing` itself does, between processes of one program; nothing of it is stored.
"""

import mmap
import os
import pickle
from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import accumulate
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT = 64


class Sender:
    """One value at a time in a piece of memory, which becomes larger where a value needs it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.memory = mmap.mmap(-1, 1)

    def send(self, value: Any) -> None:
        """Hands the value over; the one before must have been taken.

        Tensors on the CPU and arrays go through the memory. Raises OSError when there is none for it.
        """
        found: list[pickle.PickleBuffer] = []
        told = _pickled(value, found.append if hasattr(os, "memfd_create") else None)
        buffers = [buffer.raw() for buffer in found]
        ends = _ends([len(buffer) for buffer in buffers])
        file = self._grow(ends[-1]) if ends[-1] > len(self.memory) else None
        for buffer, start in zip(buffers, ends, strict=False):
            self.memory[start : start + len(buffer)] = buffer
        self.connection.send((told, [len(buffer) for buffer in buffers], file is not None))
        if file is not None:
            send_handle(self.connection, file, None)
            os.close(file)

    def _grow(self, size: int) -> int:
        """The file of new memory of at least that many bytes."""
        file = os.memfd_create("fewvox")
        # taken now: a lack of memory is an error here, and no SIGBUS when it is written
        os.posix_fallocate(file, 0, size)
        self.memory = mmap.mmap(file, size)
        return file


def pageable(size: int) -> np.ndarray:
    """An array of bytes (size,), like any other."""
    return np.empty(size, np.uint8)


class Receiver:
    """The other side of a `Sender`. `block` makes the array of bytes (n,) that what is taken lies in."""

    def __init__(self, connection: Connection, block: Callable[[int], np.ndarray] = pageable) -> None:
        self.connection, self.block = connection, block
        self.memory = mmap.mmap(-1, 1)

    def take(self) -> Any:
        """The next value, copied out of the memory.

        Raises:
            EOFError, ConnectionError: the sender is gone.
            OSError, MemoryError, RuntimeError: there is no memory for it here, or no file.
        """
        told, sizes, grown = self._told()
        if grown:
            file = recv_handle(self.connection)
            self.memory = mmap.mmap(file, 0)
            os.close(file)
        ends = _ends(sizes)
        block = self.block(ends[-1])
        block[:] = np.frombuffer(self.memory, np.uint8, ends[-1])
        buffers = [block[start : start + size] for start, size in zip(ends, sizes, strict=False)]
        return pickle.loads(told, buffers=buffers)

    def _told(self) -> tuple[bytes, list[int], bool]:
        try:
            return self.connection.recv()
        except OSError as error:
            # multiprocessing's, of a message that breaks off, is one without a number
            if error.errno is None:
                raise EOFError(*error.args) from error
            raise


def _ends(sizes: Sequence[int]) -> list[int]:
    """Where buffers of these sizes begin when they lie one after another, and the end of the last."""
    return list(accumulate((-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes), initial=0))


def _pickled(value: Any, aside: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    """The value as bytes, without its arrays where these can be put `aside`."""
    file = BytesIO()
    _Pickler(file, protocol=5, buffer_callback=aside).dump(value)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    """Pickles tensors as the arrays they are; torch would copy them."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return torch.from_numpy, (obj.detach().contiguous().numpy(),)
        return NotImplemented
