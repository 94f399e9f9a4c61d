"""Views of unannotated volumes: SmartPatch boxes, read and turned in one interpolation, then augmented."""

from collections.abc import Generator, Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import BeforeValidator
from torch import Tensor

from ..data.augment.chain import AugmentConfig, changed, completed, preset
from ..data.augment.draws import Draws
from ..data.augment.spatial import draw_turn, patch_map
from ..data.cut import cut_image
from ..data.errors import UserError
from ..data.loader import step_seed
from ..data.settings import settings
from ..data.store import Store
from ..data.supply import CPU, supplied
from ..data.volume import Shape
from .method import Views, ViewSpec
from .smartpatch import Box, SmartPatchConfig, draw_boxes, padded_share


@settings
class ViewConfig:
    """How views are drawn and changed."""

    boxes: SmartPatchConfig = SmartPatchConfig()
    augment: Annotated[AugmentConfig, BeforeValidator(completed("views"))] = preset("views")


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
        return self.finish(self.read(step))

    def batches(
        self, first: int, last: int, *, workers: int = 0, device: torch.device = CPU
    ) -> Generator[Views, None, None]:
        """The batches of steps `first` to `last` - 1, made while others are used (see `supplied`)."""
        return supplied(self, first, last, workers=workers, device=device)

    def cases_of(self, step: int) -> tuple[str, ...]:
        """The cases of the batch of a step."""
        per_round = len(self.cases) // self.batch_size
        order = np.random.default_rng([self.seed, 3, step // per_round]).permutation(len(self.cases))
        first = step % per_round * self.batch_size
        return tuple(self.cases[i] for i in order[first : first + self.batch_size])

    def read(self, step: int) -> tuple[Views, ...]:
        """The views of a step, before they are on a device."""
        progress = step / max(1, self.steps - 1)
        return (self.views(self.cases_of(step), step_seed(self.seed, step), progress),)

    def finish(self, read: tuple[Views, ...]) -> Views:
        """The batch made of what was read."""
        return read[0]

    def views(self, cases: Sequence[str], seed: int, progress: float) -> Views:
        """Views of the given cases, all drawn from `seed`, at the share `progress` of the training."""
        draws = Draws((seed,))
        boxes = [
            draw_boxes(
                self.store.cases[case].shape,
                self.patch,
                self.spec.count,
                progress,
                self.config.boxes,
                draws.numbers,
            )
            for case in cases
        ]
        views = [
            torch.stack(
                [self._view(case, of_case[v], draws) for case, of_case in zip(cases, boxes, strict=True)]
            )
            for v in range(self.spec.count)
        ]
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

    def _view(self, case: str, box: Box, draws: Draws) -> Tensor:
        spacing, spatial = self.store.plan.preprocessing.spacing, self.config.augment.spatial
        turn = np.eye(3) if spatial is None else draw_turn(self.patch, spacing, spatial, draws)
        image = cut_image(self.store, case, view_map(box, turn, self.patch), self.patch).image()
        return changed(image, self.config.augment.chain, int(draws.numbers.integers(2**62)))


def view_map(box: Box, turn: np.ndarray, shape: Shape) -> np.ndarray:
    """The map (3, 4) from indices of a view's voxels to the volume's, for a box turned around its centre."""
    linear = (box.size / shape)[:, None] * turn
    return patch_map(linear, box.start + box.size / 2 - 0.5, (np.array(shape) - 1) / 2)


def evenly(cases: Sequence[str], count: int) -> tuple[str, ...]:
    """`count` of the cases, evenly spread over the list; all of them where there are fewer."""
    count = min(count, len(cases))
    return tuple(cases[i * len(cases) // count] for i in range(count))
