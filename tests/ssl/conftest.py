"""Stores, networks and views as small as they come, for the tests of the ssl floor."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from fewvox.data.plan import Plan, Preprocessing, Training
from fewvox.data.resample import coarsen_image, pyramid
from fewvox.data.store import Store, StoredCase, StoreIndex, case_folder, write_array
from fewvox.seg.networks.registry import Architecture
from fewvox.seg.networks.topology import Topology
from fewvox.ssl.method import Scope, Views

ARCHITECTURE = Architecture(
    in_channels=1,
    classes=2,
    topology=Topology(features=(4, 8, 16), kernels=((3, 3, 3),) * 3, strides=((1, 2, 1), (2, 2, 2))),
)
PLAN = Plan(
    preprocessing=Preprocessing(
        unit="mm", spacing=(1.0, 1.0, 1.0), orientation="RAS", channels=("c",), normalisation=("zscore",)
    ),
    labels=None,
    training=Training(patch=(8, 8, 8), strides=((2, 2, 2),), width=4),
)


@pytest.fixture(scope="session")
def architecture() -> Architecture:
    """Three levels, of which the first halves one axis alone."""
    return ARCHITECTURE


@pytest.fixture(scope="session")
def make_scope() -> Callable[..., Scope]:
    """What a method is built for: views of these extents, of volumes c0, c1, ..., each of its own subject."""

    def make(count=2, volumes=3, extent=(4, 8, 4), steps=10, batch=3, subjects=None) -> Scope:
        cases = tuple(f"c{i}" for i in range(volumes))
        return Scope(
            architecture=ARCHITECTURE, shapes=(extent,) * count, cases=cases, subjects=subjects or cases,
            steps=steps, batch=batch
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def views_of() -> Callable[..., Views]:
    """A batch of given views (B, C, Z, Y, X); each item is the beginning of a volume of its own."""

    def make(*views: torch.Tensor, seed=0) -> Views:
        items = len(views[0])
        maps = (torch.eye(3, 4, dtype=torch.float64).expand(items, 3, 4),) * len(views)
        return Views(views=views, maps=maps, cases=tuple(f"c{i}" for i in range(items)), seed=seed)

    return make


@pytest.fixture(scope="session")
def make_views(views_of) -> Callable[..., Views]:
    """A batch of noise; each item has a volume of its own."""

    def make(count=2, batch=3, extent=(4, 8, 4), seed=0) -> Views:
        generator = torch.Generator().manual_seed(seed)
        views = tuple(torch.randn(batch, 1, *extent, generator=generator) for _ in range(count))
        return views_of(*views, seed=seed)

    return make


@pytest.fixture(scope="session")
def make_store(tmp_path_factory) -> Callable[..., Store]:
    """A store of one volume (1, Z, Y, X), called "v", with the levels that `prepare` would give it."""

    def make(volume: np.ndarray, spacing=(1.0, 1.0, 1.0)) -> Store:
        path = tmp_path_factory.mktemp("one") / "store"
        case_folder(path, "v").mkdir(parents=True)
        shape, image = volume.shape[1:], volume.astype(np.float32)
        levels = [factor for factor, _ in pyramid(shape, spacing)]
        before = (1, 1, 1)
        for level, factor in enumerate(levels):
            z, y, x = (now // then for now, then in zip(factor, before, strict=True))
            image, before = coarsen_image(image, (z, y, x)), factor
            write_array(case_folder(path, "v") / f"image_{level}.b2nd", image)
        plan = replace(PLAN, preprocessing=replace(PLAN.preprocessing, spacing=spacing))
        case = StoredCase(
            id="v", subject="v", shape=shape, levels=tuple(levels), labelled=False, source_shape=shape,
            source_spacing=spacing, source_unit="mm", image_hash="0", label_hash=None, content_hash="0"
        )  # fmt: skip
        return Store(path, plan, StoreIndex(store_hash=plan.store_hash, cases=(case,)))

    return make
