"""Grey values of a channel, measured piece by piece."""

import math
from itertools import count

import numpy as np

from .settings import settings
from .slabs import parts
from .volume import Voxels

# voxels of which percentiles are taken where there are more: their error is then far below a percent
_SAMPLE = 2**22


@settings
class Intensity:
    """Grey values of one channel of one case."""

    lowest: float
    percentile_0_5: float
    median: float
    percentile_99_5: float
    highest: float
    mean: float
    std: float


class IntensityMeter:
    """Measures the grey values of a channel of `voxels` voxels, added in their order.

    Percentiles are those of every n-th voxel in volumes of more than four million, whatever the pieces. n has
    no divisor in common with any extent: every 2048th of 2048^3 voxels would be those of one border.
    """

    def __init__(self, voxels: int) -> None:
        least = max(1, math.ceil(voxels / _SAMPLE))
        self._step = next(n for n in count(least) if math.gcd(n, voxels) == 1)
        self._seen, self._mean, self._squares = 0, 0.0, 0.0
        self._lowest, self._highest = math.inf, -math.inf
        self._sample: list[np.ndarray] = []

    def add(self, piece: np.ndarray) -> None:
        """Takes in the next voxels; all must be finite."""
        values = piece.ravel()
        self._sample.append(values[-self._seen % self._step :: self._step].copy())
        self._lowest = min(self._lowest, float(values.min()))
        self._highest = max(self._highest, float(values.max()))
        mean = float(values.mean(dtype=np.float64))
        squares = float(values.var(dtype=np.float64)) * values.size
        # Chan, Golub and LeVeque 1979: moments of the union of two samples
        total, difference = self._seen + values.size, mean - self._mean
        self._squares += squares + difference**2 * self._seen * values.size / total
        self._mean += difference * values.size / total
        self._seen = total

    def result(self) -> Intensity:
        """What was measured."""
        # numpy takes differences in the type of the voxels, where they may overflow
        sample = np.concatenate(self._sample).astype(np.float64)
        low, middle, high = np.percentile(sample, (0.5, 50, 99.5))
        return Intensity(
            lowest=self._lowest,
            percentile_0_5=float(low),
            median=float(middle),
            percentile_99_5=float(high),
            highest=self._highest,
            mean=self._mean,
            std=math.sqrt(self._squares / self._seen),
        )


def measure(channel: Voxels) -> Intensity:
    """The grey values of one channel (1, Z, Y, X), all of them finite."""
    meter = IntensityMeter(math.prod(channel.shape))
    for _, part in parts(channel):
        meter.add(part)
    return meter.result()
