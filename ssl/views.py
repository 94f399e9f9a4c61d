"""Views of unannotated volumes: SmartPatch boxes, read and turned in one interpolation, then augmented."""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from pydantic import BeforeValidator
from torch import Tensor

from ..data.augment.chain import AugmentConfig, changed, check_intensity_only, completed, preset
from ..data.augment.draws import Draws
from ..data.augment.spatial import draw_turn, patch_map
from ..data.cut import Cut, cut_image
from ..data.errors import UserError
from ..data.loader import step_seed
from ..data.making import making
from ..data.settings import settings
from ..data.share import WHOLE, Share
from ..data.store import Store
from ..data.supply import CPU, supplied
from ..data.volume import Shape
from .fit import Fit, fit
from .method import Views, ViewSpec
from .smartpatch import Box, Frame, SmartPatchConfig, draw_boxes


@settings
class ViewConfig:
    """How views are drawn and changed."""

    boxes: SmartPatchConfig = SmartPatchConfig()
    augment: Annotated[AugmentConfig, BeforeValidator(completed("views"))] = preset("views")


@dataclass(frozen=True, kw_only=True)
class ReadItem:
    """What was read for the views of one volume, their maps (3, 4) to it, and the seed of their changes."""

    case: str
    cuts: tuple[Cut, ...]
    maps: tuple[np.ndarray, ...]
    seed: int

    def to(self, device: torch.device) -> "ReadItem":
        """The same on another device."""
        return replace(self, cuts=tuple(cut.to(device) for cut in self.cuts))


