"""What a pretext task is, and the table of those there are.

A method is a module that is given views of unannotated volumes and returns a loss. It is built from
the very network that will be fine-tuned, so that encoder and decoder are both pretrained.
"""

# Shapes: B = batch, C = channels, D = embedding size.

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from ..data.errors import UserError
from ..seg.engine.step import StepResult
from ..seg.networks.network import Network
from ..seg.networks.registry import Architecture


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """Which views of a volume a method needs.

    An item is `global_views` (1 or 2) and `local_views` of one volume; a batch holds at least `volumes`
    items, each of another volume.
    """

    global_views: int = 1
    local_views: int = 0
    volumes: int = 1

    def __post_init__(self) -> None:
        if self.global_views not in (1, 2) or self.local_views < 0 or self.volumes < 1:
            raise ValueError(f"one or two global views, any number of local ones, of a volume, not {self}")

    @property
    def count(self) -> int:
        """How many views an item has."""
        return self.global_views + self.local_views


@dataclass(frozen=True, kw_only=True)
class Views:
    """A batch: `views[v]` is view v of every item, (B, C, Z, Y, X); item i comes from volume `cases[i]`.

    Global views come first; local ones may have another extent. `maps[v]` (B, 3, 4), float64, leads from
    indices (z, y, x, 1) of the view's voxels to those of the volume's finest level, through everything
    spatial that was done. The volumes of a batch are distinct, so that two items are never two places of one
    volume. `seed` is for what a method draws itself, so that a step depends on its batch alone.
    """

    views: tuple[Tensor, ...]
    maps: tuple[Tensor, ...]
    cases: tuple[str, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if len(set(self.cases)) != len(self.cases):
            raise ValueError(f"a batch draws distinct volumes, not {self.cases}")
        if len(self.maps) != len(self.views):
            raise ValueError(f"{len(self.views)} views have as many maps, not {len(self.maps)}")

    def to(self, device: torch.device) -> "Views":
        """The same batch on another device."""
        views, maps = (
            tuple(t.to(device, non_blocking=True) for t in parts) for parts in (self.views, self.maps)
        )
        return replace(self, views=views, maps=maps)


@dataclass(frozen=True, kw_only=True)
class PretextResult(StepResult):
    """What a method makes of a batch: a loss, and embeddings (B, D) where the loss is made of some."""

    embeddings: Tensor | None = None


@runtime_checkable
class Method(Protocol):
    """A pretext task: an `nn.Module`, built as `Name(network, Name.heads(architecture, config), config)`.

    `network` is what the loss trains. `forward` is what the loop (and DDP) calls; `after_step` follows each
    update (a teacher's moving average); `exported_network` is what a checkpoint keeps. `embed` gives
    embeddings (B, D) of a view (B, C, Z, Y, X): what is watched for collapse. `adamw_lr` is the peak learning
    rate where AdamW is used and none is set; None leaves it to the optimiser's own default.
    """

    views: ViewSpec
    adamw_lr: float | None
    network: Network

    @staticmethod
    def heads(architecture: Architecture, config: Any) -> nn.Module: ...  # noqa: D102

    def forward(self, batch: Views, step: int) -> PretextResult: ...  # noqa: D102

    def embed(self, view: Tensor) -> Tensor: ...  # noqa: D102

    def after_step(self, step: int) -> None: ...  # noqa: D102

    def exported_network(self) -> Network: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A method's class and the class of its configuration."""

    method: type
    config: type

    @property
    def summary(self) -> str:
        """The first line of the method's description."""
        return (self.method.__doc__ or "").splitlines()[0]


METHODS: dict[str, Registered] = {}
T = TypeVar("T", bound=type)
_PARTS = ("views", "adamw_lr", "heads", "forward", "embed", "after_step", "exported_network")


def register_method(name: str, config: type) -> Callable[[T], T]:
    """Enters a class in the table of methods; the file that holds it is imported explicitly."""

    def enter(method: T) -> T:
        lacking = [part for part in _PARTS if not hasattr(method, part)]
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
