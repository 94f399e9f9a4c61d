"""An augmentation as settings: how patches are turned, then a chain of operations on their grey values."""

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import PlainSerializer, TypeAdapter, ValidationError, WrapValidator
from pydantic_core import InitErrorDetails
from torch import Tensor

from ..errors import UserError
from ..plugins import Plugins
from ..settings import merged, parse, plain, settings
from ..volume import Triple
from .bias_field import BiasField
from .curve import Curve
from .draws import Draws
from .intensity import Blur, Brightness, Contrast, Gamma, Noise
from .low_resolution import LowResolution
from .masking import Cutout, InPainting, OutPainting
from .operations import Operation
from .presets import PRESETS
from .shuffling import LocalShuffling, Swap
from .spatial import SpatialConfig
from .torchio_transform import TorchIO

_Kinds = (
    BiasField
    | Blur
    | Brightness
    | Contrast
    | Curve
    | Cutout
    | Gamma
    | InPainting
    | LocalShuffling
    | LowResolution
    | Noise
    | OutPainting
    | Swap
    | TorchIO
)
# the class of each operation, by its `op`
OPERATIONS: dict[str, type[Operation]] = {kind.op: kind for kind in get_args(_Kinds)}


def _accepted(name: str, offered: Any) -> type[Operation]:
    if not isinstance(offered, type):
        raise TypeError(f"it is {type(offered).__name__}")
    if getattr(offered, "op", None) != name:
        raise ValueError(f"its `op` is {getattr(offered, 'op', None)!r}, not {name!r}")
    return offered


PLUGINS = Plugins(
    "augmentation", OPERATIONS, _accepted, "a settings class that is an Operation (data/augment)"
)


def _read(said: Any, _: Any) -> Any:
    """The operation that `op` names; pydantic's own choice would put that name into the keys of mistakes."""
    op = said.get("op") if isinstance(said, Mapping) else getattr(said, "op", None)
    if not isinstance(op, str) or not PLUGINS.has(op):
        raise ValueError(f"an operation has an `op`, one of: {', '.join(PLUGINS.names())}")
    return _reader(OPERATIONS[PLUGINS.known(op)]).validate_python(said)


@cache
def _reader(kind: type[Operation]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


# written as its own class says: those of other packages are none of the union
AnyOperation = Annotated[_Kinds, WrapValidator(_read), PlainSerializer(plain)]


@settings
class AugmentConfig:
    """One map for everything spatial, then a chain of named operations in their order.

    None for `spatial` leaves patches as they lie; None for an operation leaves it out. In a file a name
    alone stands for a preset (see `PRESETS`); of a mapping, what is not said comes from its `preset`. A
    training reads what is built in Python alike: to leave an operation out there too, give None for it.

    The operations of the preset keep their order. One of a new name stands before the one that is written
    after it (`{mine: {op: ...}, blur: {}}`), or last. One whose `op` is not the preset's has nothing of the
    preset's.
    """

    preset: str = "none"
    spatial: SpatialConfig | None = None
    chain: dict[str, AnyOperation | None] = field(default_factory=dict)


def preset(name: str, **changes: Any) -> AugmentConfig:
    """The augmentation of that name, with `changes` as a file would make them.

    Raises SettingsError where they do not fit.
    """
    return parse(AugmentConfig, completed(name)(changes), f"augmentation {name}")


def completed(name: str) -> Callable[[Any], Any]:
    """A function that fills what a file says of an augmentation from the preset it names, or from `name`."""

    def complete(said: Any) -> Any:
        if isinstance(said, str):
            said = {"preset": said}
        if not isinstance(said, Mapping):
            return said
        chosen = said.get("preset", name)
        if not isinstance(chosen, str) or chosen not in PRESETS:
            raise ValueError(f"there is no preset {chosen!r}, there are: {', '.join(PRESETS)}")
        base = {"preset": chosen, "spatial": None, "chain": {}, **PRESETS[chosen]}
        full = merged(base, said, tag="op")
        if isinstance(full["chain"], Mapping):
            order = _order(base["chain"], said.get("chain", {}))
            full["chain"] = {key: full["chain"][key] for key in order}
            _check_known(full["chain"], base["chain"], chosen)
        return full

    return complete


def _check_known(chain: Mapping[str, Any], of_preset: Iterable[str], name: str) -> None:
    """Raises ValidationError for settings of operations that are neither in the preset nor said to be new."""
    unknown = {key: value for key, value in chain.items() if isinstance(value, Mapping) and "op" not in value}
    if unknown:
        why = (
            f"the preset {name} has no operation of that name, it has: {', '.join(of_preset) or 'none'}; "
            f"a new one needs an `op`, one of: {', '.join(PLUGINS.names())}"
        )
        mistakes = [
            InitErrorDetails(type="value_error", loc=("chain", key), input=value, ctx={"error": why})
            for key, value in unknown.items()
        ]
        raise ValidationError.from_exception_data("augmentation", mistakes)


def _order(base: Iterable[str], said: Iterable[str]) -> list[str]:
    """The names of `base`, and each new one of `said` before the name that follows it there."""
    order, after = list(base), None
    for name in reversed(list(said)):
        if name not in order:
            order.insert(len(order) if after is None else order.index(after), name)
        after = name
    return order


def changed(
    image: Tensor, chain: Mapping[str, Operation | None], seed: int, spacing: Triple | None = None
) -> Tensor:
    """The image (C, Z, Y, X) after every operation that the seed chooses; it may be overwritten.

    Each operation has numbers of its own, by its name in the chain: none shifts those of another. `spacing`
    (z, y, x) is what lengths in a TorchIO transform are measured by: voxels where it is None. For images that
    no labels go along with; where a map tells of their voxels, see `check_intensity_only`.
    """
    return _through(image, None, chain, seed, spacing)[0]


def changed_with_labels(
    image: Tensor,
    labels: Tensor,
    chain: Mapping[str, Operation | None],
    seed: int,
    spacing: Triple | None = None,
) -> tuple[Tensor, Tensor]:
    """The same, and labels (C, Z, Y, X) that follow what moves voxels; both may be overwritten."""
    image, moved = _through(image, labels, chain, seed, spacing)
    assert moved is not None
    return image, moved


def _through(
    image: Tensor,
    labels: Tensor | None,
    chain: Mapping[str, Operation | None],
    seed: int,
    spacing: Triple | None,
) -> tuple[Tensor, Tensor | None]:
    for name, operation in chain.items():
        draws = Draws((seed, zlib.crc32(name.encode())))
        if operation is None or not draws.chance(operation.probability):
            continue
        if isinstance(operation, TorchIO):
            image, labels = operation.on_both(image, labels, draws, spacing or (1.0, 1.0, 1.0))
        else:
            image = operation(image, draws)
    return image, labels


def check_intensity_only(augment: AugmentConfig, where: str) -> None:
    """Raises UserError for an operation that moves voxels in a way that no map tells of.

    `where` is the key of the augmentation.
    """
    for name, operation in augment.chain.items():
        if isinstance(operation, TorchIO) and operation.is_spatial:
            raise UserError(
                f"{where}.chain.{name}",
                found=f"TorchIO's {operation.transform} may move what is in the image",
                rule="Views come with the exact map to their volume, which cannot tell of that",
                remedy=f"Leave it out; turns, scales, shear and flips are set in {where}.spatial",
            )
