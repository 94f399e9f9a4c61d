"""What a pretext task is, and the table of those there are.

A method is a module that is given views of unannotated volumes and returns a loss. It is built from
the very network that will be fine-tuned, so that encoder and decoder are both pretrained where its loss
reaches both.
"""

# Shapes: B = batch, C = channels, D = embedding size.

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ..data.augment.chain import AugmentConfig
from ..data.plugins import Plugins
from ..data.volume import Shape, Triple
from ..seg.engine.step import StepResult
from ..seg.networks.network import Network
from ..seg.networks.registry import Architecture
from .heads import pool


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """Which views of a volume a method needs.

    An item is `global_views` (1 or 2) and `local_views` of one volume; a batch holds at least `volumes`
    items, each of another volume. `upright` views are neither turned nor flipped: what a task asks for would
    be lost. `plain` ones keep their grey values: the task changes them itself. `times` is how often the
    network reads each of them, which the estimate of memory goes by.
    """

    global_views: int = 1
    local_views: int = 0
    volumes: int = 1
    upright: bool = False
    plain: bool = False
    times: int = 1

    def __post_init__(self) -> None:
        if self.global_views not in (1, 2) or self.local_views < 0 or self.volumes < 1:
            raise ValueError(f"one or two global views, any number of local ones, of a volume, not {self}")

    @property
    def count(self) -> int:
        """How many views an item has."""
        return self.global_views + self.local_views

    def changes(self, augment: AugmentConfig) -> AugmentConfig:
        """What of an augmentation is left for these views."""
        spatial = None if self.upright else augment.spatial
        # an operation that is not named would come back from the preset where the settings are read again
        chain = dict.fromkeys(augment.chain) if self.plain else augment.chain
        return replace(augment, spatial=spatial, chain=chain)


@dataclass(frozen=True, kw_only=True)
class Views:
    """A batch: `views[v]` is view v of every item, (B, C, Z, Y, X); item i comes from volume `cases[i]`.

    Global views come first; local ones may have another extent. `maps[v]` (B, 3, 4), float64, leads from
    indices (z, y, x, 1) of the view's voxels to those of the volume's finest level, through everything
    spatial that was done. The volumes of a batch are distinct, so that two items are never two places of one
    volume. `seed` is for what a method draws itself, so that a step depends on its batch alone; of processes
    that train together each has a batch, and a seed, of its own.
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


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What a method is built for.

    `shapes` (z, y, x) are those of an item's views; `cases` are the volumes, `subjects` whose each of them
    is; `steps` is the length of the training and `batch` the number of items of a batch. `spacing` (z, y, x)
    is that of the volumes' voxels, None where it is unknown.
    """

    architecture: Architecture
    shapes: tuple[Shape, ...]
    cases: tuple[str, ...]
    subjects: tuple[str, ...]
    steps: int
    batch: int
    spacing: Triple | None = None


class Method(nn.Module, ABC):
    """A pretext task, built as `Name(network, Name.heads(scope, config), config, scope)`.

    `network` is what the loss trains, `head` what it has beside. `forward` is what the loop calls.
    All random numbers come from the batch's seed, so that a step depends on its batch alone.

    - `source`: the paper, in a line.
    - `trains`: what of the network the loss reaches with the default settings: "encoder", "decoder", or both.
    - `embeds`: whether `embed` gives what the loss is made of, not features that are pooled to be watched.
    - `adamw_lr`: the peak learning rate where AdamW is used and none is set; None leaves it to the optimiser.
    """

    source: ClassVar[str]
    trains: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    adamw_lr: ClassVar[float | None] = None
    embeds: bool = False

    def __init__(self, network: Network, head: nn.Module, config: Any, scope: Scope) -> None:
        super().__init__()
        self.network, self.head, self.config, self.scope = network, head, config, scope

    @staticmethod
    @abstractmethod
    def views(config: Any) -> ViewSpec:
        """The views that an item has."""

    @staticmethod
    @abstractmethod
    def heads(scope: Scope, config: Any) -> nn.Module:
        """What the loss needs beside the network; kept in the training state, not in the weights."""

    @abstractmethod
    def forward(self, batch: Views, step: int) -> PretextResult:
        """The loss of a batch at a step (from 0)."""

    def embed(self, view: Tensor) -> Tensor:
        """Embeddings (B, D) of a view (B, C, Z, Y, X): what is watched for collapse.

        Pooled features of the decoder, for tasks without an embedding of their own.
        """
        return pool(self.network.decode(self.network.encode(view)))

    def resting_loss(self) -> float | None:
        """The loss of outputs that are all the same: a training that rests there has learned nothing.

        None where a loss tells nothing of that.
        """
        return None

    def after_step(self, step: int) -> None:
        """Follows each update of the weights at a step (from 0): a teacher's moving average."""

    def exported_network(self) -> Network:
        """The network that a checkpoint keeps."""
        return self.network


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A method's class and the class of its configuration."""

    method: type[Method]
    config: type

    @property
    def summary(self) -> str:
        """The first line of the method's description."""
        return (self.method.__doc__ or "").splitlines()[0]


METHODS: dict[str, Registered] = {}
T = TypeVar("T", bound=type[Method])


def register_method(name: str, config: type) -> Callable[[T], T]:
    """Enters a class in the table of methods; the file that holds it is imported explicitly."""

    def enter(method: T) -> T:
        if name in METHODS:
            raise TypeError(f"{method.__name__} is a second '{name}'")
        METHODS[name] = _whole(Registered(method=method, config=config))
        return method

    return enter


def find_method(name: str) -> Registered:
    """The method of that name, ours or one that an installed package offers.

    Raises UserError with the known names.
    """
    return PLUGINS.find(name)


def _whole(registered: Registered) -> Registered:
    """The same; raises TypeError where the class lacks a part of a method."""
    method = registered.method
    lacking = sorted(method.__abstractmethods__) + [p for p in ("source",) if not hasattr(method, p)]
    if lacking:
        raise TypeError(f"{method.__name__} lacks {', '.join(lacking)}")
    return registered


def _accepted(name: str, offered: Any) -> Registered:  # noqa: ARG001 (its own table names it)
    if not isinstance(offered, Registered):
        raise TypeError(f"it is {type(offered).__name__}")
    return _whole(offered)


PLUGINS = Plugins("method", METHODS, _accepted, "a Registered (fewvox.ssl.method) of a Method and settings")
