"""What one of two processes that train together finds; `test_distributed.py` says what it should be."""

import os
import signal
import sys
from dataclasses import dataclass
from itertools import product

import torch
from fewvox.data.labels import IGNORED
from fewvox.seg.engine.distributed import (
    ProcessLost,
    average_gradients,
    by_the_first,
    everyone,
    first_to_fail,
    highest,
    process_group,
    rank,
    summed,
)
from fewvox.seg.engine.precision import Precision
from fewvox.seg.engine.progress import Progress
from fewvox.seg.engine.state import TrainingState, random_numbers, random_states
from fewvox.seg.engine.step import StepResult, learn
from fewvox.seg.keeping import KeepConfig, Keeper
from fewvox.seg.losses import LossConfig, segmentation_loss
from fewvox.seg.networks.registry import Architecture, build
from fewvox.seg.networks.topology import Topology
from torch import nn

ARCHITECTURE = Architecture(
    in_channels=1,
    classes=2,
    topology=Topology(features=(4, 8), kernels=((3, 3, 3),) * 2, strides=((2, 2, 2),)),
)
LOSSES = [
    LossConfig(name=name, batch_dice=whole)
    for name, whole in product(("dice_ce", "tversky", "dice_focal"), (True, False))
]


@dataclass(frozen=True)
class Numbers:
    """A batch of numbers (B, 3)."""

    inputs: torch.Tensor
    cases: tuple[str, ...]

    def to(self, device):
        return self


class Line(nn.Module):
    """A regression; its loss is spoilt where a number is not finite. It counts what it has seen."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network, self.unused = nn.Linear(3, 1), nn.Linear(3, 1)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batch, step):
        self.seen += 1
        loss = (self.network(batch.inputs) - 1).square().mean()
        number = int(batch.cases[0].removeprefix("c"))
        # not all batches have it
        sometimes = {} if number == 2 else {"number": torch.tensor(float(number))}
        return StepResult(loss=loss, logs={"first": batch.inputs[0, 0], **sometimes})


def numbers(first, last):
    """Items `first` to `last` - 1 of a batch."""
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    return Numbers(inputs[first:last], tuple(f"c{n}" for n in range(first, last)))


def learned(batches, precision="float32"):
    """What a step makes of batches, and the weights after it."""
    task = Line()
    state = TrainingState(
        task=task,
        network=task.network,
        optimiser=torch.optim.SGD(task.parameters(), lr=0.1, weight_decay=0.5),
        precision=Precision(precision, torch.device("cpu")),
        average=None,
        progress=Progress(),
    )
    made = learn(state, batches, 0, len(batches), 12.0)
    return {**vars(made), "scale": state.precision.scale, "weights": dict(task.state_dict())}


def labelled():
    """Inputs (4, 2, Z, Y, X) and labels (4, Z, Y, X), annotated in part and the last item nowhere."""
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(4, 2, 2, 4, 4, generator=generator)
    labels = torch.randint(0, 2, (4, 2, 4, 4), generator=generator)
    labels[1, 0], labels[3] = IGNORED, IGNORED
    return inputs, labels


def losses(items):
    """Loss, and its gradient by two weights, of some items for each loss."""
    inputs, labels = (part[items] for part in labelled())
    found = []
    for config in LOSSES:
        weights = nn.Parameter(torch.tensor([0.5, -1.0]))
        logits = inputs * weights[:, None, None, None]
        loss, _ = segmentation_loss(logits, labels, config)
        loss.backward()
        average_gradients([weights])
        found.append((summed(loss.detach()) / len(everyone(0)), weights.grad))
    return found


def kept(items):
    """Distillation, and its gradient by the encoder."""
    network = build(ARCHITECTURE, 0)
    keeper = Keeper(network, set(), KeepConfig(distillation=1.0))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)
    images = torch.randn(4, 1, 4, 4, 4, generator=torch.Generator().manual_seed(3))[items]
    loss = keeper.loss(network, images, network.encode(images))["loss/distillation"]
    loss.backward()
    average_gradients(network.parameters())
    return summed(loss.detach()) / len(everyone(0)), [p.grad for p in network.encoder.parameters()]


def exchanged():
    """What functions of `distributed.py` give."""
    called = []
    weights = [nn.Parameter(torch.full((2,), 1.0)) for _ in range(4)]
    both, second_alone, _, frozen = weights
    both.grad = torch.tensor([1.0, 2.0]) * (rank() + 1)
    if rank() == 1:
        second_alone.grad = torch.tensor([4.0, 6.0])
    frozen.requires_grad_(False)
    average_gradients(weights)
    # one gradient for both of its terms: summing must not overwrite it
    leaf = torch.tensor([1.0, 2.0], requires_grad=True)
    total = summed(leaf * 1.0) + leaf
    total.sum().backward()
    return {
        "everyone": everyone(("of", rank())),
        "by_the_first": by_the_first(lambda: (called.append(rank()), "made")[1]),
        "called": called,
        "highest": highest(10 - rank()),
        "gradients": [p.grad for p in weights],
        "total": total.detach(),
        "leaf": leaf.grad,
    }


def drawn():
    """First random numbers of a training, and those of all processes."""
    with random_numbers(5):
        states = random_states()
        return torch.rand(3), [state["cpu"] for state in states]


def died():
    """What the first process is told when the second has been killed."""
    if rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        everyone(0)
    except ProcessLost as lost:
        return str(lost)
    return ""


if __name__ == "__main__":
    with process_group():
        mine = slice(2 * rank(), 2 * rank() + 2)
        own = numbers(mine.start, mine.stop)
        spoilt = Numbers(own.inputs * float("nan"), own.cases)
        huge = Numbers(own.inputs * 100, own.cases)
        halves = [Numbers(own.inputs[k : k + 1], own.cases[k : k + 1]) for k in range(2)]
        found = {
            "exchanged": exchanged(),
            "learned": learned([own]),
            "accumulated": learned(halves),
            "spoilt": learned([spoilt if rank() == 1 else own]),
            "overflown": learned([huge if rank() == 1 else own], "float16"),
            "losses": losses(mine),
            "kept": kept(mine),
            "drawn": drawn(),
        }
        torch.save(found | {"died": None}, sys.argv[1])
        found["died"] = died()
        found["first"] = first_to_fail()
        torch.save(found, sys.argv[1])
        # it would wait for the one that is gone
        os._exit(0)
