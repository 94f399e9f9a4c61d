"""Sum: several methods at once, on the same views and one network, their losses weighted and added.

Source: Doersch and Zisserman 2017, https://arxiv.org/abs/1708.07860, section 3, who train one network on
several pretext tasks; a weighted sum of losses as in Tang et al. 2022 (Swin UNETR),
https://arxiv.org/abs/2111.14791, section 3.2. Differs from the first in that every step has all tasks, on the
same views, and from the second in that the tasks and their weights are values of the configuration.

What the parts share:

- Views: an item has as many as the part that asks for most, and each part is given the first of them. Where
  one asks for upright or plain views all get such, as what that part asks for could not be told otherwise;
  the others then see views that were changed less than they are used to.
- The seed of a batch: of one part with weight 1 the sum is that very method.
- The network that is kept is that of the first part with a teacher, a moving average of the shared one, and
  the shared one where no part has any.
- Embeddings that are watched are those of the first part that has some of its own.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, cast

import torch
from pydantic import Field, TypeAdapter, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import InitErrorDetails
from torch import Tensor, nn

from ...data.errors import UserError
from ...data.settings import parse, plain, settings
from ...seg.networks.network import Network
from ..method import Method, PretextResult, Registered, Scope, Views, ViewSpec, find_method, register_method
from .mae import MaeConfig
from .triplet import TripletConfig


@settings
class PartConfig:
    """A method's `weight` in the sum, and its own settings (`options`)."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    options: dict[str, Any] = field(default_factory=dict)


def _checked_parts(said: Any, read: ValidatorFunctionWrapHandler) -> dict[str, PartConfig]:
    """The parts, their options in full; the mistakes of all of them are told together."""
    parts, filled, mistakes = dict[str, PartConfig](), dict[str, Any](), list[InitErrorDetails]()
    try:
        parts = read(said)
    except ValidationError as error:
        mistakes += _mistakes(error)
    for name, part in said.items() if isinstance(said, Mapping) else ():
        try:
            registered = find_method(name)
        except UserError as error:
            why = {"error": f"{error.found}; {error.rule}"}
            mistakes.append(InitErrorDetails(type="value_error", loc=(name,), input=name, ctx=why))
            continue
        options = part.get("options") if isinstance(part, Mapping) else getattr(part, "options", None)
        try:
            filled[name] = plain(TypeAdapter(registered.config).validate_python(options or {}))
        except ValidationError as error:
            mistakes += _mistakes(error, name, "options")
    if mistakes:
        raise ValidationError.from_exception_data("sum", mistakes)
    return {name: replace(part, options=filled[name]) for name, part in parts.items()}


def _mistakes(error: ValidationError, *place: str) -> list[InitErrorDetails]:
    """What is wrong, told of keys below a place."""
    return [
        InitErrorDetails(type=e["type"], loc=(*place, *e["loc"]), input=e["input"], ctx=e.get("ctx", {}))
        for e in error.errors()
    ]


def _default() -> dict[str, PartConfig]:
    return {
        "mae": PartConfig(options=plain(MaeConfig())),
        # the gradient of its loss is up to ten times as long as that of the other, where it is not 0
        "triplet": PartConfig(weight=0.1, options=plain(TripletConfig())),
    }


@settings
class SumConfig:
    """`methods` are the parts by name, of which each has a `weight` and the `options` of that method.

    What a file says of them is the whole sum: nothing of the default is added. There is no paper's value.
    """

    methods: Annotated[dict[str, PartConfig], Field(min_length=1), WrapValidator(_checked_parts)] = field(
        default_factory=_default
    )


@dataclass(frozen=True, kw_only=True)
class Part:
    """A method of the sum: its weight, and what it is built for and of.

    `views` are the numbers of those that it is given.
    """

    weight: float
    registered: Registered
    config: Any
    views: tuple[int, ...]

    def scope(self, whole: Scope) -> Scope:
        """What it is built for."""
        return replace(whole, shapes=tuple(whole.shapes[v] for v in self.views))

    def batch(self, whole: Views) -> Views:
        """What it is given of a batch."""
        views, maps = (tuple(of[v] for v in self.views) for of in (whole.views, whole.maps))
        return replace(whole, views=views, maps=maps)


