"""From a plan to the levels of a network; translates and decides nothing."""

from ...data.plan import Training
from ...data.settings import settings

Triple = tuple[int, int, int]


@settings
class Topology:
    """Levels of an encoder-decoder, finest first.

    `features[i]` and `kernels[i]` belong to level i; `strides[i]` leads from level i to level i + 1.
    """

    features: tuple[int, ...]
    kernels: tuple[Triple, ...]
    strides: tuple[Triple, ...]


def topology(training: Training) -> Topology:
    """The levels a plan asks for. Kernels are 3 voxels wide, 1 along an axis of one slice."""
    levels = len(training.strides) + 1
    kernel = tuple(1 if extent == 1 else 3 for extent in training.patch)
    return Topology(
        features=tuple(min(training.width * 2**i, training.max_width) for i in range(levels)),
        kernels=(kernel,) * levels,  # type: ignore[arg-type]
        strides=training.strides,
    )
