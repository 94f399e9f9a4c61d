"""What one of two processes that train together finds; `test_two_processes.py` says what it should be."""

import copy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
from fewvox.data.splits import Split
from fewvox.data.store import Store
from fewvox.seg.engine.distributed import average_gradients, process_group, processes, rank, summed
from fewvox.seg.engine.optimisers import OptimiserConfig
from fewvox.seg.finetune import FinetuneConfig, finetune
from fewvox.ssl.method import Method, Views
from fewvox.ssl.method_checks import SITUATIONS, VOLUMES, fresh, tiny_batch
from fewvox.ssl.methods.registry import METHODS, Registered
from fewvox.ssl.pretrain import PretrainConfig, pretrain
from torch import Tensor, nn

SITUATION = replace(SITUATIONS["anisotropic, one channel"], batch=VOLUMES)
# of the step along the gradient, in which the change of the loss is measured
STRIDE = 1e-3
CASES = tuple(f"c{n:02}" for n in range(7))
SPLIT = Split(train=CASES[:5], validation=CASES[5:], test=())
SHARED = {
    "steps": 4, "validate_every": 2, "checkpoint_every": 2, "patch": (8, 16, 8), "width": 4, "device": "cpu",
    "workers": 0, "accumulate": 2, "average": 0.9, "keep_memory": False,
    # AdamW makes whole steps of rounding errors where the gradient is 0
    "optimizer": OptimiserConfig(name="sgd", lr=0.01, momentum=0.9),
}  # fmt: skip
# methods of five kinds (views told apart, a teacher, voxels painted, parts in order, segments), made small
SMALL = {
    "triplet": {"hidden": 16, "dimension": 8},
    "dino": {"hidden": 16, "prototypes": 16, "dimension": 8},
    "mae": {},
    "jigsaw": {"orders": 4},
    "supervoxel": {"supervoxels": 8},
}
PRETRAIN = {
    name: PretrainConfig(method=name, options=options, monitor_volumes=3, **SHARED)
    for name, options in SMALL.items()
}
# at a higher rate rounding errors grow a hundredfold with every step
PRETRAIN["dino"] = replace(PRETRAIN["dino"], optimizer=OptimiserConfig(name="sgd", lr=1e-3, momentum=0.9))
FINETUNE = FinetuneConfig(early_stop=1, smoothing=0.0, **SHARED)


def part(batch: Views, index: int, of: int) -> Views:
    """One of so many equal parts of a batch, which draws numbers of its own."""
    size = len(batch.cases) // of
    items = slice(index * size, (index + 1) * size)
    return Views(
        views=tuple(view[items] for view in batch.views),
        maps=tuple(of_view[items] for of_view in batch.maps),
        cases=batch.cases[items],
        seed=batch.seed + 1000 * index,
    )


def built(registered: Registered) -> Method:
    """The method for the batches of this process."""
    return fresh(registered, replace(SITUATION, batch=VOLUMES // processes())).train()


def mean_loss(method: Method, batch: Views, step: int) -> Tensor:
    """The mean of the losses of all processes; what the step changes stays in a copy."""
    with torch.no_grad():
        return summed(copy.deepcopy(method)(batch, step).loss) / processes()


def learned(registered: Registered) -> dict[str, object]:
    """Loss and gradients of the first step, what else the method holds after it, and how the loss changes."""
    batch = part(tiny_batch(registered, SITUATION, 0), rank(), processes())
    method = built(registered)
    before = copy.deepcopy(method)
    loss = method(batch, 0).loss
    loss.backward()
    average_gradients(method.parameters())
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    method.after_step(0)
    losses = [mean_loss(_moved(before, gradients, by), batch, 0) for by in (-STRIDE, STRIDE)]
    return {
        "loss": summed(loss.detach()) / processes(),
        "gradients": gradients,
        "held": dict(method.named_buffers()),
        "slope": float(losses[1] - losses[0]) / (2 * STRIDE),
    }


def _moved(method: Method, gradients: dict[str, Tensor], by: float) -> Method:
    """The method with its weights moved so far along the unit vector of the gradient."""
    moved = copy.deepcopy(method)
    norm = nn.utils.get_total_norm(gradients.values())
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            if name in gradients:
                parameter.add_(by * gradients[name] / norm)
    return moved


class Observer:
    """Keeps what it is told, and the run's folder as a kill after the third step would leave it."""

    def __init__(self, run: Path, told: list[str]) -> None:
        self.run, self.told = run, told

    def step(self, done, steps, loss):
        self.told.append(f"step {done}")
        if done == 3 and not killed(self.run).exists():
            shutil.copytree(self.run, killed(self.run))

    def validated(self, done, scores):
        self.told.append(f"validated {done}")


def killed(run: Path) -> Path:
    """Where what a kill would leave of a run lies."""
    return run.with_name(f"{run.name}-killed")


def trainings(store: Path, out: Path, batch: int, *, continued: bool) -> dict[str, object]:
    """Scores of pretrainings and a fine-tuning, by name, and all that they told.

    Beside every run, `killed` lies, which is `continued` from there or left as it is.
    """
    opened, told = Store.open(store), {}
    found: dict[str, object] = {"told": told}
    for name in (*SMALL, "finetuned"):
        for resume in (False, True) if continued else (False,):
            run, lines = out / name, []
            shared = {"observer": Observer(run, lines), "announce": lines.append, "resume": resume}
            if resume:
                run = killed(run)
            if name in SMALL:
                scores = pretrain(opened, CASES, run, replace(PRETRAIN[name], batch=batch), **shared).scores
            else:
                scores = finetune(opened, SPLIT, run, replace(FINETUNE, batch=batch), **shared).scores
            found[run.name], told[run.name] = scores, lines
    return found


if __name__ == "__main__":
    store, out = (Path(text) for text in sys.argv[2:])
    with process_group():
        steps = {name: learned(METHODS[name]) for name in METHODS}
    # each opens a group of its own
    torch.save({"learned": steps, **trainings(store, out, 2, continued=True)}, sys.argv[1])
