"""From a volume to a mask in the volume's own geometry."""

# Shapes: C = channels, K = classes.

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..data.errors import UserError
from ..data.formats.files import write_like
from ..data.labels import LabelKind, LabelTable
from ..data.plan import Plan
from ..data.preprocess import Prepared
from ..data.reading import measured_image
from ..data.settings import settings
from ..data.slabs import thin
from ..data.volume import OpenVolume, Shape
from .engine.allocator import kept_memory
from .mirroring import mirrored
from .networks.network import Network
from .prediction_memory import Need, activation_bytes, regions, usable_bytes
from .regions import Rolling, on_own_voxels
from .scratch_array import scratch_array
from .sliding_window import SlicesAt, held, swept
from .sums import DeviceSums, HostSums
from .tiles import Tiles

# what makes the values that are written of class numbers (Z, Y, X), or (K, Z, Y, X) of 0 and 1
Finish = Callable[[np.ndarray, OpenVolume], np.ndarray]
Place = tuple[slice, slice]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained network with the plan it was trained on."""

    network: Network
    plan: Plan

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next(self.network.parameters()).device

    @property
    def outputs(self) -> int:
        """Channels of its output."""
        return self.plan.labels.outputs if self.plan.labels else self.network.output.out_channels


@settings
class PredictConfig:
    """How volumes are predicted.

    `overlap` is the least share of a window's extent that lies in the next one. With `mirror` the output is
    the mean over the eight flips of a window, which takes eight times as long. A voxel is of a class whose
    probability is above `threshold` where classes overlap (None: 0.5) or there is one beside the background
    (None: the likelier of the two). `batch` is the number of windows at once: where it is None one on a
    processor, the plan's batch on an accelerator. `memory_gib` is what a prediction may take in GiB, program
    and volume in memory not counted; most of what is free if None. With `keep_memory` a processor keeps what
    a window frees for the next (`engine/allocator.py`).
    """

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    mirror: bool = False
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    batch: Annotated[int, Field(ge=1)] | None = None
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    keep_memory: bool = True


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Trained networks whose probabilities are averaged, each with the plan it was trained on.

    Raises UserError where they differ in channels or classes.
    """

    models: tuple[Model, ...]
    config: PredictConfig = PredictConfig()

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("a prediction has at least one model")
        for model in self.models[1:]:
            _refuse_unlike(self.models[0].plan, model.plan)
        _refuse_threshold(self.config, self.models[0].plan)

    @torch.inference_mode()
    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Class probabilities (K, Z, Y, X) float32 of a preprocessed image (C, Z, Y, X), by a single model.

        They sum to 1, the background first; where classes may overlap, each channel has its own and there is
        none for the background.
        """
        out = np.empty((self.models[0].outputs, *image.shape[1:]), np.float32)
        for z, logits in self._of_prepared(image):
            out[:, z] = self._likely(logits)
        return out

    @torch.inference_mode()
    def classes(self, image: np.ndarray) -> np.ndarray:
        """Class numbers (Z, Y, X) of a preprocessed image; (K, Z, Y, X) of 0 and 1 where they may overlap."""
        # the largest logit is that of the likeliest class
        as_they_are = not self._overlapping and self.config.threshold is None
        found = (
            self.chosen(logits.numpy() if as_they_are else self._likely(logits))
            for _, logits in self._of_prepared(image)
        )
        return np.concatenate(list(found), axis=-3)

    def chosen(self, probabilities: np.ndarray) -> np.ndarray:
        """Class numbers of probabilities: the likeliest, or those above the threshold where they overlap."""
        threshold = self.config.threshold
        if self._overlapping:
            return (probabilities > (threshold or 0.5)).astype(np.uint8)
        if threshold is not None:
            return (probabilities[1] > threshold).astype(np.uint8)
        return largest(probabilities)

    def probabilities_of(self, volume: OpenVolume, where: object) -> np.ndarray:
        """Class probabilities (K, Z, Y, X) float32 of a volume as read, on its own voxels.

        Probabilities, not classes, are interpolated, so that borders stay where they were.
        """
        out = np.empty((self.models[0].outputs, *volume.shape), np.float32)
        for place, found in self._of_volume(volume, where, out.nbytes):
            out[(slice(None), *place)] = found
        return out

    def mask(self, volume: OpenVolume, where: object) -> np.ndarray:
        """The label map of a volume as read, in the values of the user's own labels.

        (Z, Y, X), or (K, Z, Y, X) of 0 and 1 where classes may overlap.
        """
        table = self._table
        out = np.empty(self._mask_shape(volume), table.mask_dtype)
        for place, found in self._of_volume(volume, where, out.nbytes):
            out[(..., *place, slice(None))] = table.decode(self.chosen(found))
        return out

    def write_mask(
        self,
        volume: OpenVolume,
        where: object,
        out: Path,
        maps: Path | None = None,
        finish: Finish | None = None,
    ) -> None:
        """Writes the mask of a volume to `out`, in the format and geometry of its source.

        Its probabilities, float32 (K, Z, Y, X), are written to `maps` where that is given; `finish` makes
        its values of the class numbers, in the type that they need; those of the labels when None. A mask, or
        maps, of more than a quarter of the memory that there is stand in a file on the disk of `out` until
        they are written; what `finish` takes in memory is not counted.

        Raises UserError, before anything is predicted, where the memory does not suffice.
        """
        table, large = self._table, self._bytes // 4
        out.parent.mkdir(parents=True, exist_ok=True)
        array = partial(scratch_array, folder=out.parent, most=large)
        dtype = table.mask_dtype if finish is None else self._numbers_dtype
        mask = array(self._mask_shape(volume), dtype)
        probabilities = array((self.models[0].outputs if maps else 0, *volume.shape), np.dtype(np.float32))
        in_memory = sum(a.nbytes for a in (mask, probabilities) if not isinstance(a, np.memmap))
        for place, found in self._of_volume(volume, where, in_memory):
            chosen = self.chosen(found)
            mask[(..., *place, slice(None))] = chosen if finish else table.decode(chosen)
            if maps is not None:
                probabilities[(slice(None), *place)] = found
        if maps is not None:
            write_like(maps, probabilities, volume.source)
        write_like(out, mask if finish is None else finish(mask, volume), volume.source)

    @torch.inference_mode()
    def _of_volume(
        self, volume: OpenVolume, where: object, beside: int
    ) -> Iterator[tuple[Place, np.ndarray]]:
        """Mean probabilities (K, z, y, X) and their place (z, y) in the volume, all of it piece by piece.

        `beside` are the bytes that what becomes of them takes in memory.
        """
        measured = measured_image(volume, where)
        images = [Prepared.of(volume, m.plan.preprocessing, measured, where) for m in self.models]
        tiles = [self._tiles(m, image.shape) for m, image in zip(self.models, images, strict=True)]
        needs = [self._need(m, t, volume) for m, t in zip(self.models, tiles, strict=True)]
        ranges = list(thin(slice(0, volume.shape[0]), (1, *volume.shape)))
        for rows in regions(needs, beside, self._bytes, where):
            each = [
                on_own_voxels(partial(self._region, *parts), parts[1], volume.shape, rows, ranges)
                for parts in zip(self.models, images, tiles, strict=True)
            ]
            for z, *found in zip(ranges, *each, strict=True):
                yield (z, rows), _mean(found)

    def _of_prepared(self, image: np.ndarray) -> Iterator[tuple[slice, Tensor]]:
        """Logits (K, z, Y, X) of a preprocessed image, with their slices, by the only model."""
        (model,) = self.models
        z, y, x = image.shape[1:]
        tiles = self._tiles(model, (z, y, x))
        return self._swept(model, held(torch.from_numpy(image).float(), tiles), tiles, slice(0, y))

    def _region(self, model: Model, image: Prepared, tiles: Tiles, rows: slice) -> Iterator[np.ndarray]:
        """Probabilities (K, z, y, X) of these rows of a prepared image, from its first slice to the last."""
        found = self._swept(model, Rolling(image, tiles, rows), tiles, rows)
        return (self._likely(logits) for _, logits in found)

    def _swept(
        self, model: Model, image: SlicesAt, tiles: Tiles, rows: slice
    ) -> Iterator[tuple[slice, Tensor]]:
        model.network.eval()
        network = mirrored(model.network) if self.config.mirror else model.network
        device = model.device
        sums = HostSums if device.type == "cpu" else partial(DeviceSums, device=device)
        with kept_memory(self.config.keep_memory and device.type == "cpu"):
            yield from swept(lambda w: network(w.to(device)), image, tiles, sums, rows, self._batch(model))

    def _likely(self, logits: Tensor) -> np.ndarray:
        return (logits.sigmoid() if self._overlapping else logits.softmax(dim=0)).numpy()

    def _tiles(self, model: Model, shape: Shape) -> Tiles:
        return Tiles(shape=shape, patch=model.plan.training.patch, overlap=self.config.overlap)

    def _batch(self, model: Model) -> int:
        if self.config.batch is not None:
            return self.config.batch
        # a training step with that many took more memory; a processor gains nothing by several
        return 1 if model.device.type == "cpu" else model.plan.training.batch

    def _need(self, model: Model, tiles: Tiles, volume: OpenVolume) -> Need:
        channels = volume.array.shape[0]
        return Need(
            tiles=tiles,
            shape=volume.shape,
            channels=channels,
            classes=model.outputs,
            voxel_bytes=channels * volume.array.dtype.itemsize,
            passing=activation_bytes(model.network, self._batch(model), channels, tiles.patch),
        )

    @property
    def _bytes(self) -> int:
        limit = self.config.memory_gib
        return usable_bytes() if limit is None else int(limit * 2**30)

    def _mask_shape(self, volume: OpenVolume) -> tuple[int, ...]:
        return (self._table.outputs, *volume.shape) if self._overlapping else volume.shape

    @property
    def _numbers_dtype(self) -> np.dtype:
        return np.min_scalar_type(0 if self._overlapping else self._table.classes - 1)

    @property
    def _table(self) -> LabelTable:
        labels = self.models[0].plan.labels
        if labels is None:
            raise ValueError("the plan has no label table; only a fine-tuned model predicts masks")
        return labels

    @property
    def _overlapping(self) -> bool:
        return kind_of(self.models[0].plan) == "overlapping"


def kind_of(plan: Plan) -> LabelKind:
    """What a plan's labels are; "classes" without any."""
    return plan.labels.kind if plan.labels else "classes"


