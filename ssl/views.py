"""Views of unannotated volumes: SmartPatch boxes, read and turned in one interpolation, then augmented."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.augment.intensity import IntensityConfig, change_intensity
from ..data.augment.spatial import SpatialConfig, apply_maps, random_maps
from ..data.boxes import read_box
from ..data.errors import UserError
from ..data.loader import prefetched, step_seed
from ..data.settings import settings
from ..data.store import Store
from ..data.volume import Shape
from .method import Views, ViewSpec
from .smartpatch import Box, SmartPatchConfig, draw_boxes, padded_share


@settings
class ViewConfig:
    """How views are drawn and changed; None for `spatial` or `intensity` leaves that part out.

    Views are turned and changed more often than supervised patches (half of them are turned): what a
    pretext task must not tell views apart by has to differ between them. Scaling is left to `boxes.zoom`.
    """

    boxes: SmartPatchConfig = SmartPatchConfig()
    spatial: SpatialConfig | None = SpatialConfig(rotation_probability=0.5, scale_probability=0.0)
    intensity: IntensityConfig | None = IntensityConfig(
        noise_probability=0.3,
        blur_probability=0.3,
        brightness_probability=0.3,
        contrast_probability=0.3,
        gamma_probability=0.5,
    )


class ViewSampler:
    """Batches of views, each a function of seed and step alone.

    Every volume comes equally often: a round is a shuffle of all volumes, cut into batches; what does not
    fill a batch waits for the next shuffle. So the volumes of a batch are distinct. `steps` is the
    length of the training, by which the schedule of the boxes goes.
    """

    def __init__(
        self,
        store: Store,
        cases: Sequence[str],
        patch: Shape,
        batch: int,
        spec: ViewSpec,
        config: ViewConfig,
        seed: int,
        steps: int,
    ) -> None:
        if len(cases) < batch:
            raise UserError(
                f"batch {batch}",
                found=f"{len(cases)} volumes to pretrain on",
                rule="The volumes of a batch are distinct",
                remedy="Add volumes, or set a smaller batch",
            )
        self.store, self.cases, self.patch = store, tuple(cases), patch
        self.batch_size, self.spec, self.config = batch, spec, config
        self.seed, self.steps = seed, steps

    def batch(self, step: int) -> Views:
        """The batch of a training step (from 0)."""
        per_round = len(self.cases) // self.batch_size
        order = np.random.default_rng([self.seed, 3, step // per_round]).permutation(len(self.cases))
        first = step % per_round * self.batch_size
        cases = tuple(self.cases[i] for i in order[first : first + self.batch_size])
        return self.views(cases, step_seed(self.seed, step), step / max(1, self.steps - 1))

    def batches(self, first: int, last: int) -> Iterator[Views]:
        """The batches of steps `first` to `last` - 1, the next one made while one is used."""
        return prefetched(self.batch, first, last)

    def views(self, cases: Sequence[str], seed: int, progress: float) -> Views:
        """Views of the given cases, all drawn from `seed`, at the share `progress` of the training."""
        rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        boxes = [
            draw_boxes(
                self.store.cases[case].shape, self.patch, self.spec.count, progress, self.config.boxes, rng
            )
            for case in cases
        ]
        views = []
        for v in range(self.spec.count):
            maps = self._maps(len(cases), generator)
            images = torch.cat(
                [
                    read_view(self.store, case, of_case[v], self.patch, turn)
                    for case, of_case, turn in zip(cases, boxes, maps, strict=True)
                ]
            )
            if self.config.intensity is not None:
                images = change_intensity(images, self.config.intensity, generator)
            views.append(images)
        # another one for the method, or its draws would go along with those of the views
        return Views(views=tuple(views), cases=tuple(cases), seed=step_seed(seed, 0))

    def padding(self) -> str:
        """What share of the views lies outside their volumes, in words; and of which volumes most does."""
        extents = {case: self.store.cases[case].shape for case in self.cases}
        shares = {case: padded_share(n, self.patch, self.config.boxes) for case, n in extents.items()}
        told = f"{sum(shares.values()) / len(shares):.0%} of the views lies outside their volumes"
        mostly = [case for case, share in shares.items() if share > 0.5]
        if not mostly:
            return told
        listed = ", ".join(mostly[:5]) + (f" and {len(mostly) - 5} more" if len(mostly) > 5 else "")
        return f"warning: {told}, and most of those of {listed}: set a smaller patch"

    def _maps(self, count: int, generator: torch.Generator) -> Tensor:
        if self.config.spatial is None:
            return torch.eye(3, dtype=torch.float64).expand(count, 3, 3)
        spacing = self.store.plan.preprocessing.spacing
        return random_maps(count, self.patch, spacing, self.config.spatial, generator)


def read_view(store: Store, case: str, box: Box, patch: Shape, turn: Tensor) -> Tensor:
    """The view (1, C, *patch) of a box, turned by `turn` (3, 3) around its centre; 0 outside the volume.

    Crop, turn and resize are one linear interpolation, from the coarsest level of the store that is at
    least as fine as the view.
    """
    # from voxels of the view to voxels of the volume, around the centres of view and box
    linear = np.diag(box.size / patch) @ turn.numpy()
    levels = store.cases[case].levels
    level = max(i for i, factor in enumerate(levels) if _as_fine(factor, linear))
    factor = np.array(levels[level])
    linear = linear / factor[:, None]
    centre = (box.start + box.size / 2) / factor - 0.5
    reach = np.abs(linear) @ ((np.array(patch) - 1) / 2)
    # a single slice has one place: off it, its grey values would be mixed with the 0 outside
    stored = store.image(case, level)
    single = np.array(stored.shape[-3:]) == 1
    centre = np.where(single & (reach == 0), 0.0, centre)
    low, high = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int)
    z, y, x = high - low + 1
    image = torch.from_numpy(read_box(stored, low, (int(z), int(y), int(x))))
    shift = torch.from_numpy(centre - (low + high) / 2)
    return apply_maps(image[None], torch.from_numpy(linear)[None], patch, shifts=shift[None])


def _as_fine(factor: tuple[int, int, int], linear: np.ndarray) -> bool:
    """Whether a level's voxels are no larger than the view's steps along each axis of the volume."""
    steps = np.linalg.norm(linear, axis=1)
    return all(f == 1 or f <= step * (1 + 1e-6) for f, step in zip(factor, steps, strict=True))


def evenly(cases: Sequence[str], count: int) -> tuple[str, ...]:
    """`count` of the cases, evenly spread over the list; all of them where there are fewer."""
    count = min(count, len(cases))
    return tuple(cases[i * len(cases) // count] for i in range(count))
