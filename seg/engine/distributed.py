"""Processes that train together: each takes a share of every batch, and all make the same steps.

Their gradients are averaged after the backward pass, by hand. torch's DistributedDataParallel computes the
same, and does it meanwhile, but has to know beforehand which weights will have a gradient: here those of
heads, frozen blocks and teachers have none, or none yet. A process that fails ends, and its connections with
it: the others fail at their next exchange, and torchrun ends what is left.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...data.errors import UserError
from ...data.share import Share
from .launch import launched

P = ParamSpec("P")
T = TypeVar("T")
# the first process validates whole volumes while the others wait; one that is gone is noticed at once
TIMEOUT = timedelta(days=1)
_groups = count()


class ProcessLost(UserError):
    """Another process of the training is gone, or has not answered in time."""


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0. The first one alone writes and tells."""
    return dist.get_rank() if processes() > 1 else 0


def own_share() -> Share:
    """The share of this process of every batch."""
    return Share(rank(), processes())


@contextmanager
def process_group() -> Iterator[None]:
    """Within the block the processes that torchrun started can reach each other; one alone needs nothing."""
    here = launched()
    if here.processes == 1 or dist.is_initialized():
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        # what is no tensor of a GPU goes by way of the CPU
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(min(here.local_rank, torch.cuda.device_count() - 1))
    # a group that was there before has left its addresses
    store = _kept_by_torchrun(f"group {next(_groups)}")
    dist.init_process_group(backend, timeout=TIMEOUT, world_size=here.processes, rank=here.rank, store=store)
    try:
        yield
    except BaseException:
        # before the others notice that this one is gone. The group stays: to leave it in good order would
        # be to wait for them
        first_to_fail()
        raise
    dist.destroy_process_group()


@cache
def first_to_fail() -> bool:
    """Whether no process of the training failed before this one: what later ones tell follows from that."""
    if launched().processes == 1:
        return True
    try:
        return _kept_by_torchrun("failures").add("number", 1) == 1
    except RuntimeError:
        # torchrun itself is gone
        return True


def _kept_by_torchrun(name: str) -> Any:
    """Keys and values under a name, for all processes that torchrun started, until it starts them anew."""
    # documented, and missing in torch's list of what it exports
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, timeout=timedelta(minutes=1))
    return PrefixStore(f"fewvox/{os.environ['TORCHELASTIC_RESTART_COUNT']}/{name}", store)


@contextmanager
def exchange() -> Iterator[None]:
    """A block in which processes exchange something; raises ProcessLost where one of them is gone."""
    try:
        yield
    except torch.OutOfMemoryError:
        # of this process
        raise
    except RuntimeError as error:
        raise ProcessLost(
            f"process {dist.get_rank()} of {dist.get_world_size()}",
            found=f"another one has ended, or did not answer ({str(error).partition(chr(10))[0]})",
            rule="All processes of a training live as long as it does",
            remedy="See above why the other one ended (for lack of memory a system ends it without a word); "
            "--resume continues from the last checkpoint",
        ) from error


def everyone(value: T) -> list[T]:
    """What each process has, in their order."""
    if processes() == 1:
        return [value]
    found: list[Any] = [None] * processes()
    with exchange():
        dist.all_gather_object(found, value)
    return found


def by_the_first(make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `make` gives in the first process, which alone calls it: the others wait for it."""
    made: Any = make(*args, **kwargs) if rank() == 0 else None
    return everyone(made)[0]


def highest(number: int) -> int:
    """The highest of the numbers of all processes."""
    if processes() == 1:
        return number
    found = torch.tensor(number)
    with exchange():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes.

    The gradient that comes back is summed likewise: as gradients are averaged over processes, what all of
    them compute of the sum has the gradient that it would have in one.
    """
    return _Summed.apply(tensor) if processes() > 1 else tensor


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004 (autograd's signature)
        return _sum(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return _sum(gradients[0])


def _sum(tensor: Tensor) -> Tensor:
    # autograd may give one gradient to several: none is overwritten
    return _sum_in_place(tensor.clone(memory_format=torch.contiguous_format))


def _sum_in_place(tensor: Tensor) -> Tensor:
    with exchange():
        dist.all_reduce(tensor)
    return tensor


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gives every process the mean of the gradients of all; one that a process lacks counts as 0 there.

    What no process has a gradient of has none afterwards.
    """
    trained = [p for p in parameters if p.requires_grad]
    if processes() == 1 or not trained:
        return
    has = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    # all of it at once: an exchange of little takes as long as one of much
    together = _sum_in_place(torch.cat([*(g.flatten() for g in gradients), has])).div_(processes())
    means = together.split([*(g.numel() for g in gradients), len(has)])
    for p, gradient, mean, reached in zip(trained, gradients, means[:-1], means[-1].tolist(), strict=True):
        if reached:
            p.grad = gradient.copy_(mean.view(gradient.shape))
