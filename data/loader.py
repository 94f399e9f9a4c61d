"""Batches of patches, each a function of seed and step alone."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from .augment.intensity import IntensityConfig, change_intensity
from .augment.spatial import SpatialConfig, apply_maps, random_maps, read_size
from .boxes import centred_start, random_start, read_box
from .labels import IGNORED
from .settings import settings
from .store import Store
from .volume import Shape

T = TypeVar("T")
_NOWHERE = np.empty((0, 3), np.int32)


@settings
class PatchConfig:
    """How patches are drawn and changed.

    `foreground_share` of the patches have a labelled voxel exactly in their middle (nnU-Net: a third; a
    half here, as Biom3d does, so that a batch of 2 has one). None for `spatial` or `intensity` leaves
    that part of the augmentation out.
    """

    foreground_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    spatial: SpatialConfig | None = SpatialConfig()
    intensity: IntensityConfig | None = IntensityConfig()


@dataclass(frozen=True, kw_only=True)
class PatchBatch:
    """Images (B, C, Z, Y, X) float32, labels int64, and the case of each item.

    Labels are class numbers (B, Z, Y, X), or 0 and 1 (B, K, Z, Y, X) where classes overlap; `IGNORED` where
    nobody annotated.
    """

    images: Tensor
    labels: Tensor
    cases: tuple[str, ...]

    def to(self, device: torch.device) -> "PatchBatch":
        """The same batch on another device."""
        return PatchBatch(
            images=self.images.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            cases=self.cases,
        )


class PatchSampler:
    """Labelled patches of some cases of a store.

    Every case comes equally often: item k of the training is case k of a shuffled round, a new shuffle
    each round. Which item is foreground-centred goes in turn, and its class is drawn evenly from those
    the case has. Nothing is remembered between batches, so a resumed run sees what it would have seen.

    Of a case that is annotated in part (it has positions of annotated background, under 0), the other
    patches have such a voxel in their middle, so that every patch has something to learn from. nnU-Net
    draws that voxel from background and foreground together; here foreground has a share of its own already.
    What lies beyond its border is `IGNORED`: beside a few annotated slices, padding would outweigh them.
    Around a case annotated whole it is background, as in nnU-Net.
    """

    def __init__(
        self, store: Store, cases: Sequence[str], patch: Shape, batch: int, config: PatchConfig, seed: int
    ) -> None:
        if not cases:
            raise ValueError("a sampler needs at least one case")
        self.store, self.cases, self.patch = store, tuple(cases), patch
        self.batch_size, self.config, self.seed = batch, config, seed
        self.foreground = {case: store.foreground(case) for case in self.cases}
        self.read = patch if config.spatial is None else read_size(patch, config.spatial)

    def batch(self, step: int) -> PatchBatch:
        """The batch of a training step (from 0)."""
        items = [self._item(step * self.batch_size + i) for i in range(self.batch_size)]
        cases = tuple(case for case, _, _ in items)
        images = torch.from_numpy(np.stack([image for _, image, _ in items]).astype(np.float32, copy=False))
        labels = torch.from_numpy(np.stack([label for _, _, label in items]).astype(np.int64))
        generator = torch.Generator().manual_seed(step_seed(self.seed, step))
        images, labels = self._augment(images, labels, cases, generator)
        return PatchBatch(images=images, labels=labels, cases=cases)

    def batches(self, first: int, last: int) -> Iterator[PatchBatch]:
        """The batches of steps `first` to `last` - 1, the next one made while one is used."""
        return prefetched(self.batch, first, last)

    def _item(self, k: int) -> tuple[str, np.ndarray, np.ndarray]:
        n = len(self.cases)
        order = np.random.default_rng([self.seed, 0, k // n]).permutation(n)
        case = self.cases[order[k % n]]
        rng = np.random.default_rng([self.seed, 1, k])
        start = self._start(case, rng, foreground=self._is_foreground(k))
        # the box that is read is larger than the patch and has the same centre
        start = start - (np.array(self.read) - self.patch) // 2
        # opened for each patch: an open array holds a file, and a process may hold a thousand
        image = read_box(self.store.image(case), start, self.read)
        return case, image, read_box(self.store.label(case), start, self.read, self._outside(case))

    def _outside(self, case: str) -> int:
        """The class number of what lies beyond the border of a case."""
        return IGNORED if 0 in self.foreground[case] else 0

    def _is_foreground(self, k: int) -> bool:
        share = self.config.foreground_share
        return int((k + 1) * share + 1e-9) > int(k * share + 1e-9)

    def _start(self, case: str, rng: np.random.Generator, *, foreground: bool) -> np.ndarray:
        middles = self._middles(case, rng, foreground=foreground)
        if not len(middles):
            return random_start(self.store.cases[case].shape, self.patch, rng)
        return centred_start(middles[rng.integers(len(middles))], self.patch)

    def _middles(self, case: str, rng: np.random.Generator, *, foreground: bool) -> np.ndarray:
        """Voxels (n, 3) of which one becomes the middle of a patch; none where it may lie anywhere."""
        positions = self.foreground[case]
        classes = sorted(c for c, of_class in positions.items() if c > 0 and len(of_class))
        background = positions.get(0, _NOWHERE)
        without_background = 0 in positions and not len(background)
        if classes and (foreground or without_background):
            return positions[classes[rng.integers(len(classes))]]
        return background

    def _augment(
        self, images: Tensor, labels: Tensor, cases: Sequence[str], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        if self.config.spatial is not None:
            spacing = self.store.plan.preprocessing.spacing
            maps = random_maps(len(images), self.patch, spacing, self.config.spatial, generator)
            images = apply_maps(images, maps, self.patch)
            labels = self._turned(labels, maps, cases)
        if self.config.intensity is not None:
            images = change_intensity(images, self.config.intensity, generator)
        return images, labels

    def _turned(self, labels: Tensor, maps: Tensor, cases: Sequence[str]) -> Tensor:
        """Labels (B, ..., *patch) cut by `maps`; out of the box they become what is beyond the border."""
        outside = torch.tensor([float(self._outside(case)) for case in cases]).view(-1, 1, 1, 1, 1)
        channels = labels.view(len(labels), -1, *self.read).float()
        # a map fills with 0
        turned = apply_maps(channels - outside, maps, self.patch, nearest=True) + outside
        return turned.view(*labels.shape[:-3], *self.patch).long()


def prefetched(make: Callable[[int], T], first: int, last: int) -> Iterator[T]:
    """`make(step)` for `first` to `last` - 1, the next one made in a thread while one is used."""
    if first >= last:
        return
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(make, first)
        for step in range(first, last):
            current = following
            if step + 1 < last:
                following = pool.submit(make, step + 1)
            yield current.result()


def step_seed(seed: int, step: int) -> int:
    """A 63-bit seed for (seed, step), unlike that of any neighbour."""
    return int(np.random.SeedSequence([seed, 2, step]).generate_state(1, np.uint64)[0] >> 1)
