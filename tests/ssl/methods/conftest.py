"""Fresh methods, volumes to show them, short trainings, and two threads that stand for two processes."""

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from fewvox.seg.networks.registry import build
from fewvox.ssl import gather
from fewvox.ssl.method import Method, PretextResult, Scope, Views
from fewvox.ssl.method_checks import SITUATIONS, fresh, tiny_batch
from fewvox.ssl.methods.registry import find_method
from torch import Tensor, nn


@pytest.fixture
def fresh_method() -> Callable[..., Any]:
    """A method of a class with these settings, on a fresh network."""

    def make(kind: type[Method], config, scope: Scope, seed=0) -> Method:
        torch.manual_seed(seed)
        return kind(build(scope.architecture, seed), kind.heads(scope, config), config, scope)

    return make


class _Painter(nn.Module):
    # the product of the architecture's strides
    multiple = (2, 4, 2)

    def __init__(self, paint: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.paint = paint

    def features(self, images: Tensor) -> Tensor:
        self.shown = images
        return self.paint(images)


@pytest.fixture
def painter() -> Callable[[Callable[[Tensor], Tensor]], nn.Module]:
    """Stands for a network whose features are what it paints; what it is shown is noted in `shown`."""
    return _Painter


@pytest.fixture
def vectors() -> Callable[[int, int, int], Tensor]:
    """So many vectors of a size, not of unit length, and with a gradient."""

    def draw(count: int, size: int, seed: int) -> Tensor:
        drawn = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
        return drawn.requires_grad_()

    return draw


@pytest.fixture
def places() -> Callable[..., Tensor]:
    """Views whose three channels hold the place (z, y, x) of each voxel."""

    def make(*extent: int, batch=2) -> Tensor:
        axes = torch.meshgrid(*(torch.arange(float(n)) for n in extent), indexing="ij")
        return torch.stack(axes).expand(batch, 3, *extent)

    return make


@pytest.fixture
def shift() -> Callable[..., Tensor]:
    """Maps (B, 3, 4) of views that begin at a place of their volume."""

    def make(batch: int, *offset: float) -> Tensor:
        affine = torch.cat([torch.eye(3), torch.tensor(offset)[:, None]], dim=1).double()
        return affine.expand(batch, 3, 4).clone()

    return make


@pytest.fixture
def grains() -> Tensor:
    """Four volumes (4, 1, 4, 8, 4) of different grain."""
    waves = [torch.sin(torch.arange(8) * w) for w in (0.4, 0.9, 1.7, 2.9)]
    return torch.stack([w[None, :, None] * w[None, None, :4] * torch.ones(4, 1, 1) for w in waves])[:, None]


@pytest.fixture
def noisy(views_of) -> Callable[..., Views]:
    """A batch of views of volumes (B, C, Z, Y, X), each with noise of its own; the step is its seed."""

    def make(volumes: Tensor, deviation: float, step: int, views=2) -> Views:
        noise = torch.randn(views, *volumes.shape, generator=torch.Generator().manual_seed(step))
        return views_of(*(volumes + deviation * noise), seed=step)

    return make


@pytest.fixture
def same_grain(views_of) -> Callable[..., Callable[[int], Views]]:
    """A batch for each step: two volumes of the same random grain, each with a little noise of its own."""

    def make(*extent: int) -> Callable[[int], Views]:
        def noise(seed: int, items=2) -> Tensor:
            return torch.randn(items, 1, *extent, generator=torch.Generator().manual_seed(seed))

        return lambda step: views_of(noise(0, 1) + 0.2 * noise(step + 1), seed=step)

    return make


@pytest.fixture
def train() -> Callable[..., list[PretextResult]]:
    """The results of so many steps of a training, from step `first` on, each on the batch of its step.

    By AdamW unless there is an optimiser already. Losses come without their gradient.
    """

    def run(
        method: Method, batch_at: Callable[[int], Views], steps: int, lr=3e-3, optimiser=None, first=0
    ) -> list[PretextResult]:
        optimiser = optimiser or torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=lr)
        results = []
        for step in range(first, first + steps):
            result = method(batch_at(step), step)
            optimiser.zero_grad()
            result.loss.backward()
            optimiser.step()
            method.after_step(step)
            results.append(replace(result, loss=result.loss.detach()))
        return results

    return run


@pytest.fixture
def train_by_name(train) -> Callable[..., list[PretextResult]]:
    """The results of some steps of the method of that name with its defaults, on tiny batches."""

    def run(name: str, steps=20) -> list[PretextResult]:
        situation, registered = SITUATIONS["anisotropic, one channel"], find_method(name)
        return train(
            fresh(registered, situation).train(), lambda step: tiny_batch(registered, situation, step), steps,
            lr=registered.method.adamw_lr or 3e-3
        )  # fmt: skip

    return run


@pytest.fixture
def check_finite() -> Callable[[Method, Views], PretextResult]:
    """Asserts that a batch has a finite loss and gradient, and gives its result."""

    def check(method: Method, batch: Views) -> PretextResult:
        result = method(batch, 0)
        result.loss.backward()
        assert torch.isfinite(result.loss)
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in method.parameters())
        return result

    return check


@pytest.fixture
def check_loss() -> Callable[[Any, Tensor, Tensor], None]:
    """Asserts that a method's loss is the expected one, in value and in the gradient of its first weights."""

    def check(method: Any, found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        weight = method.network.first_convolution.weight
        slope, expected_slope = (torch.autograd.grad(loss, weight)[0] for loss in (found, expected))
        torch.testing.assert_close(slope, expected_slope, atol=1e-5, rtol=1e-3)

    return check


@pytest.fixture
def check_seed_decides() -> Callable[[Method, Views], None]:
    """Asserts that what is drawn depends on the batch's own seed, not on the step or torch's generator."""

    def check(method: Method, batch: Views) -> None:
        torch.manual_seed(1)
        first = method(batch, 0).loss
        torch.manual_seed(2)
        assert torch.equal(method(batch, 7).loss, first)
        assert not torch.equal(method(replace(batch, seed=batch.seed + 1), 0).loss, first)

    return check


@pytest.fixture
def check_guess() -> Callable[[Any, Views, int], None]:
    """Asserts that a head which says the same of everything loses what a guess of so many classes does."""

    def check(method: Any, batch: Views, classes: int) -> None:
        nn.init.zeros_(method.head.together[-1].weight)
        nn.init.zeros_(method.head.together[-1].bias)
        result = method(batch, 0)
        loss = float(result.loss.detach())
        assert loss == pytest.approx(method.resting_loss()) == pytest.approx(math.log(classes))
        assert float(result.logs["chance"]) == pytest.approx(1 / classes)

    return check


class _Rendezvous:
    """Gives each of two threads the rows of both, in order, with the graph of both."""

    def __init__(self) -> None:
        self.barrier, self.local = threading.Barrier(2, timeout=20), threading.local()
        self.rows: list[Tensor] = [torch.empty(0)] * 2

    def rank(self) -> int:
        return self.local.rank

    def gathered(self, rows: Tensor) -> Tensor:
        self.rows[self.rank()] = rows
        self.barrier.wait()
        both = torch.cat(self.rows)
        # before the next rows are laid down
        self.barrier.wait()
        return both


@pytest.fixture
def in_two_processes(monkeypatch) -> Callable[..., tuple[list[float], list[Tensor]]]:
    """The losses of two halves of a batch, each in a process of its own, and the gradients that DDP makes.

    Those are means over the processes of what flows back from both losses. `module` is the method's, whose
    `gathered` is replaced.
    """

    def run(module, method: Method, halves: tuple[Views, Views], step: int = 0):
        meeting = _Rendezvous()
        monkeypatch.setattr(gather, "processes", lambda: 2)
        monkeypatch.setattr(gather, "rank", meeting.rank)
        for place in (gather, module):
            monkeypatch.setattr(place, "gathered", meeting.gathered)

        def process(rank: int) -> Tensor:
            meeting.local.rank = rank
            return method(halves[rank], step).loss

        with ThreadPoolExecutor(2) as pool:
            losses = list(pool.map(process, range(2)))
        monkeypatch.undo()
        parameters = [p for p in method.parameters() if p.requires_grad]
        mean = torch.stack(losses).mean()
        gradients = torch.autograd.grad(mean, parameters, allow_unused=True)
        return [float(loss.detach()) for loss in losses], [g for g in gradients if g is not None]

    return run


@pytest.fixture
def halves_of() -> Callable[[Views], tuple[Views, Views]]:
    """What each of two processes holds of a batch."""

    def cut(batch: Views) -> tuple[Views, Views]:
        middle = len(batch.cases) // 2
        first, second = (
            replace(
                batch, views=tuple(v[part] for v in batch.views), maps=tuple(m[part] for m in batch.maps),
                cases=batch.cases[part]
            )
            for part in (slice(None, middle), slice(middle, None))
        )  # fmt: skip
        return first, second

    return cut


@pytest.fixture
def two_as_one(in_two_processes, halves_of) -> Callable[..., tuple[list[float], float]]:
    """The losses of two processes with half of a batch each, and that of one with all of it.

    Gradients of both are compared here. `module` is the method's, whose `gathered` is replaced; `halves` are
    those of the batch unless given, `whole` is the method that sees all, where it is another one.
    """

    def run(module, method: Method, batch: Views, halves=None, whole=None, atol=1e-4):
        losses, found = in_two_processes(module, method, halves or halves_of(batch))
        whole = whole or method
        loss = whole(batch, 0).loss
        parameters = [p for p in whole.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        expected = [g for g in gradients if g is not None]
        assert expected
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=atol, rtol=1e-3)
        return losses, float(loss.detach())

    return run
