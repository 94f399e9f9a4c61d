"""Masks by a threshold, without any training: what a network has to be better than.

Source: Otsu 1979, by SimpleITK; with smoothing before and holes filled after it, as NucleusJ 2.0 segments
nuclei (Dubos et al. 2020, https://doi.org/10.1080/19491034.2020.1845012). Differs from it: components are
removed by the Otsu threshold of their volumes rather than by fixed limits, and a volume may hold many nuclei.
"""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import SimpleITK as sitk
from pydantic import Field
from scipy import ndimage

from ..data.atomic import write_text
from ..data.cases import Case
from ..data.errors import UserError
from ..data.formats.files import mask_suffix, write_like
from ..data.hashing import settings_hash
from ..data.labels import LabelTable
from ..data.reading import ScanOptions, read_image
from ..data.settings import plain, settings
from ..data.sources import source_hash
from ..data.volume import Triple
from .batch_predict import MANIFEST, Manifest, PredictedCase
from .components import filled, kept

_BINS = 256


@settings
class OtsuConfig:
    """What is thresholded: a channel (from 0), smoothed, with objects brighter or darker than the rest.

    `smoothing` is the standard deviation of a Gaussian, in voxels of the finest spacing for all axes.
    """

    channel: Annotated[int, Field(ge=0)] = 0
    # better than 1 on nuclei of mouse embryos and of plants, in Dice and in objects found
    smoothing: Annotated[float, Field(ge=0)] = 2.0
    foreground: Literal["bright", "dark"] = "bright"


def otsu_mask(image: np.ndarray, spacing: Triple, config: OtsuConfig) -> np.ndarray:
    """The foreground of one channel (Z, Y, X), bool: thresholded, holes filled, small components removed."""
    sigma = config.smoothing * min(spacing) / np.asarray(spacing)
    smooth = ndimage.gaussian_filter(image.astype(np.float32), sigma)
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.SetNumberOfHistogramBins(_BINS)
    otsu.Execute(sitk.GetImageFromArray(smooth))
    bright = smooth > otsu.GetThreshold()
    return kept(filled(bright if config.foreground == "bright" else ~bright), "otsu")


def write_otsu_masks(
    cases: Collection[Case],
    out: Path,
    table: LabelTable,
    config: OtsuConfig,
    options: ScanOptions,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes a mask for each case, and beside them what they mean, as `fewvox predict` does.

    Masks that are there are replaced. Raises UserError where labels have more than one class.
    """
    check_one_class(table, out)
    made = {}
    for done, case in enumerate(cases, start=1):
        volume = read_image(case, options)
        if config.channel >= len(volume.array):
            raise UserError(
                case.image,
                found=f"{len(volume.array)} channels",
                rule=f"Channel {config.channel} is thresholded, and the first is 0",
                remedy="Set otsu.channel to one that there is",
            )
        mask = otsu_mask(volume.array[config.channel], volume.spacing or (1.0, 1.0, 1.0), config)
        file = f"{case.id}{mask_suffix(volume.source)}"
        out.mkdir(parents=True, exist_ok=True)
        write_like(out / file, table.decode(mask.astype(np.uint8)), volume.source)
        made[case.id] = PredictedCase(file=file, image_hash=source_hash(case.images), role="unseen")
        if progress is not None:
            progress(done, len(cases))
    manifest = Manifest(model_hashes=(settings_hash(plain(config)),), labels=table, cases=made)
    write_text(out / MANIFEST, json.dumps(plain(manifest), indent=1))


def check_one_class(table: LabelTable, where: object) -> None:
    """Raises UserError unless there is one class beside the background."""
    if table.classes != 2 or table.kind == "overlapping":
        raise UserError(
            where,
            found=f"{table.classes - 1} classes beside the background, labels of kind {table.kind}",
            rule="A threshold parts one class from the background",
            remedy="Leave the arm of Otsu out, or give labels of one class",
        )