def largest(values: np.ndarray) -> np.ndarray:
    """The number of the largest of `values` (K, ...), the lowest of those alike: a faster argmax."""
    numbers, most = np.zeros(values.shape[1:], np.min_scalar_type(len(values) - 1)), values[0]
    for c, others in enumerate(values[1:], start=1):
        np.copyto(numbers, numbers.dtype.type(c), where=others > most)
        most = np.maximum(most, others) if c + 1 < len(values) else most
    return numbers


def _mean(found: list[np.ndarray]) -> np.ndarray:
    total, *others = found
    if others:
        total = total.copy()
        for other in others:
            total += other
        total /= len(found)
    return total


def _refuse_unlike(first: Plan, other: Plan) -> None:
    for name, a, b in (
        ("channels", first.preprocessing.channels, other.preprocessing.channels),
        ("labels", _meaning(first), _meaning(other)),
    ):
        if a != b:
            raise UserError(
                "models of one prediction",
                found=f"{name} {a} in one and {b} in another",
                rule="Models that are averaged have the same channels and classes",
                remedy="Predict with each of them into a folder of its own",
            )


def _refuse_threshold(config: PredictConfig, plan: Plan) -> None:
    if config.threshold is not None and plan.labels is not None and not _takes_threshold(plan.labels):
        raise UserError(
            f"threshold {config.threshold}",
            found=f"{plan.labels.classes - 1} classes of which a voxel has one",
            rule="A threshold decides where classes may overlap, or where there is one beside the background",
            remedy="Leave it out: each voxel gets its likeliest class",
        )


def _takes_threshold(labels: LabelTable) -> bool:
    return labels.kind == "overlapping" or labels.classes == 2


def _meaning(plan: Plan) -> tuple[object, ...]:
    return (plan.labels.kind, plan.labels.values) if plan.labels else ()
