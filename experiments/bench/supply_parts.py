"""Where the time of a patch goes: each step of our supply alone."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ...data.augment.chain import AugmentConfig, preset
from ...data.augment.draws import Draws
from ...data.augment.operations import Operation
from ...data.loader import PatchConfig, PatchSampler
from ...data.store import Store
from ...data.volume import Shape
from .figure import Figure, measured

# of one run: single ones differ by what is drawn
_PATCHES = 8


def part_figures(store: Store, patch: Shape, augment: AugmentConfig, runs: int) -> Iterator[Figure]:
    """Reading and cutting of patches that are never turned, or always; then each operation on its own."""
    for turned in (False, True):
        yield from _cutting(store, patch, runs, turned=turned)
    image = torch.randn(1, *patch, generator=torch.Generator().manual_seed(0))
    for name, operation in augment.chain.items():
        if operation is not None:
            yield measured(
                "supply",
                f"{name}, which {operation.probability:.0%} of patches have",
                lambda k, operation=operation: _applied(operation, image, k),
                None,
                None,
                runs,
                items=_PATCHES,
            )


def _cutting(store: Store, patch: Shape, runs: int, *, turned: bool) -> Iterator[Figure]:
    spatial = {"rotation_probability": float(turned), "scale_probability": 0.0, "flip_probability": 0.5}
    config = PatchConfig(augment=preset("nnunet", spatial=spatial))
    sampler = PatchSampler(store, sorted(store.cases), patch, _PATCHES, config, seed=0)
    read = [sampler.read(k) for k in range(runs + 1)]
    which = "turned" if turned else "not turned"
    for work, part in (
        ("reading", sampler.read),
        ("cutting the image", lambda k: [one.image.image() for one in read[k]]),
        ("cutting the labels", lambda k: [one.labels.labels() for one in read[k]]),
    ):
        yield measured("supply", f"a patch, {which}: {work}", part, None, None, runs, items=_PATCHES)


def _applied(operation: Operation, image: Tensor, seed: int) -> None:
    for k in range(_PATCHES):
        operation(image.clone(), Draws((seed, k)))
