"""An augmentation as settings: how patches are turned, then a chain of operations on their grey values."""

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from ..settings import parse, settings
from .draws import Draws
from .intensity import Blur, Brightness, Contrast, Gamma, Noise
from .operations import Operation
from .presets import PRESETS
from .spatial import SpatialConfig

AnyOperation = Annotated[Blur | Brightness | Contrast | Gamma | Noise, Field(discriminator="op")]


@settings
class AugmentConfig:
    """One map for everything spatial, then a chain of named operations in their order.

    None for `spatial` leaves patches as they lie; None for an operation leaves it out. In a file a name
    alone stands for a preset (see `PRESETS`); of a mapping, what is not said comes from its `preset`, and
    operations of new names follow those of the preset.
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
        if chosen not in PRESETS:
            raise ValueError(f"there is no preset {chosen!r}, there are: {', '.join(PRESETS)}")
        return _merged({"preset": chosen, "spatial": None, "chain": {}, **PRESETS[chosen]}, said)

    return complete


def _merged(base: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in said.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = _merged(below, value)
        result[key] = value
    return result


def changed(image: Tensor, chain: Mapping[str, Operation | None], seed: int) -> Tensor:
    """The image (C, Z, Y, X) after every operation that the seed chooses; it may be overwritten.

    Each operation has numbers of its own: none shifts those of another.
    """
    for place, operation in enumerate(chain.values()):
        draws = Draws((seed, place))
        if operation is not None and draws.chance(operation.probability):
            image = operation(image, draws)
    return image
