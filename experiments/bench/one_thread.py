"""What is measured side by side gets the same: one thread, and random numbers from a seed."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import blosc2
import numba
import numpy as np
import SimpleITK as sitk
import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch, numba, SimpleITK (so TorchIO) and blosc2 in one thread each; afterwards as they were."""
    of_torch, of_numba = torch.get_num_threads(), numba.get_num_threads()
    of_sitk, of_blosc = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads(), blosc2.set_nthreads(1)
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(of_torch)
        numba.set_num_threads(of_numba)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(of_sitk)
        blosc2.set_nthreads(of_blosc)


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """The global random numbers of Python, numpy and torch, which peers draw from, begin at a seed.

    Afterwards they go on as if nothing had been drawn.
    """
    of_python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)
