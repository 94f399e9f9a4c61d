"""What of the boxes that a training asks for its volumes cannot give, told before it starts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .smartpatch import Frame, SmartPatchConfig, draw_boxes, too_far

_LOOKS = 8  # samples of each volume, over the whole training


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Shares of the boxes of some volumes, over a training.

    `outside` is, for each volume, how much of its views lies outside it; `cut`, how many boxes were to be
    larger than what fits; `apart`, how many overlap the first one less than was asked.
    """

    outside: dict[str, float]
    cut: float
    apart: float

    def lines(self) -> list[str]:
        """What a user should know, in words."""
        found = [self._padding()]
        if self.cut:
            found.append(
                f"{self.cut:.0%} of the boxes were to be larger than their volumes: cut to what fits"
            )
        if self.apart:
            found.append(
                f"{self.apart:.0%} of the boxes overlap less than asked, as far as their volumes allow"
            )
        return found

    def _padding(self) -> str:
        told = f"{np.mean(list(self.outside.values())):.0%} of the views lies outside their volumes"
        mostly = [case for case, share in self.outside.items() if share > 0.5]
        if not mostly:
            return told
        listed = ", ".join(mostly[:5]) + (f" and {len(mostly) - 5} more" if len(mostly) > 5 else "")
        return f"warning: {told}, and most of those of {listed}: set a smaller patch"


def fit(
    frames: Mapping[str, Frame], global_views: int, local_views: int, config: SmartPatchConfig, seed: int
) -> Fit:
    """How the boxes of a training, before they are turned, fit the volumes: from a few samples of each."""
    rng = np.random.default_rng([seed, 4])
    outside, cut, apart = {}, [], []
    for case, frame in frames.items():
        shares = []
        for progress in np.linspace(0, 1, _LOOKS):
            boxes = draw_boxes(frame, global_views, local_views, progress, config, rng)
            shares += [box.outside(frame.extent) for box in boxes]
            cut += [box.cut for box in boxes]
            apart += [False] + [too_far(boxes[0], box, progress, config) for box in boxes[1:]]
        outside[case] = float(np.mean(shares))
    return Fit(outside=outside, cut=float(np.mean(cut)), apart=float(np.mean(apart)))
