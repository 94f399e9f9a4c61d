"""From the axes that volumes have in plans to (z, y, x)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..networks.topology import Topology, Triple
from .limits import refused
from .plans import Plans

_AXES: Triple = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """From the axes of plans to (z, y, x): axis i of ours is axis `order[i]` of theirs."""

    order: Triple

    @classmethod
    def of(cls, plans: Plans, where: Path) -> "Turn":
        """The way back from `transpose_forward`."""
        if sorted(plans.transpose_forward) != [0, 1, 2]:
            raise refused(where, f"transpose_forward {plans.transpose_forward}")
        z, y, x = (plans.transpose_forward.index(axis) for axis in _AXES)
        return cls(order=(z, y, x))

    def triple(self, values: Any) -> Any:
        """Three values in the order of our axes."""
        return tuple(values[axis] for axis in self.order)

    def topology(self, theirs: Topology) -> Topology:
        """The levels in our axes."""
        return replace(
            theirs,
            kernels=tuple(self.triple(kernel) for kernel in theirs.kernels),
            strides=tuple(self.triple(stride) for stride in theirs.strides),
        )

    def tensors(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors with their spatial axes, where they have some, in our order."""
        spatial = [2 + axis for axis in self.order]
        return {
            name: tensor.permute(0, 1, *spatial).contiguous() if tensor.ndim == 5 else tensor
            for name, tensor in theirs.items()
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done, if anything."""
        if self.order == _AXES:
            return ()
        return (
            f"it was trained on transposed volumes: axes of kernels, spacing and patch put as {self.order}",
        )
