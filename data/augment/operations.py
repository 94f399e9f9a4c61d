"""What an operation on grey values is."""

from typing import Annotated, Protocol

from pydantic import AfterValidator, Field
from torch import Tensor

from ..settings import Probability
from .draws import Draws

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


def ascending(limits: tuple[float, float]) -> tuple[float, float]:
    """The limits themselves; raises ValueError where the larger one comes first."""
    if limits[0] > limits[1]:
        raise ValueError("the smaller end of a range comes first")
    return limits


Range = Annotated[tuple[NotNegative, NotNegative], AfterValidator(ascending)]
PositiveRange = Annotated[tuple[Positive, Positive], AfterValidator(ascending)]


class Operation(Protocol):
    """A change of grey values: settings, and what they do to one item.

    `op` is its name in a configuration. `probability` is how often an item is changed; who applies the chain
    draws that. A call gets the image (C, Z, Y, X), float32 on any device, z-scored, and all random numbers
    from `draws`; it may overwrite the image, and returns it or another one of the same shape.
    """

    @property
    def op(self) -> str: ...  # noqa: D102

    @property
    def probability(self) -> Probability: ...  # noqa: D102

    def __call__(self, image: Tensor, draws: Draws) -> Tensor: ...  # noqa: D102
