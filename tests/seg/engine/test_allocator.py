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


# in a process of its own: a hole that an earlier test left in the heap would hold the block either way
FAULTS = """
import resource
import torch
from fewvox.seg.engine.allocator import kept_memory

def least_faults(rounds=6):
    # in a round something small may come to lie where the block was
    faults = []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(48 * 2**20 // 4)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(faults)

given_back = least_faults()
with kept_memory():
    kept = least_faults()
print(given_back, kept)
"""


@needs_glibc
def test_kept_memory_is_not_asked_for_again():
    """The pages that are cleared anew for a block that is freed again; huge ones are fewer."""
    told = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=120
    )
    given_back, kept = map(int, told.stdout.split())
    assert given_back > 10 * (kept + 1)


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
