"""All that a training needs to go on as if it had never been stopped, bit for bit."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...data.errors import UserError
from .. import checkpoint
from ..checkpoint import CheckpointInfo, check_finite
from ..model_card import write_card
from .average import Average
from .distributed import everyone, processes, rank
from .precision import Precision
from .progress import Progress


@dataclass(kw_only=True)
class TrainingState:
    """A training's parts.

    The position in the data needs no part of its own: a batch is a function of its step. Processes that train
    together have the same parts, but for the states of their random numbers.
    """

    task: nn.Module
    network: nn.Module
    optimiser: torch.optim.Optimizer
    precision: Precision
    average: Average | None
    progress: Progress

    def restore(self, run: Path) -> dict[str, float]:
        """Takes up the run's last checkpoint, if there is one; gives what it scored."""
        if "last" not in checkpoint.read_index(run):
            return {}
        last, state = load_task(self.task, self.network, run)
        if self.average is not None:
            self.average.restore(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.precision.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["counters"])
        _set_random_state(state["random"][rank()])
        return dict(last.info.scores)

    def check_alike(self) -> None:
        """Raises UserError where the processes of a training begin with other weights, or at another step."""
        if processes() == 1:
            return
        digest = hashlib.sha256()
        for name, tensor in self.task.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        begin = everyone((self.progress.step, digest.hexdigest()[:12]))
        if len(set(begin)) > 1:
            raise UserError(
                "the processes of this training",
                found="they begin differently: " + ", ".join(f"step {n} with {w}" for n, w in begin),
                rule="All begin at the same step with the same weights (here by their SHA-256)",
                remedy="Give all machines the same files: those of the run, and what --pretrained names",
            )

    @contextmanager
    def presented(self) -> Iterator[dict[str, Any]]:
        """Within the block the network has the weights that are validated and saved.

        Gives what else of the weights belongs into the training state.
        """
        if self.average is None:
            yield {}
            return
        with self.average.applied() as raw:
            yield {"average": raw}

    def save(
        self,
        run: Path,
        info: CheckpointInfo,
        score: float | None,
        keep_every: int | None,
        more: dict[str, Any],
    ) -> None:
        """Writes a checkpoint and its model card; `more` is what `presented` gives, and "random".

        Raises CheckpointError, and writes nothing, where a weight is not finite.
        """
        own = prefix(self.task, self.network)
        if "average" in more:
            check_finite(more["average"]["weights"], f"the weights after step {info.steps}")
        state = {
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "counters": dict(vars(self.progress)),
            "task": {name: t for name, t in self.task.state_dict().items() if not name.startswith(own)},
            **more,
        }
        checkpoint.save(run, self.network, info, state, score, keep_every)
        write_card(run, info)


def load_task(task: nn.Module, network: nn.Module, run: Path) -> tuple[checkpoint.Checkpoint, dict[str, Any]]:
    """Gives a task the weights of a run's last checkpoint, those of its network and what it has beside.

    Gives the checkpoint and the whole training state.
    """
    last, state = checkpoint.load_training(run)
    weights = {prefix(task, network) + name: tensor for name, tensor in last.tensors.items()}
    task.load_state_dict({**weights, **state["task"]}, strict=True)
    return last, state


def prefix(task: nn.Module, network: nn.Module) -> str:
    """What the names of the network's tensors begin with among the task's."""
    name = next(name for name, module in task.named_modules() if module is network)
    return f"{name}." if name else ""


@contextmanager
def random_numbers(seed: int) -> Iterator[None]:
    """Within the block torch's own generators (dropout) begin at `seed`; after it they are as before.

    Those of processes after the first begin elsewhere: each drops other features.
    """
    with torch.random.fork_rng(devices=_gpu()):
        elsewhere = np.random.SeedSequence([seed, 6, rank()]).generate_state(1, np.uint64)[0] >> 1
        torch.manual_seed(int(elsewhere) if rank() else seed)
        yield


def random_states() -> list[dict[str, Any]]:
    """Where the random numbers of every process are."""
    return everyone({"cpu": torch.get_rng_state(), "cuda": [torch.cuda.get_rng_state(n) for n in _gpu()]})


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    # where there was another number of GPUs there is nothing to be exact about
    if len(state["cuda"]) == len(_gpu()):
        for n, of_gpu in zip(_gpu(), state["cuda"], strict=True):
            torch.cuda.set_rng_state(of_gpu, n)


def _gpu() -> list[int]:
    """The GPU that this process uses, where there is one; to ask others would take memory on them."""
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []
