"""What every pretext method keeps to, ours and those of other packages: tried on tiny networks and volumes.

A check raises AssertionError with what it found. `fewvox check-plugin` and the tests run the same ones.
"""

# Shapes: B = batch, C = channels.

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..data.settings import parse, plain
from ..data.volume import Shape
from ..seg.networks.registry import Architecture, build
from ..seg.networks.topology import Topology
from .method import Method, Registered, Scope, Views

# volumes there are, and the steps of a short training
VOLUMES, STEPS = 4, 20


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A network, the extent of the views it is given, and how many of them."""

    architecture: Architecture
    extent: Shape
    batch: int = VOLUMES


def _architecture(channels: int, *strides: tuple[int, int, int]) -> Architecture:
    levels = len(strides) + 1
    topology = Topology(
        features=tuple(4 * 2**level for level in range(levels)),
        kernels=((3, 3, 3),) * levels,
        strides=strides,
    )
    return Architecture(in_channels=channels, classes=2, topology=topology)


SITUATIONS: dict[str, Situation] = {
    "anisotropic, one channel": Situation(
        architecture=_architecture(1, (1, 2, 2), (2, 2, 2)), extent=(8, 16, 16)
    ),
    "isotropic, three channels, two volumes": Situation(
        architecture=_architecture(3, (2, 2, 2), (2, 2, 2)), extent=(16, 16, 16), batch=2
    ),
}


def scope_of(registered: Registered, situation: Situation) -> Scope:
    """What the method is built for."""
    spec, cases = registered.method.views(registered.config()), tuple(f"v{i}" for i in range(VOLUMES))
    return Scope(
        architecture=situation.architecture,
        shapes=(situation.extent,) * spec.count,
        cases=cases,
        subjects=cases,
        steps=STEPS,
        batch=situation.batch,
    )


def fresh(registered: Registered, situation: Situation, seed: int = 0) -> Method:
    """The method built from its defaults."""
    scope, config = scope_of(registered, situation), registered.config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(situation.architecture, seed)
        return registered.method(network, registered.method.heads(scope, config), config, scope)


def tiny_batch(registered: Registered, situation: Situation, step: int) -> Views:
    """Views of volumes that differ in their grain, brighter towards one corner; each has noise of its own.

    Views of a volume begin where it does, so that their maps are alike.
    """
    spec, extent = registered.method.views(registered.config()), situation.extent
    generator = torch.Generator().manual_seed(step)
    z, y, x = torch.meshgrid(*(torch.arange(float(n)) for n in extent), indexing="ij")
    slope = z / extent[0] + 2 * y / extent[1] + 4 * x / extent[2] - 3.5
    volumes = []
    for k in range(situation.batch):
        grain = (
            torch.sin(z * (0.5 + 0.3 * k)) * torch.sin(y * (0.4 + 0.4 * k)) * torch.sin(x * (0.9 - 0.2 * k))
        )
        channels = [grain * (c + 1) + slope / 2 for c in range(situation.architecture.in_channels)]
        volumes.append(torch.stack(channels))
    clean = torch.stack(volumes)
    views = tuple(clean + 0.2 * torch.randn(clean.shape, generator=generator) for _ in range(spec.count))
    maps = (torch.eye(3, 4, dtype=torch.float64).expand(situation.batch, 3, 4),) * spec.count
    cases = tuple(f"v{k}" for k in range(situation.batch))
    return Views(views=views, maps=maps, cases=cases, seed=step)


def teaching_batch(registered: Registered, situation: Situation) -> Views:
    """The first tiny batch that has a loss: a hinge has none where volumes are far apart from the start."""
    for step in range(STEPS):
        batch = tiny_batch(registered, situation, step)
        if float(fresh(registered, situation).train()(batch, 0).loss.detach()) != 0:
            return batch
    raise AssertionError(f"the loss of {STEPS} batches is 0")


def short_training(registered: Registered, situation: Situation, steps: int = STEPS) -> list[float]:
    """The loss of every step of a seeded training with AdamW, as the loop would do it."""
    method = fresh(registered, situation).train()
    optimiser = torch.optim.AdamW(
        [p for p in method.parameters() if p.requires_grad], lr=registered.method.adamw_lr or 3e-3
    )
    losses = []
    for step in range(steps):
        optimiser.zero_grad()
        loss = method(tiny_batch(registered, situation, step), step).loss
        loss.backward()
        nn.utils.clip_grad_norm_(method.parameters(), 12.0)
        optimiser.step()
        method.after_step(step)
        losses.append(float(loss.detach()))
    return losses


def builds_from_defaults(registered: Registered, situation: Situation) -> None:
    """It is described, built from its defaults, and these can stand in a file."""
    method = fresh(registered, situation)
    assert isinstance(method, Method), f"{type(method).__name__} is no Method"
    assert registered.summary.endswith("."), "the first line of its docstring is no sentence"
    assert registered.method.source, "it names no source"
    again = parse(registered.config, plain(registered.config()), "options")
    assert again == registered.config(), "its settings are others after a file has held them"


def loss_is_finite(registered: Registered, situation: Situation) -> None:
    """The loss is one finite number, and what it logs are single numbers without a gradient."""
    result = fresh(registered, situation).train()(tiny_batch(registered, situation, 0), 0)
    assert result.loss.shape == (), f"a loss of shape {tuple(result.loss.shape)}"
    assert torch.isfinite(result.loss), f"a loss of {float(result.loss)}"
    own = {"step", "loss", "lr", "gradient_norm"} & result.logs.keys()
    assert not own, f"it logs {', '.join(sorted(own))}, which the training records itself"
    for name, value in result.logs.items():
        assert isinstance(value, Tensor), f"{name} is logged as {type(value).__name__}, not as a tensor"
        assert value.numel() == 1, f"{name} is logged with {value.numel()} numbers"
        assert not value.requires_grad, f"{name} is logged with its gradient"


def reaches_what_it_claims(registered: Registered, situation: Situation) -> None:
    """Every tensor of the parts it trains learns, and none of the others; the head has finite gradients."""
    method = fresh(registered, situation).train()
    method(teaching_batch(registered, situation), 0).loss.backward()
    for part in ("encoder", "decoder"):
        for name, p in getattr(method.network, part).named_parameters():
            learns = p.grad is not None and bool(p.grad.norm() > 0)
            claimed = part in registered.method.trains
            assert learns == claimed, f"{part}.{name} learns: {learns}, it trains {registered.method.trains}"
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in method.parameters()), (
        "a gradient is not finite"
    )


def same_seed_same_loss(registered: Registered, situation: Situation) -> None:
    """A step depends on its weights and its batch alone."""
    batch = tiny_batch(registered, situation, 0)
    first = fresh(registered, situation)(batch, 0).loss
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        again = fresh(registered, situation)(batch, 0).loss
    other = fresh(registered, situation, seed=1)(batch, 0).loss
    assert torch.equal(first, again), f"{float(first)} and then {float(again)}"
    assert not torch.equal(first, other), "other weights have the same loss"


def state_makes_a_round_trip(registered: Registered, situation: Situation) -> None:
    """What it has learned is all in its state."""
    batch = tiny_batch(registered, situation, 0)
    trained = fresh(registered, situation).train()
    trained(batch, 0).loss.backward()
    trained.after_step(0)
    other = fresh(registered, situation, seed=1)
    other.load_state_dict(trained.state_dict(), strict=True)
    losses = [method.eval()(batch, 1).loss for method in (trained, other)]
    assert torch.equal(*losses), f"{float(losses[0])} before and {float(losses[1])} after"


def embeds_each_view_alone(registered: Registered, situation: Situation) -> None:
    """An embedding is one vector for each view, whatever stands beside it."""
    method = fresh(registered, situation).eval()
    view = tiny_batch(registered, situation, 0).views[0]
    with torch.no_grad():
        together = method.embed(view)
        alone = torch.cat([method.embed(image[None]) for image in view])
    assert together.ndim == 2, f"embeddings of shape {tuple(together.shape)}"
    assert together.shape == alone.shape, f"{tuple(together.shape)} together, {tuple(alone.shape)} alone"
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-3)


def says_that_it_embeds(registered: Registered, situation: Situation) -> None:
    """Unit vectors are embeddings: without `embeds` nobody would see them collapse."""
    method = fresh(registered, situation).eval()
    with torch.no_grad():
        lengths = method.embed(tiny_batch(registered, situation, 0).views[0]).norm(dim=1)
    unit = bool(((lengths - 1).abs() < 1e-3).all())
    assert method.embeds or not unit, "it gives unit vectors, and embeds is False"


def exports_a_network(registered: Registered, situation: Situation) -> None:
    """What a checkpoint keeps can be fine-tuned, and is part of the method."""
    method = fresh(registered, situation)
    exported = method.exported_network()
    assert exported.state_dict().keys() == build(situation.architecture).state_dict().keys()
    assert any(module is exported for module in method.modules()), "the exported network is no part of it"


def leaves_the_batch(registered: Registered, situation: Situation) -> None:
    """Views are not overwritten."""
    batch = tiny_batch(registered, situation, 0)
    before = copy.deepcopy(batch.views)
    fresh(registered, situation).train()(batch, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, batch.views, strict=True)), "a view was overwritten"


def depends_on_the_views(registered: Registered, situation: Situation) -> None:
    """Other views have another loss."""
    batch = teaching_batch(registered, situation)
    other = replace(batch, views=tiny_batch(registered, situation, STEPS).views)
    losses = [fresh(registered, situation)(views, 0).loss for views in (batch, other)]
    assert not torch.equal(*losses), "other views have the same loss"


def loss_falls(registered: Registered, situation: Situation) -> None:
    """A short training has a lower loss at its end than at its beginning."""
    check_falling(short_training(registered, situation))


def check_falling(losses: list[float]) -> None:
    """Raises AssertionError where the last quarter of the losses is not below the first."""
    part = len(losses) // 4
    first, last = sum(losses[:part]) / part, sum(losses[-part:]) / part
    assert last < first, f"the loss went from {first:.4g} to {last:.4g}"


Check = Callable[[Registered, Situation], None]
CHECKS: tuple[Check, ...] = (
    builds_from_defaults,
    loss_is_finite,
    reaches_what_it_claims,
    same_seed_same_loss,
    state_makes_a_round_trip,
    embeds_each_view_alone,
    says_that_it_embeds,
    exports_a_network,
    leaves_the_batch,
    depends_on_the_views,
)
