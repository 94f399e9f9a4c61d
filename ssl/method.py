"""What a pretext task is, and the table of those there are.

A method is a module that is given views of unannotated volumes and returns a loss. It is built from
the very network that will be fine-tuned, so that encoder and decoder are both pretrained.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from ..data.errors import UserError
from ..seg.engine.loop import StepResult


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """Which views of a volume a method needs: how many augmented patches of it stand in one item."""

    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a method needs at least one view, not {self.count}")


@dataclass(frozen=True, kw_only=True)
class Views:
    """A batch: `views[v]` is view v of every item, (B, C, Z, Y, X); item i comes from volume `cases[i]`.

    The volumes of a batch are distinct, so that two items are never two places of one volume.
    """

    views: tuple[Tensor, ...]
    cases: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.cases)) != len(self.cases):
            raise ValueError(f"a batch draws distinct volumes, not {self.cases}")

    def to(self, device: torch.device) -> "Views":
        """The same batch on another device."""
        return Views(views=tuple(v.to(device, non_blocking=True) for v in self.views), cases=self.cases)


@dataclass(frozen=True, kw_only=True)
class PretextResult(StepResult):
    """What a method makes of a batch: a loss, and embeddings (B, D) to watch for collapse, if it has any."""

    embeddings: Tensor | None = None


@runtime_checkable
class Method(Protocol):
    """A pretext task: `Name(network, heads, config)`, an `nn.Module`.

    `forward` is what the loop (and DDP) calls. `after_step` is for what follows an update, such as a
    teacher's moving average, `exported_network` for what a checkpoint keeps. Nothing calls these two yet:
    pretraining comes with the first method.
    """

    views: ViewSpec

    def forward(self, batch: Views, step: int) -> PretextResult: ...  # noqa: D102

    def after_step(self, step: int) -> None: ...  # noqa: D102

    def exported_network(self) -> nn.Module: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A method's class and the class of its configuration."""

    method: type
    config: type


METHODS: dict[str, Registered] = {}
T = TypeVar("T", bound=type)


def register_method(name: str, config: type) -> Callable[[T], T]:
    """Enters a class in the table of methods; the file that holds it is imported explicitly."""

    def enter(method: T) -> T:
        lacking = [
            part
            for part in ("views", "forward", "after_step", "exported_network")
            if not hasattr(method, part)
        ]
        if lacking or name in METHODS:
            raise TypeError(
                f"{method.__name__} "
                + (f"lacks {', '.join(lacking)}" if lacking else f"is a second '{name}'")
            )
        METHODS[name] = Registered(method=method, config=config)
        return method

    return enter


def find_method(name: str, table: dict[str, Registered] = METHODS) -> Registered:
    """The method of that name; raises UserError with the known names."""
    if name not in table:
        raise UserError(
            f"method {name}",
            found="no such pretext method",
            rule=f"There are: {', '.join(sorted(table)) or 'none yet'}",
            remedy="Choose one of them",
        )
    return table[name]
