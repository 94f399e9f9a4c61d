"""Memory that is kept between steps: what the process asks the kernel for, and what it gives back."""

import subprocess
import sys

import psutil
import pytest
import torch
from fewvox.seg.engine import allocator
from fewvox.seg.engine.allocator import Trial, can_keep, kept_memory, tried

BLOCK = 48 * 2**20
needs_glibc = pytest.mark.skipif(not can_keep(), reason="memory is kept by glibc alone")


# in a process of its own: a hole that an earlier test left in the heap would hold the blocks either way
FAULTS = """
import resource
import torch
from fewvox.seg.engine.allocator import kept_memory

def step():
    # several blocks at once, as a step has: one alone may find its place taken by something small
    return [torch.ones((48 - i) * 2**20 // 4) for i in range(4)]

def faults(steps=8):
    for _ in range(2):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
with kept_memory():
    kept = faults()
print(given_back, kept)
"""


@needs_glibc
def test_kept_memory_is_not_asked_for_again():
    """Pages that are cleared anew in steps that ask for the same blocks; huge ones are fewer."""
    told = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=120
    )
    given_back, kept = map(int, told.stdout.split())
    assert kept < given_back / 3


@needs_glibc
def test_afterwards_it_is_given_back():
    resident = psutil.Process().memory_info().rss
    with kept_memory():
        torch.ones(BLOCK)
        assert psutil.Process().memory_info().rss > resident + BLOCK
    assert psutil.Process().memory_info().rss < resident + BLOCK


@needs_glibc
def test_it_is_given_back_after_a_failure_too():
    resident = psutil.Process().memory_info().rss

    def fail():
        with kept_memory():
            torch.ones(BLOCK)
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fail()
    assert psutil.Process().memory_info().rss < resident + BLOCK


@needs_glibc
def test_a_block_within_another_leaves_the_memory_kept():
    resident = psutil.Process().memory_info().rss
    with kept_memory():
        with kept_memory():
            torch.ones(BLOCK)
        assert psutil.Process().memory_info().rss > resident + BLOCK
    assert psutil.Process().memory_info().rss < resident + BLOCK


def test_a_trial_times_a_step_either_way(monkeypatch):
    seconds = iter([3.0, 2.0])
    trial = tried(lambda: next(seconds))
    assert trial == Trial(given_back=3.0, kept=2.0)
    assert trial.helps
    assert "0.67 times as long" in trial.line()
    assert ": kept" in trial.line()


def test_a_gain_within_noise_is_no_reason_to_keep():
    trial = Trial(given_back=1.0, kept=0.97)
    assert not trial.helps
    assert "not kept" in trial.line()


def test_another_c_library_is_left_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(allocator, "can_keep", lambda: False)
    monkeypatch.setattr(allocator.ctypes, "CDLL", asked.append)
    with kept_memory():
        assert asked == []
    assert asked == []
