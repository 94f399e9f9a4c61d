"""Batches of patches, each a function of seed and step alone."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated

import numpy as np
import torch
from pydantic import BeforeValidator
from torch import Tensor

from .augment.chain import AugmentConfig, changed_with_labels, completed, preset
from .augment.draws import Draws
from .augment.spatial import displacement, draw_elastic, draw_turn, patch_map
from .boxes import random_start
from .cut import Cut, cut_image, cut_labels
from .labels import IGNORED
from .making import making
from .settings import Probability, settings
from .share import WHOLE, Share
from .store import Store
from .supply import CPU, supplied
from .volume import Shape

_NOWHERE = np.empty((0, 3), np.int32)


@settings
class PatchConfig:
    """How patches are drawn and changed.

    `foreground_share` of the patches have a labelled voxel exactly in their middle (nnU-Net: a third; a
    half here, as Biom3d does, so that a batch of 2 has one).
    """

    foreground_share: Probability = 0.5
    augment: Annotated[AugmentConfig, BeforeValidator(completed("nnunet"))] = preset("nnunet")


@dataclass(frozen=True, kw_only=True)
class PatchBatch:
    """Images (B, C, Z, Y, X) float32, labels in the store's type of whole numbers, and the case of each item.

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


@dataclass(frozen=True, kw_only=True)
class ReadPatch:
    """What was read for one patch, how it is deformed, and the seed of what is done to its grey values."""

    case: str
    image: Cut
    labels: Cut
    moved: np.ndarray | None
    seed: int

    def to(self, device: torch.device) -> "ReadPatch":
        """The same on another device."""
        return replace(self, image=self.image.to(device), labels=self.labels.to(device))


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

    Where several processes train together, each has its `share` of the items: together they see what one
    process with a batch as large as all of theirs would.
    """

    def __init__(
        self,
        store: Store,
        cases: Sequence[str],
        patch: Shape,
        batch: int,
        config: PatchConfig,
        seed: int,
        share: Share = WHOLE,
    ) -> None:
        if not cases:
            raise ValueError("a sampler needs at least one case")
        self.store, self.cases, self.patch = store, tuple(cases), patch
        self.batch_size, self.config, self.seed, self.share = batch, config, seed, share
        self._foreground: dict[str, dict[int, np.ndarray]] = {}

    def batch(self, step: int) -> PatchBatch:
        """The batch of a training step (from 0)."""
        return self.finish(self.read(step))

    def batches(
        self, first: int, last: int, *, workers: int = 0, device: torch.device = CPU
    ) -> Generator[PatchBatch, None, None]:
        """The batches of steps `first` to `last` - 1, made while others are used (see `supplied`)."""
        return supplied(self, first, last, workers=workers, device=device)

    def cases_of(self, step: int) -> tuple[str, ...]:
        """The cases of the batch of a step."""
        return tuple(self._case(k) for k in self._items(step))

    def read(self, step: int) -> tuple[ReadPatch, ...]:
        """What of the store the batch of a step is made of."""
        return tuple(self._read(k) for k in self._items(step))

    def finish(self, patches: Sequence[ReadPatch]) -> PatchBatch:
        """The batch made of what was read, on the device where that is."""
        finished = []
        for patch in patches:
            with making((patch.case,)):
                finished.append(self._finished(patch))
        images, labels = (torch.stack(parts) for parts in zip(*finished, strict=True))
        return PatchBatch(images=images, labels=labels, cases=tuple(patch.case for patch in patches))

    def _items(self, step: int) -> range:
        return self.share.items(step, self.batch_size)

    def _case(self, k: int) -> str:
        n = len(self.cases)
        order = np.random.default_rng([self.seed, 0, k // n]).permutation(n)
        return self.cases[order[k % n]]

    def _read(self, k: int) -> ReadPatch:
        case = self._case(k)
        with making((case,)):
            return self._read_of(case, k)

    def _read_of(self, case: str, k: int) -> ReadPatch:
        draws = Draws((self.seed, 1, k))
        voxel, place = self._anchor(case, draws.numbers, foreground=self._is_foreground(k))
        turn, moved = self._turned(draws)
        affine, reach = patch_map(turn, place, voxel), _reach(moved)
        outside = self._outside(case)
        return ReadPatch(
            case=case,
            image=cut_image(self.store, case, affine, self.patch, reach=reach),
            labels=cut_labels(self.store, case, affine, self.patch, outside, reach=reach),
            moved=moved,
            seed=int(draws.numbers.integers(2**62)),
        )

    def _turned(self, draws: Draws) -> tuple[np.ndarray, np.ndarray | None]:
        spacing, spatial = self.store.plan.preprocessing.spacing, self.config.augment.spatial
        if spatial is None:
            return np.eye(3), None
        turn = draw_turn(self.patch, spacing, spatial, draws)
        return turn, draw_elastic(self.patch, spacing, spatial, draws)

    def _finished(self, patch: ReadPatch) -> tuple[Tensor, Tensor]:
        spatial = self.config.augment.spatial
        field = None
        if patch.moved is not None:
            field = displacement(patch.moved, self.patch, patch.image.box.device)
        image, labels = changed_with_labels(
            patch.image.image(field),
            patch.labels.labels(field, by_share=spatial is not None and spatial.labels == "linear"),
            self.config.augment.chain,
            patch.seed,
            self.store.plan.preprocessing.spacing,
        )
        return image, labels if self._overlapping else labels[0]

    def _outside(self, case: str) -> int:
        """The class number of what lies beyond the border of a case."""
        return IGNORED if 0 in self._positions(case) else 0

    def _positions(self, case: str) -> dict[int, np.ndarray]:
        """Where each class of a case is; read when it is first asked for, by whoever makes the patch."""
        if case not in self._foreground:
            self._foreground[case] = self.store.foreground(case)
        return self._foreground[case]

    def _is_foreground(self, k: int) -> bool:
        # a third is 0.333 in a file: a fraction, which counts without rounding however far
        said = Fraction(str(self.config.foreground_share))
        simple = said.limit_denominator(10)
        share = simple if abs(simple - said) < Fraction(1, 1000) else said
        return (k + 1) * share // 1 > k * share // 1

    def _anchor(
        self, case: str, rng: np.random.Generator, *, foreground: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """A voxel of the patch and where in the volume it comes to, however the patch is turned around it."""
        middles = self._middles(case, rng, foreground=foreground)
        if len(middles):
            return np.array(self.patch) // 2, middles[rng.integers(len(middles))]
        middle = (np.array(self.patch) - 1) / 2
        return middle, random_start(self.store.cases[case].shape, self.patch, rng) + middle

    def _middles(self, case: str, rng: np.random.Generator, *, foreground: bool) -> np.ndarray:
        """Voxels (n, 3) of which one becomes the middle of a patch; none where it may lie anywhere."""
        positions = self._positions(case)
        classes = sorted(c for c, of_class in positions.items() if c > 0 and len(of_class))
        background = positions.get(0, _NOWHERE)
        without_background = 0 in positions and not len(background)
        if classes and (foreground or without_background):
            return positions[classes[rng.integers(len(classes))]]
        return background

    @property
    def _overlapping(self) -> bool:
        labels = self.store.plan.labels
        return labels is not None and labels.kind == "overlapping"


def _reach(moved: np.ndarray | None) -> np.ndarray | float:
    """How far at most a voxel is moved along each axis: splines stay between their points."""
    # the voxel in the middle is moved back, and everything with it
    return 0.0 if moved is None else 2 * np.abs(moved).max(axis=(1, 2, 3))


def step_seed(seed: int, step: int) -> int:
    """A 63-bit seed for (seed, step), unlike that of any neighbour."""
    return int(np.random.SeedSequence([seed, 2, step]).generate_state(1, np.uint64)[0] >> 1)