def parts_of(config: SumConfig) -> dict[str, Part]:
    """The parts, by name."""
    found = {name: find_method(name) for name in config.methods}
    configs = {
        name: parse(found[name].config, part.options, f"options.methods.{name}.options")
        for name, part in config.methods.items()
    }
    specs = {name: found[name].method.views(configs[name]) for name in found}
    first_local = union(specs.values()).global_views
    return {
        name: Part(
            weight=part.weight,
            registered=found[name],
            config=configs[name],
            views=(
                *range(specs[name].global_views),
                *range(first_local, first_local + specs[name].local_views),
            ),
        )
        for name, part in config.methods.items()
    }


def union(specs: Collection[ViewSpec]) -> ViewSpec:
    """The views of which each of several methods can be given its own."""
    return ViewSpec(
        global_views=max(spec.global_views for spec in specs),
        local_views=max(spec.local_views for spec in specs),
        volumes=max(spec.volumes for spec in specs),
        upright=any(spec.upright for spec in specs),
        plain=any(spec.plain for spec in specs),
        times=sum(spec.times for spec in specs),
    )


@register_method("sum", SumConfig)
class Sum(Method):
    """Several methods at once: their losses are weighted and added."""

    source = "Doersch and Zisserman 2017, arXiv:1708.07860; Tang et al. 2022, arXiv:2111.14791"
    # what the most careful part of the default asks for
    adamw_lr = 1e-3

    head: nn.ModuleDict

    def __init__(self, network: Network, head: nn.ModuleDict, config: SumConfig, scope: Scope) -> None:
        super().__init__(network, head, config, scope)
        self.of = parts_of(config)
        self.parts = nn.ModuleDict()
        for name, part in self.of.items():
            method = part.registered.method(network, head[name], part.config, part.scope(scope))
            # theirs is what they have beside these two, which are here already: each is stored once
            for shared in ("network", "head"):
                vars(method)[shared] = method._modules.pop(shared)
            self.parts[name] = method
        self.embeds = any(method.embeds for _, method in self._methods())

    @staticmethod
    def views(config: SumConfig) -> ViewSpec:
        """As many as the part that asks for most, upright or plain where one asks for that."""
        return union([part.registered.method.views(part.config) for part in parts_of(config).values()])

    @staticmethod
    def heads(scope: Scope, config: SumConfig) -> nn.Module:
        """The heads of all parts, by name."""
        return nn.ModuleDict(
            {
                name: part.registered.method.heads(part.scope(scope), part.config)
                for name, part in parts_of(config).items()
            }
        )

    def forward(self, batch: Views, step: int) -> PretextResult:
        """The weighted sum; each part's loss, before it is weighted, and its logs are told under its name."""
        losses, logs, embeddings = list[Tensor](), dict[str, Tensor](), None
        for name, method in self._methods():
            result: PretextResult = method(self.of[name].batch(batch), step)
            losses.append(self.of[name].weight * result.loss)
            logs[f"{name}/loss"] = result.loss.detach()
            logs |= {f"{name}/{key}": value for key, value in result.logs.items()}
            embeddings = result.embeddings if embeddings is None else embeddings
        return PretextResult(loss=torch.stack(losses).sum(), logs=logs, embeddings=embeddings)

    def embed(self, view: Tensor) -> Tensor:
        """The embeddings of the first part that has some of its own; pooled features where none has."""
        for _, method in self._methods():
            if method.embeds:
                return method.embed(view)
        return super().embed(view)

    def resting_loss(self) -> float | None:
        """The weighted sum of where the parts rest; None where one of them does not tell."""
        resting = {name: method.resting_loss() for name, method in self._methods()}
        known = {name: loss for name, loss in resting.items() if loss is not None}
        if len(known) < len(resting):
            return None
        return sum(self.of[name].weight * loss for name, loss in known.items())

    def after_step(self, step: int) -> None:
        """What follows a step in each part."""
        for _, method in self._methods():
            method.after_step(step)

    def exported_network(self) -> Network:
        """That of the first part with another than the shared one, such as a teacher; else the shared one."""
        exported = (method.exported_network() for _, method in self._methods())
        return next((network for network in exported if network is not self.network), self.network)

    def _methods(self) -> Iterator[tuple[str, Method]]:
        return ((name, cast(Method, method)) for name, method in self.parts.items())
