"""What arrives is what was sent, and is its own."""

import errno
import multiprocessing
import os

import numpy as np
import pytest
import torch
from fewvox.data import handover
from fewvox.data.handover import Receiver, Sender


@pytest.fixture
def pair():
    one, other = multiprocessing.Pipe()
    return Sender(one), Receiver(other)


VALUES = {
    "tensor": torch.arange(24.0).view(2, 3, 4),
    "transposed": torch.arange(6).view(2, 3).T,
    "empty": torch.empty(0, 3),
    "one": torch.tensor(3.5),
    "array": np.arange(12, dtype=np.int8).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": np.arange(12)[::2],
    "text": "c00",
}


def refuse(_):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def same(one, other) -> bool:
    alike = type(one) is type(other) and getattr(one, "dtype", None) == getattr(other, "dtype", None)
    return alike and np.array_equal(one, other)


@pytest.mark.parametrize("memory", [True, False])
def test_values_arrive_whole_and_may_be_written(pair, monkeypatch, memory):
    if not memory:
        monkeypatch.delattr(os, "memfd_create")
    sender, receiver = pair
    sender.send(VALUES)
    taken = receiver.take()
    assert all(same(taken[name], value) for name, value in VALUES.items())
    taken["tensor"] += 1
    sender.send(VALUES)
    assert same(receiver.take()["tensor"], VALUES["tensor"])


def test_what_was_taken_stays_when_more_is_sent(pair):
    sender, receiver = pair
    taken = []
    for size in (10, 5000, 300, 100_000):
        sender.send(torch.full((size,), float(size)))
        taken.append(receiver.take())
    assert [(len(t), t.unique().tolist()) for t in taken] == [
        (n, [float(n)]) for n in (10, 5000, 300, 100_000)
    ]


def test_memory_is_made_once_for_values_of_one_size(pair):
    sender, receiver = pair
    memories = set()
    for _ in range(3):
        sender.send(torch.zeros(1000))
        receiver.take()
        memories.add(id(receiver.memory))
    assert len(memories) == 1


def test_large_values_do_not_go_through_the_pipe(pair):
    """They would never arrive: nobody reads while they are written."""
    sender, receiver = pair
    sender.send(torch.ones(2_000_000))
    assert receiver.take().sum() == 2_000_000


def test_a_message_that_breaks_off_is_a_sender_that_is_gone(pair):
    sender, receiver = pair
    # 100 bytes are told of, and 3 come
    os.write(sender.connection.fileno(), (100).to_bytes(4, "big") + b"abc")
    sender.connection.close()
    with pytest.raises(EOFError):
        receiver.take()


def test_a_lack_of_files_is_no_end(pair, monkeypatch):
    sender, receiver = pair
    sender.send(torch.ones(10_000))
    monkeypatch.setattr(handover, "recv_handle", refuse)
    with pytest.raises(OSError, match="Too many open files") as raised:
        receiver.take()
    assert raised.value.errno == errno.EMFILE


def test_nothing_comes_of_a_sender_that_is_gone(pair):
    sender, receiver = pair
    sender.connection.close()
    with pytest.raises(EOFError):
        receiver.take()
