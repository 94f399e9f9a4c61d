"""What every volume goes through before a network sees it, in training as in prediction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .errors import UserError
from .formats.alike import is_turned
from .intensities import Intensity, measure
from .plan import SPACING_TOLERANCE, Preprocessing, Scheme, Window
from .resample import needed, resample, resample_part, resampled_shape
from .slabs import Held
from .volume import OpenVolume, Shape, Triple, Volume, Voxels


def preprocess(volume: Volume, how: Preprocessing, where: object) -> np.ndarray:
    """The volume at the plan's spacing, normalised, float32 (C, Z, Y, X).

    Raises UserError when channels or spacing do not answer to the plan.
    """
    check_fits(volume, how, where)
    measured = [measure(volume.array[c : c + 1]) for c in range(len(how.channels))]
    array = normalised(volume.array, how, measured)
    return resample(array, target_shape(volume, how, where), how.orders)


def check_fits(volume: OpenVolume, how: Preprocessing, where: object) -> None:
    """Raises UserError when the channels or the orientation of a volume are not those of the plan."""
    swapped = volume.channels != how.channels and sorted(volume.channels) == sorted(how.channels)
    if swapped or len(volume.channels) != len(how.channels):
        raise UserError(
            where,
            found=f"{len(volume.channels)} channels ({', '.join(volume.channels)})",
            rule=f"The plan has {len(how.channels)} ({', '.join(how.channels)})",
            remedy="Give a volume with these channels in this order",
        )
    # a data set of both kinds is taken as stored, where no file was turned
    fits = how.orientation == "stored" and not is_turned(volume)
    if volume.orientation != how.orientation and not fits:
        raise UserError(
            where,
            found=f"orientation '{volume.orientation}'",
            rule=f"the plan's volumes have orientation '{how.orientation}' (RAS for files that know theirs)",
            remedy="give the volume in the format of the training data",
        )


def value_range(how: Preprocessing, measured: Sequence[Intensity]) -> tuple[float, float]:
    """The lowest and the highest value of a volume once it is normalised."""
    ends = [
        normalised(np.array([i.lowest, i.highest]).reshape(1, 1, 1, 2), _channel(how, c), [i])
        for c, i in enumerate(measured)
    ]
    return float(np.min(ends)), float(np.max(ends))


def _channel(how: Preprocessing, c: int) -> Preprocessing:
    windows = (how.windows[c],) if how.windows else ()
    return replace(how, channels=(how.channels[c],), normalisation=(how.normalisation[c],), windows=windows)


def target_shape(volume: OpenVolume, how: Preprocessing, where: object) -> Shape:
    """Shape (z, y, x) of the volume at the plan's spacing."""
    if how.spacing is None:
        return volume.shape
    spacing = spacing_in_plan(volume, how, where)
    return resampled_shape(volume.shape, spacing, how.spacing, SPACING_TOLERANCE)


def spacing_in_plan(volume: OpenVolume, how: Preprocessing, where: object) -> Triple:
    """The volume's spacing in the plan's unit; raises UserError when the file tells none."""
    volume = volume.in_unit(how.unit)
    if volume.spacing is None or (volume.unit is None) != (how.unit is None):
        raise UserError(
            where,
            found="no voxel spacing"
            if volume.spacing is None
            else f"a spacing in {volume.unit or 'no unit'}",
            rule=f"The plan resamples to {how.spacing} {how.unit or '(no unit)'} (z, y, x)",
            remedy="Save spacing and unit in the file, or give them with --spacing Z,Y,X --unit um",
        )
    return volume.spacing


def normalised(array: np.ndarray, how: Preprocessing, measured: Sequence[Intensity]) -> np.ndarray:
    """Voxels (C, Z, Y, X), or a part of them, normalised by the grey values of their whole channels; float32.

    A constant channel becomes 0.
    """
    out = np.empty(array.shape, dtype=np.float32)
    # float32 has 24 bits: wider types are shifted first
    wide = array.dtype.itemsize > 4 or (array.dtype.itemsize == 4 and array.dtype.kind in "iu")
    for c, (scheme, found) in enumerate(zip(how.normalisation, measured, strict=True)):
        window = how.windows[c] if how.windows else None
        low, high, shift, scale = _mapping(scheme, found, window)
        values = array[c].astype(np.float64 if wide else np.float32)
        if scheme == "ct":
            np.clip(values, low, high, out=values)
        values -= shift
        out[c] = values * scale
    return out


@dataclass(frozen=True, kw_only=True, eq=False)
class Normalised:
    """An array of grey values (C, Z, Y, X) as a network sees them; what is asked for is computed."""

    array: Voxels
    how: Preprocessing
    measured: Sequence[Intensity]

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent of the array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels."""
        return np.dtype(np.float32)

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        """The part that the slices name."""
        return normalised(self.array[key], self.how, self.measured)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """What `preprocess` makes of a volume, of which parts are computed when they are asked for.

    `measured` are the grey values of each channel of the whole volume.
    """

    array: Voxels
    shape: Shape
    how: Preprocessing
    measured: Sequence[Intensity]

    @classmethod
    def of(
        cls, volume: OpenVolume, how: Preprocessing, measured: Sequence[Intensity], where: object
    ) -> "Prepared":
        """Raises UserError when channels or spacing of the volume do not answer to the plan."""
        check_fits(volume, how, where)
        shape = target_shape(volume, how, where)
        return cls(array=volume.array, shape=shape, how=how, measured=measured)

    def fill(self, out: np.ndarray, z: slice, y: slice) -> None:
        """Writes these slices and rows to `out` (C, z, y, X); what they need of the source is read once."""
        _, depth, height, _ = self.array.shape
        reads = needed(depth, self.shape[0], z), needed(height, self.shape[1], y)
        seen = Normalised(array=Held.of(self.array, *reads), how=self.how, measured=self.measured)
        resample_part(seen, self.shape, z, y, out, self.how.orders)


def _mapping(scheme: Scheme, found: Intensity, window: Window | None) -> tuple[float, float, float, float]:
    """Lower and upper clip, what is subtracted, and what the rest is multiplied by."""
    if scheme == "none":
        return -math.inf, math.inf, 0.0, 1.0
    if scheme == "ct":
        if window is None:
            raise ValueError("a plan with the scheme ct has a window for that channel")
        return window.low, window.high, window.mean, 1 / window.std
    if scheme == "percentile":
        width = found.percentile_99_5 - found.percentile_0_5 or found.highest - found.lowest
        return -math.inf, math.inf, found.percentile_0_5, 1 / width if width > 0 else 0.0
    flat = found.std <= 1e-8 * abs(found.mean) or found.lowest == found.highest
    return -math.inf, math.inf, found.mean, 0.0 if flat else 1 / found.std
