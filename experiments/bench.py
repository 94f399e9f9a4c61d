"""What the parts of a training take on this machine, beside what other tools that are installed take.

All data are synthetic and made anew. Ours and a peer's runs take turns in one process, and the medians are
compared: ratios say more than seconds, which are those of one machine on one day.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.errors import UserError
from ..data.formats.files import read_volume
from ..data.loader import PatchConfig, PatchSampler
from ..data.plan import make_plan
from ..data.prepare import prepare
from ..data.scan import scan
from ..data.settings import settings
from ..data.store import Store
from ..data.synthetic import NucleiConfig, write_nuclei
from ..seg.losses import dice_cross_entropy
from ..seg.networks.registry import architecture_for, build
from ..seg.sliding_window import stitch
from ..ssl.method import ViewSpec
from ..ssl.views import ViewConfig, ViewSampler

RUNS = 7
# large enough that reading a whole volume for one patch shows
LARGE = NucleiConfig(shape=(48, 256, 256), nuclei=(20, 30))
Work = Callable[[int], object]


@settings
class Figure:
    """Median seconds of one piece of work, ours and a peer's; `ratio` above 1 means that ours is faster."""

    what: str
    work: str
    seconds: float
    peer: str | None = None
    peer_seconds: float | None = None

    @property
    def ratio(self) -> float | None:
        """The peer's time over ours; None without a peer."""
        return None if self.peer_seconds is None else self.peer_seconds / self.seconds


def bench(what: str, runs: int = RUNS) -> tuple[Figure, ...]:
    """The figures of one of `PARTS`, or of "all"; raises UserError for another name."""
    if what not in (*PARTS, "all"):
        raise UserError(
            f"bench {what}",
            found="nothing of that name is measured",
            rule=f"There are: {', '.join(PARTS)}, all",
            remedy="Choose one of them",
        )
    chosen = PARTS if what == "all" else {what: PARTS[what]}
    with _bench_store() as (store, images):
        return tuple(figure for part in chosen.values() for figure in part(store, images, runs))