class ViewSampler:
    """Batches of views, each a function of seed and step alone.

    Every volume comes equally often: a round is a shuffle of all volumes, cut into batches; what does not
    fill a batch waits for the next shuffle. So the volumes of a batch are distinct. `steps` is the
    length of the training, by which the schedule of the boxes goes. `shapes` are those of an item's views.

    Where several processes train together, each has its `share` of a batch that is as large as all of theirs:
    they see what one process with such a batch would, and all make the same number of steps.
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
        share: Share = WHOLE,
    ) -> None:
        if len(cases) < share.of * batch:
            raise UserError(
                f"batch {batch}" + (f" in each of {share.of} processes" if share.of > 1 else ""),
                found=f"{len(cases)} volumes to pretrain on",
                rule="The volumes of a batch are distinct",
                remedy="Add volumes, or set a smaller batch"
                + (" or fewer processes" if share.of > 1 else ""),
            )
        _check_exact(config.augment)
        self.store, self.cases, self.patch = store, tuple(cases), patch
        self.batch_size, self.spec, self.config = batch, spec, config
        self.seed, self.steps, self.share = seed, steps, share
        outputs = [_output(store, patch, name, config.boxes) for name in ("global_boxes", "local_boxes")]
        self.shapes = (outputs[0],) * spec.global_views + (outputs[1],) * spec.local_views

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
        per_round = len(self.cases) // (self.share.of * self.batch_size)
        order = np.random.default_rng([self.seed, 3, step // per_round]).permutation(len(self.cases))
        return tuple(self.cases[order[k]] for k in self.share.items(step % per_round, self.batch_size))

    def read(self, step: int) -> tuple[ReadItem, ...]:
        """What of the store the batch of a step is made of."""
        progress = step / max(1, self.steps - 1)
        first = self.share.index * self.batch_size
        return self._read(self.cases_of(step), step_seed(self.seed, step), progress, first)

    def finish(self, items: Sequence[ReadItem]) -> Views:
        """The batch made of what was read, on the device where that is."""
        finished = [self._finished(item) for item in items]
        return Views(
            views=tuple(torch.stack(of_items) for of_items in zip(*finished, strict=True)),
            maps=tuple(
                torch.from_numpy(np.stack(of_items)).to(finished[0][0].device)
                for of_items in zip(*(item.maps for item in items), strict=True)
            ),
            cases=tuple(item.case for item in items),
            # another one for the method, or its draws would go along with those of the views
            seed=step_seed(items[0].seed, 0),
        )

    def views(self, cases: Sequence[str], seed: int, progress: float) -> Views:
        """Views of the given cases, all drawn from `seed`, at the share `progress` of the training."""
        return self.finish(self._read(cases, seed, progress))

    def fit(self) -> Fit:
        """What of the boxes the volumes cannot give."""
        frames = {case: self._frame(case) for case in self.cases}
        return fit(frames, self.spec.global_views, self.spec.local_views, self.config.boxes, self.seed)

    @property
    def patches(self) -> int:
        """How many patches have as many voxels as all the views of an item, rounded up."""
        return math.ceil(sum(math.prod(shape) for shape in self.shapes) / math.prod(self.patch))

    def _frame(self, case: str) -> Frame:
        spacing = self.store.plan.preprocessing.spacing
        return Frame(extent=self.store.cases[case].shape, patch=self.patch, spacing=spacing)

    def _read(self, cases: Sequence[str], seed: int, progress: float, first: int = 0) -> tuple[ReadItem, ...]:
        return tuple(self._item(case, Draws((seed, i)), progress) for i, case in enumerate(cases, first))

    def _item(self, case: str, draws: Draws, progress: float) -> ReadItem:
        with making((case,)):
            return self._read_of(case, draws, progress)

    def _read_of(self, case: str, draws: Draws, progress: float) -> ReadItem:
        spec, frame = self.spec, self._frame(case)
        boxes = draw_boxes(
            frame, spec.global_views, spec.local_views, progress, self.config.boxes, draws.numbers
        )
        maps = [
            on_slice(view_map(box, self._turn(box, draws), shape), frame.extent, shape)
            for box, shape in zip(boxes, self.shapes, strict=True)
        ]
        return ReadItem(
            case=case,
            cuts=tuple(
                cut_image(self.store, case, affine, shape)
                for affine, shape in zip(maps, self.shapes, strict=True)
            ),
            maps=tuple(maps),
            seed=int(draws.numbers.integers(2**62)),
        )

    def _turn(self, box: Box, draws: Draws) -> np.ndarray:
        spatial = self.config.augment.spatial
        if spatial is None:
            return np.eye(3)
        z, y, x = np.maximum(1, np.rint(box.size)).astype(int).tolist()
        return draw_turn((z, y, x), self.store.plan.preprocessing.spacing, spatial, draws)

    def _finished(self, item: ReadItem) -> list[Tensor]:
        chain, spacing = self.config.augment.chain, self.store.plan.preprocessing.spacing
        with making((item.case,)):
            return [
                changed(cut.image(), chain, step_seed(item.seed, v + 1), spacing)
                for v, cut in enumerate(item.cuts)
            ]


def view_map(box: Box, turn: np.ndarray, shape: Shape) -> np.ndarray:
    """The map (3, 4) from indices of a view's voxels to the volume's, for a box turned around its centre.

    `turn` (3, 3) is between offsets in the volume's voxels: first the view is scaled to the box, then turned.
    """
    return patch_map(turn * (box.size / shape), box.start + box.size / 2 - 0.5, (np.array(shape) - 1) / 2)


def on_slice(affine: np.ndarray, extent: Shape, shape: Shape) -> np.ndarray:
    """The map (3, 4), moved onto the slice along an axis on which volume and view have no more than one.

    Boxes smaller than a voxel would lead beside it, where there is nothing.
    """
    moves = np.abs(affine[:, :3]) @ (np.array(shape) - 1)
    place = np.where((np.array(extent) == 1) & (moves == 0), 0.0, affine[:, 3])
    return np.column_stack([affine[:, :3], place])


def _check_exact(augment: AugmentConfig) -> None:
    """Views carry their maps, so whatever is spatial has to be affine: raises UserError where it is not."""
    check_intensity_only(augment, "views.augment")
    if augment.spatial is not None and augment.spatial.elastic_probability > 0:
        raise UserError(
            "views.augment.spatial.elastic_probability",
            found=f"{augment.spatial.elastic_probability}",
            rule="Views are turned and scaled, never bent: methods are told exactly where each voxel lies",
            remedy=f"Set views.augment.preset={augment.preset} and "
            "views.augment.spatial.elastic_probability=0: all else of the preset stays",
        )


def _output(store: Store, patch: Shape, group: str, boxes: SmartPatchConfig) -> Shape:
    """The shape of a group's views; raises UserError where the network cannot take it."""
    output = getattr(boxes, group).output
    if output is None:
        return patch
    strides = store.plan.training.strides
    multiple = tuple(math.prod(stride[axis] for stride in strides) for axis in range(3))
    if any(n % m for n, m in zip(output, multiple, strict=True)):
        raise UserError(
            f"views.boxes.{group}.output",
            found=f"{tuple(output)}",
            rule=f"Each axis is a multiple of {multiple}, the product of the plan's strides",
            remedy="Choose such an output, or null for the patch",
        )
    return output


def evenly(cases: Sequence[str], count: int) -> tuple[str, ...]:
    """`count` of the cases, evenly spread over the list; all of them where there are fewer."""
    count = min(count, len(cases))
    return tuple(cases[i * len(cases) // count] for i in range(count))
