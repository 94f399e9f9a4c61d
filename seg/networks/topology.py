"""From a plan to the levels of a network; translates and decides nothing."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from ...data.plan import Training
from ...data.settings import settings

Triple = tuple[int, int, int]
# a file may describe any network; what it describes is built before its tensors are compared with it
MOST_LEVELS, MOST_FEATURES, MOST_BLOCKS = 12, 4096, 100
_Features = Annotated[int, Field(ge=1, le=MOST_FEATURES)]
_Extent = Annotated[int, Field(ge=1, le=32)]
_Extents = tuple[_Extent, _Extent, _Extent]
_Blocks = Annotated[int, Field(ge=1, le=MOST_BLOCKS)]


@settings
class Topology:
    """Levels of an encoder-decoder, finest first.

    `features[i]` and `kernels[i]` belong to level i; `strides[i]` leads from level i to level i + 1.
    `blocks[i]` are the residual blocks of encoder level i; a network without such blocks has none.
    """

    features: Annotated[tuple[_Features, ...], Field(max_length=MOST_LEVELS)]
    kernels: Annotated[tuple[_Extents, ...], Field(max_length=MOST_LEVELS)]
    strides: Annotated[tuple[_Extents, ...], Field(max_length=MOST_LEVELS)]
    blocks: Annotated[tuple[_Blocks, ...], Field(max_length=MOST_LEVELS)] = ()

    def __post_init__(self) -> None:
        """Raises ValueError where the parts differ in their number of levels."""
        levels = len(self.features)
        if not levels or len(self.kernels) != levels or len(self.strides) != levels - 1:
            raise ValueError(
                f"{levels} levels have as many kernels, not {len(self.kernels)}, "
                f"and strides between them, not {len(self.strides)}"
            )
        if self.blocks and (len(self.blocks) != levels or min(self.blocks) < 1):
            raise ValueError(f"residual blocks {self.blocks}: each of {levels} levels has one or more")


def topology(training: Training, blocks: Sequence[int] = ()) -> Topology:
    """The levels a plan asks for. Kernels are 3 voxels wide, 1 along an axis of one slice.

    `blocks` are the residual blocks of each level from the finest, the last number for all that are deeper.
    """
    levels = len(training.strides) + 1
    kernel = tuple(1 if extent == 1 else 3 for extent in training.patch)
    return Topology(
        features=tuple(min(training.width * 2**i, training.max_width) for i in range(levels)),
        kernels=(kernel,) * levels,  # type: ignore[arg-type]
        strides=training.strides,
        blocks=tuple(blocks[min(i, len(blocks) - 1)] for i in range(levels)) if blocks else (),
    )