@contextmanager
def _bench_store() -> Iterator[tuple[Store, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        data = write_nuclei(Path(folder) / "data", unannotated=0, annotated=4, test=1, seed=1, config=LARGE)
        scanned = scan(data / "train")
        plan = make_plan(scanned.fingerprint, budget="cpu")
        yield prepare(scanned, plan, Path(folder) / "store"), data / "train" / "images"


def _store(store: Store, images: Path, runs: int) -> list[Figure]:
    sampler = _sampler(store, PatchConfig(spatial=None, intensity=None))
    name = sampler.cases[0]
    copy = images.parent / "whole.npy"
    np.save(copy, store.image(name)[:])
    z, y, x = sampler.patch

    def from_file(_: int) -> np.ndarray:
        return np.ascontiguousarray(read_volume(images / f"{name}.tif").array[:, :z, :y, :x])

    def from_map(_: int) -> np.ndarray:
        return np.array(np.load(copy, mmap_mode="r")[:, :z, :y, :x])

    work, items = "a patch of image and label from the store, anywhere", sampler.batch_size
    return [
        _measured(
            "store", work, sampler.batch, "image alone: whole TIFF read for it", from_file, runs, items
        ),
        _measured(
            "store",
            work,
            sampler.batch,
            "image alone: uncompressed .npy, mapped, one corner",
            from_map,
            runs,
            items,
        ),
    ]


def _supply(store: Store, images: Path, runs: int) -> list[Figure]:  # noqa: ARG001
    sampler = _sampler(store, PatchConfig())
    peer = _monai_chain(store, sampler)
    views = ViewSampler(
        store, sampler.cases, sampler.patch, sampler.batch_size, ViewSpec(count=2), ViewConfig(), 0, 100
    )
    return [
        _measured(
            "supply",
            "a supervised patch, read from the store and augmented",
            sampler.batch,
            "MONAI, volumes in memory",
            peer,
            runs,
            sampler.batch_size,
        ),
        _measured("supply", "a SmartPatch view", views.batch, None, None, runs, 2 * sampler.batch_size),
    ]


def _train(store: Store, images: Path, runs: int) -> list[Figure]:  # noqa: ARG001
    from monai.networks.nets.dynunet import DynUNet

    architecture = architecture_for(store.plan)
    topology = architecture.topology
    ours = build(architecture, seed=0)
    theirs = DynUNet(
        spatial_dims=3,
        in_channels=architecture.in_channels,
        out_channels=architecture.classes,
        kernel_size=topology.kernels,
        strides=[(1, 1, 1), *topology.strides],
        upsample_kernel_size=topology.strides,
        filters=topology.features,
        norm_name=("instance", {"affine": True}),
    )
    batch = _sampler(store, PatchConfig()).batch(0)

    def step(network: torch.nn.Module, _: int) -> None:
        loss, _logs = dice_cross_entropy(network(batch.images), batch.labels)
        loss.backward()

    work = "forward and backward pass of a batch"
    return [_measured("train", work, partial(step, ours), "MONAI DynUNet", partial(step, theirs), runs)]


def _predict(store: Store, images: Path, runs: int) -> list[Figure]:  # noqa: ARG001
    from monai.inferers.utils import sliding_window_inference

    network = build(architecture_for(store.plan), seed=0).eval()
    image = torch.from_numpy(store.image(next(iter(store.cases)))[:])
    patch = store.plan.training.patch

    @torch.inference_mode()
    def ours(_: int) -> Tensor:
        return stitch(network, image, patch)

    @torch.inference_mode()
    def theirs(_: int) -> object:
        return sliding_window_inference(image[None], patch, 1, network, overlap=0.5, mode="gaussian")

    work = f"a volume of {tuple(image.shape[1:])}"
    return [_measured("predict", work, ours, "MONAI sliding window", theirs, min(runs, 3))]


PARTS: dict[str, Callable[[Store, Path, int], list[Figure]]] = {
    "store": _store,
    "supply": _supply,
    "train": _train,
    "predict": _predict,
}


def _sampler(store: Store, config: PatchConfig) -> PatchSampler:
    training = store.plan.training
    cases = [case.id for case in store.annotated]
    return PatchSampler(store, cases, training.patch, training.batch, config, seed=0)


def _monai_chain(store: Store, sampler: PatchSampler) -> Work:
    """MONAI's transforms with our probabilities and ranges, on a volume that is in memory already."""
    from monai.transforms.compose import Compose
    from monai.transforms.croppad.dictionary import RandSpatialCropd
    from monai.transforms.intensity.dictionary import (
        RandAdjustContrastd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
    )
    from monai.transforms.spatial.dictionary import RandAffined

    case = sampler.cases[0]
    item = {
        "image": torch.from_numpy(store.image(case)[:]),
        "label": torch.from_numpy(store.label(case)[:].astype(np.float32))[None],
    }
    turn = [np.pi / 6] * 3
    chain = Compose(
        [
            RandSpatialCropd(("image", "label"), sampler.read, random_size=False),
            RandAffined(
                ("image", "label"),
                prob=0.36,  # ours turns a fifth and scales a fifth of the patches
                rotate_range=turn,
                scale_range=[(-0.3, 0.4)] * 3,
                spatial_size=sampler.patch,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandGaussianNoised("image", prob=0.1, std=0.3),
            RandGaussianSmoothd("image", (0.5, 1.0), (0.5, 1.0), (0.5, 1.0), prob=0.2),
            RandScaleIntensityd("image", 0.25, prob=0.15),
            RandAdjustContrastd("image", prob=0.4, gamma=(0.7, 1.5)),
        ]
    )
    chain.set_random_state(seed=0)
    return lambda _: chain(item)


def _measured(
    what: str, work: str, ours: Work, peer: str | None, theirs: Work | None, runs: int, items: int = 1
) -> Figure:
    """Ours and the peer's in turn, after one run each to warm up; `items` are made by one run of ours."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for k in range(runs + 1):
        for name, made in (("ours", ours), ("theirs", theirs)):
            if made is None:
                continue
            start = time.perf_counter()
            made(k)
            seconds[name].append(time.perf_counter() - start)
    return Figure(
        what=what,
        work=work,
        seconds=statistics.median(seconds["ours"][1:]) / items,
        peer=peer,
        peer_seconds=statistics.median(seconds["theirs"][1:]) if theirs is not None else None,
    )
