"""Two views of a volume, beside TorchIO's: a large box made smaller or as it is, and a small one enlarged."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from ...data.augment.chain import AnyOperation, changed
from ...data.augment.draws import Draws
from ...data.augment.intensity import Blur, Gamma, Noise
from ...data.augment.spatial import SpatialConfig, draw_turn
from ...data.cut import cut_image
from ...data.store import Store
from ...data.volume import Shape
from ...ssl.box import Box
from ...ssl.views import view_map
from .figure import Figure, measured
from .torchio_patches import TorchIOViews
from .volumes import spelled

CHAIN: dict[str, AnyOperation] = {
    "noise": Noise(probability=0.5, deviation=(0.0, 0.1)),
    "blur": Blur(probability=0.5, sigma=(0.5, 1.0)),
    "gamma": Gamma(probability=0.5, gamma=(0.7, 1.5)),
}


def two_view_figures(store: Store, patch: Shape, samples: int, runs: int) -> Iterator[Figure]:
    """Ours, read from the store, beside TorchIO's of volumes in memory; never turned, and always.

    The keys are of a global box that is made smaller, as most are in a pretraining; then of one that TorchIO
    need not touch, as it has the extent of its view.
    """
    z, y, x = patch
    local, shapes = (z // 2, y // 2, x // 2), (patch, (z * 2 // 3, y * 2 // 3, x * 2 // 3))
    for large, keys in (
        ((z * 4 // 3, y * 4 // 3, x * 4 // 3), ("two_view_vs_torchio", "two_view_turned_vs_torchio")),
        (patch, (None, None)),
    ):
        boxes = (large, local)
        sizes = " and ".join(
            f"{spelled(of_box)} to {spelled(shape)}" for of_box, shape in zip(boxes, shapes, strict=True)
        )
        for turned, key in zip((False, True), keys, strict=True):
            ours = TwoViews(store, boxes, shapes, turned=turned)
            theirs = TorchIOViews(store, boxes, shapes, turned=turned)
            yield measured(
                "supply",
                f"two views, {sizes}, {'always' if turned else 'not'} turned",
                lambda k, ours=ours: ours.samples(samples, k),
                "TorchIO, volumes in memory",
                lambda k, theirs=theirs: theirs.samples(samples, k),
                runs,
                items=samples,
                their_items=samples,
                key=key,
            )


class TwoViews:
    """Views as a pretraining has them: read from the store and interpolated once, wherever they lie."""

    def __init__(
        self, store: Store, boxes: tuple[Shape, Shape], shapes: tuple[Shape, Shape], *, turned: bool
    ) -> None:
        self.store, self.cases, self._boxes, self._shapes = store, sorted(store.cases), boxes, shapes
        self._spatial = SpatialConfig(rotation_probability=float(turned), scale_probability=0.0)

    def samples(self, count: int, seed: int) -> list[list[Tensor]]:
        """So many samples, the volumes in turn."""
        draws = Draws((seed,))
        return [self._sample(self.cases[k % len(self.cases)], draws) for k in range(count)]

    def _sample(self, case: str, draws: Draws) -> list[Tensor]:
        return [
            self._view(case, np.array(box), shape, draws)
            for box, shape in zip(self._boxes, self._shapes, strict=True)
        ]

    def _view(self, case: str, size: np.ndarray, shape: Shape, draws: Draws) -> Tensor:
        start = draws.numbers.uniform(0, np.subtract(self.store.cases[case].shape, size))
        turn = draw_turn(shape, self.store.plan.preprocessing.spacing, self._spatial, draws)
        affine = view_map(Box(start=start, size=size), turn, shape)
        image = cut_image(self.store, case, affine, shape).image()
        return changed(image, CHAIN, int(draws.numbers.integers(2**62)))
