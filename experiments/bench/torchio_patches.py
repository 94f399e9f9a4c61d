"""TorchIO as a peer: volumes in memory, patches of them, and its transforms nearest to nnU-Net's training."""

from collections.abc import Sequence
from math import log

import numpy as np
import torch
from torch import Tensor
from torchio.constants import INTENSITY
from torchio.data import LabelMap, ScalarImage, Subject, UniformSampler
from torchio.transforms import (
    Compose,
    CropOrPad,
    Lambda,
    OneOf,
    RandomAffine,
    RandomAnisotropy,
    RandomBlur,
    RandomFlip,
    RandomGamma,
    RandomNoise,
    Resize,
    Transform,
)

from ...data.store import Store
from ...data.volume import Shape
from .one_thread import drawn_from
from .volumes import with_margin

_FACTORS = (0.75, 1.25)
_SCALES = (0.7, 1.4)
_LOG_GAMMA = (log(0.7), log(1.5))


class TorchIOPatches:
    """Patches of volumes in memory, cropped anywhere in them and then changed.

    With a margin they are turned in a larger box and then cropped: TorchIO makes nothing smaller than what it
    is given. Without, they are turned as they are, which is less work, and corners are empty.
    """

    def __init__(self, store: Store, patch: Shape, *, margin: bool = True) -> None:
        self.subjects = subjects(store)
        self._sampler = UniformSampler(with_margin(patch) if margin else patch)
        self._chain = training_chain(patch)

    def patches(self, count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
        """So many images and labels, the volumes in turn."""
        with drawn_from(seed):
            return [self._patch(self.subjects[k % len(self.subjects)]) for k in range(count)]

    def _patch(self, subject: Subject) -> tuple[Tensor, Tensor]:
        patch = self._chain(next(iter(self._sampler(subject, 1))))
        return patch.image.data, patch.labels.data


class TorchIOViews:
    """Two views of a volume in memory: one box of the views' size, one that is enlarged; images alone."""

    def __init__(self, store: Store, boxes: Sequence[Shape], shapes: Sequence[Shape], *, turned: bool):
        self.subjects = subjects(store, with_labels=False)
        self._samplers = [UniformSampler(box) for box in boxes]
        self._chains = [
            view_chain(None if box == shape else shape, turned=turned)
            for box, shape in zip(boxes, shapes, strict=True)
        ]

    def samples(self, count: int, seed: int) -> list[list[Tensor]]:
        """So many samples, the volumes in turn."""
        with drawn_from(seed):
            return [self._sample(self.subjects[k % len(self.subjects)]) for k in range(count)]

    def _sample(self, subject: Subject) -> list[Tensor]:
        pairs = zip(self._samplers, self._chains, strict=True)
        return [chain(next(iter(sampler(subject, 1)))).image.data for sampler, chain in pairs]


def subjects(store: Store, *, with_labels: bool = True) -> list[Subject]:
    """The volumes of a store, in memory as TorchIO has them; its axes (x, y, z) are ours (z, y, x)."""
    return [_subject(store, case, with_labels) for case in sorted(store.cases)]


def _subject(store: Store, case: str, with_labels: bool) -> Subject:
    image = ScalarImage(tensor=torch.from_numpy(store.image(case)[:]).float())
    if not with_labels:
        return Subject(image=image)
    return Subject(image=image, labels=LabelMap(tensor=torch.from_numpy(store.label(case)[:][None])))


def training_chain(patch: Shape) -> Compose:
    """What nnU-Net's training does, as often, with one interpolation for rotation and scale."""
    chances: dict[Transform, float] = {
        _affine(degrees=30): 0.16,
        _affine(scales=_SCALES): 0.16,
        _affine(degrees=30, scales=_SCALES): 0.04,
    }
    return Compose([OneOf(chances, p=0.36), CropOrPad(patch), *changes()])


def scaling_chain() -> Compose:
    """The same for patches that are turned already."""
    return Compose([_affine(scales=_SCALES, p=0.2), *changes()])


def changes() -> list[Transform]:
    """Of grey values, and flips: nnU-Net's, as often as it makes them in an image of one channel.

    TorchIO has nothing for brightness and contrast, which are functions of a line here; it coarsens along one
    axis, not three.
    """
    return [
        RandomNoise(std=(0, 0.1), p=0.1),
        RandomBlur(std=(0.5, 1.0), p=0.1),
        Lambda(brightened, types_to_apply=[INTENSITY], p=0.15),
        Lambda(contrasted, types_to_apply=[INTENSITY], p=0.15),
        RandomAnisotropy(downsampling=(1, 2), p=0.125),
        RandomGamma(log_gamma=_LOG_GAMMA, p=0.1),
        RandomGamma(log_gamma=_LOG_GAMMA, p=0.3),
        RandomFlip(axes=(0, 1, 2), flip_probability=0.5),
    ]


def view_chain(resized: Shape | None, *, turned: bool) -> Compose:
    """A view that is resized, always turned or never, and then now and then noisy, blurred and bent."""
    resize = [] if resized is None else [Resize(resized)]
    turn = [_affine(degrees=30)] if turned else []
    return Compose(
        [
            *resize,
            *turn,
            RandomNoise(std=(0, 0.1), p=0.5),
            RandomBlur(std=(0.5, 1.0), p=0.5),
            RandomGamma(log_gamma=_LOG_GAMMA, p=0.5),
        ]
    )


def _affine(degrees: float = 0, scales: tuple[float, float] = (1, 1), p: float = 1) -> RandomAffine:
    return RandomAffine(degrees=degrees, scales=scales, isotropic=True, default_pad_value=0, p=p)


def brightened(image: Tensor) -> Tensor:
    """The image times a factor."""
    return image * np.random.uniform(*_FACTORS)


def contrasted(image: Tensor) -> Tensor:
    """The image spread around its mean, within the range it had."""
    mean = image.mean()
    low, high = image.aminmax()
    return ((image - mean) * np.random.uniform(*_FACTORS) + mean).clamp_(low, high)
