"""A volume: voxels, what they measure in space, and where they came from."""

import re
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol, Self

import numpy as np

from .units import factor

Triple = tuple[float, float, float]
Shape = tuple[int, int, int]
# RAS: the axes point to the patient's right, front and head; stored: the file does not know
Orientation = Literal["RAS", "stored"]
IDENTITY: tuple[Triple, Triple, Triple] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
# names that stand for none, where the files tell none
_NAMELESS = re.compile(r"channel\d+")


class Voxels(Protocol):
    """What an array in memory and one on disk have in common; slicing reads what the slice touches."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def dtype(self) -> np.dtype: ...  # noqa: D102

    def __getitem__(self, key: Any, /) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenVolume:
    """Voxels `(C, Z, Y, X)`, in memory or still on disk, and their geometry.

    A voxel's place in the world is `origin + direction @ (spacing * (z, y, x))`; every vector and matrix
    is in z, y, x order. NIfTI volumes are turned to the closest RAS orientation (x to the right, y to the
    front, z up); formats that know no orientation stand as stored.

    `spacing` and `unit` are None where the file does not say: nothing is ever assumed to be 1.
    `source` is what the format needs to write a result in the geometry of the file.
    """

    array: Voxels
    spacing: Triple | None = None
    unit: str | None = None
    origin: Triple = (0.0, 0.0, 0.0)
    direction: tuple[Triple, Triple, Triple] = IDENTITY
    orientation: Orientation = "stored"
    channels: tuple[str, ...] = ()
    source: Any = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if len(self.array.shape) != 4:
            raise ValueError(f"a volume is (C, Z, Y, X), not an array of shape {self.array.shape}")
        if not self.channels:
            names = tuple(f"channel{c}" for c in range(self.array.shape[0]))
            object.__setattr__(self, "channels", names)
        if len(self.channels) != self.array.shape[0]:
            raise ValueError(f"{len(self.channels)} channel names for {self.array.shape[0]} channels")

    @property
    def shape(self) -> Shape:
        """Extent in voxels, (Z, Y, X)."""
        z, y, x = self.array.shape[1:]
        return z, y, x

    def in_unit(self, unit: str | None) -> Self:
        """The same volume with its spacing and origin told in `unit` ("um", "mm", ...)."""
        if unit == self.unit or unit is None or self.unit is None or self.spacing is None:
            return self
        f = factor(self.unit, unit)
        return replace(self, spacing=_times(self.spacing, f), origin=_times(self.origin, f), unit=unit)

    def load(self) -> "Volume":
        """The same with every voxel in memory."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Volume(**{**values, "array": np.ascontiguousarray(self.array[:])})


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume(OpenVolume):
    """A volume whose voxels are in memory."""

    array: np.ndarray


def _times(vector: Triple, f: float) -> Triple:
    z, y, x = vector
    return z * f, y * f, x * f


def is_named(channel: str) -> bool:
    """Whether a channel's name means something: files that tell none have "channel0", "channel1", ..."""
    return _NAMELESS.fullmatch(channel) is None
