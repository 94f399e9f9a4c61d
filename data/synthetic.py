"""Nuclei that never were: confocal volumes of plant nuclei with exact masks, made from a seed.

A volume is made in the order that light takes: what lies where, how brightly it is stained, what the
microscope makes of it. The mask is the first of these, taken at voxel centres before any blur or noise.
Brightness is counted in photons per voxel up to the detector; sizes are micrometres, vectors z, y, x.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field
from scipy import ndimage

from .atomic import new_folder
from .errors import UserError
from .formats import tiff
from .settings import checked, settings
from .volume import Shape, Triple


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the smaller end of a range comes first")
    return bounds


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveRange = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]
FractionRange = Annotated[tuple[Fraction, Fraction], AfterValidator(_ascending)]
Count = Annotated[int, Field(ge=1)]
CountRange = Annotated[tuple[Count, Count], AfterValidator(_ascending)]
Side = Annotated[int, Field(ge=2)]

# What a voxel belongs to: the values of Geometry.parts.
OUTSIDE, NUCLEOPLASM, CHROMOCENTRE, NUCLEOLUS = range(4)
LABEL_OF_PART = {"nucleus": (0, 1, 1, 1), "nucleus+chromocentres": (0, 1, 2, 1)}

# Plane waves in a random field: enough that no single direction shows.
WAVES = 24
# Tries at placing one nucleus before the volume counts as full.
PLACEMENTS = 500


@settings
class NucleusConfig:
    """The shapes of nuclei. Each range is drawn from evenly; sizes are roughly those of Arabidopsis."""

    # um, of the ball of equal volume: about 5 in meristems; with `elongation` 3.5 to 14 um from tip to tip
    diameter_um: PositiveRange = (3.5, 5.5)
    # length over width: 1 in meristems and young leaves, spindles in roots and along veins
    elongation: PositiveRange = (1.0, 4.0)
    # how far the middle stands off the line between the tips, over half-length less half-width (a ball
    # cannot bend); 0.6 is a banana
    bend: FractionRange = (0.0, 0.6)
    # standard deviation of the angle between long axis and image plane: flat tissue lies flat
    tilt_deg: NotNegative = 20.0
    # bumps of the surface, standard deviation as a fraction of the radius, and their length in um
    roughness: Annotated[float, Field(ge=0, le=0.1)] = 0.05
    bump_um: Positive = 4.0
    # closest approach of two nuclei, um: more than a voxel's diagonal (0.49), so that masks never touch
    gap_um: NotNegative = 0.6
    # radius of the nucleolus over half the width of the nucleus: some 4 to 17 % of the volume of a round one
    nucleolus_radius: FractionRange = (0.35, 0.55)
    # chromocentres per nucleus: 5 to 10 for the 10 chromosomes of a diploid Arabidopsis cell
    chromocentres: CountRange = (5, 10)
    # um; from 0.25 on each has a voxel centre inside at the default spacing
    chromocentre_radius_um: PositiveRange = (0.25, 0.4)


@settings
class StainConfig:
    """How many photons leave a voxel (relative values are fractions of its nucleus's nucleoplasm)."""

    # photons of nucleoplasm, drawn per nucleus on a logarithmic scale: a dim, fast confocal scan
    nucleus_photons: PositiveRange = (8.0, 24.0)
    # relative to nucleoplasm: chromocentres hold several times the DNA, a nucleolus next to none
    chromocentre: Positive = 2.5
    nucleolus: NotNegative = 0.25
    # grain of the chromatin: relative standard deviation, and its length in um
    grain: NotNegative = 0.2
    grain_um: Positive = 0.9
    # photons of cytoplasm, its relative standard deviation, and the length in um over which it changes
    haze_photons: NotNegative = 2.5
    haze_variation: NotNegative = 0.4
    haze_um: Positive = 7.0
    # photons of autofluorescent cell walls, their thickness and the usual distance between two, in um
    wall_photons: NotNegative = 8.0
    wall_um: Positive = 0.3
    cell_um: Positive = 11.0


@settings
class MicroscopeConfig:
    """What a confocal microscope makes of the photons."""

    # um, standard deviation of the point spread: at 520 nm, NA 1.2, water n 1.33 it is 0.26 axially (FWHM
    # 0.88 lambda / (n - sqrt(n^2 - NA^2))) and 0.09 laterally (0.51 lambda / NA); doubled by the tissue above
    psf_um: tuple[Positive, Positive, Positive] = (0.52, 0.18, 0.18)
    # fraction of the light that comes from out of focus, and how much wider it is spread
    out_of_focus: Fraction = 0.25
    out_of_focus_width: Positive = 4.0
    # largest loss of light by uneven illumination and depth; the brightest voxel has none
    shading: Annotated[float, Field(ge=0, lt=1)] = 0.4
    # detector: counts for one photon, counts for none, and the read-out noise's standard deviation in counts
    counts_per_photon: Positive = 40.0
    offset_counts: NotNegative = 100.0
    read_noise_counts: NotNegative = 15.0


@settings
class NucleiConfig:
    """One kind of synthetic volume."""

    # voxels z, y, x and um: 9.6 x 12.8 x 12.8 um of tissue, sampled as confocal stacks usually are
    shape: tuple[Side, Side, Side] = (24, 64, 64)
    spacing_um: tuple[Positive, Positive, Positive] = (0.4, 0.2, 0.2)
    # nuclei whose centre lies in the volume
    nuclei: CountRange = (3, 6)
    # classes of the label map: chromocentres are 2, or belong to the nucleus (1); the nucleolus is nucleus
    classes: Literal["nucleus", "nucleus+chromocentres"] = "nucleus"
    nucleus: NucleusConfig = NucleusConfig()
    stain: StainConfig = StainConfig()
    microscope: MicroscopeConfig = MicroscopeConfig()


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """What lies where, both (Z, Y, X): the part a voxel belongs to, and the nucleus (from 1; 0 is none)."""

    parts: np.ndarray
    owner: np.ndarray


def write_nuclei(
    out: str | Path,
    *,
    unannotated: int,
    annotated: int,
    test: int,
    seed: int,
    config: NucleiConfig | None = None,
) -> Path:
    """The new folder `out`: `train/{images,labels}` and `test/{images,labels}`, ImageJ TIFF in micrometres.

    Volumes are `nucleus_0000` and on: first the annotated, then those of the test, then the unannotated
    (which have no file in `labels`), so that more unannotated ones change nothing else. `out` appears whole
    or not at all. Raises UserError if it exists already.
    """
    out, config = Path(out), checked(config or NucleiConfig(), "synthetic nuclei")
    with new_folder(out) as root:
        for part in ("train", "test"):
            (root / part / "images").mkdir(parents=True)
            (root / part / "labels").mkdir()
        for index in range(annotated + test + unannotated):
            folder = root / ("test" if annotated <= index < annotated + test else "train")
            image, label = nuclei_volume(config, seed, index)
            name = f"nucleus_{index:04d}.tif"
            tiff.write_new(folder / "images" / name, image, config.spacing_um, "um")
            if index < annotated + test:
                tiff.write_new(folder / "labels" / name, label, config.spacing_um, "um")
    return out


def nuclei_volume(config: NucleiConfig, seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (uint16) and label map (uint8), both (Z, Y, X), of volume `index` of the data set `seed`.

    They depend on the three arguments alone, and the label map on neither stain nor microscope.
    """
    rng = np.random.default_rng([seed, index])
    geometry = draw_geometry(config, rng)
    photons = stain(geometry, config, rng)
    image = record(photons, config.spacing_um, config.microscope, rng)
    return image, np.array(LABEL_OF_PART[config.classes], np.uint8)[geometry.parts]


def draw_geometry(config: NucleiConfig, rng: np.random.Generator) -> Geometry:
    """Nuclei at random places, none touching another. Raises UserError if they do not fit."""
    geometry = Geometry(parts=np.zeros(config.shape, np.uint8), owner=np.zeros(config.shape, np.uint16))
    bumps = _random_field(config.shape, config.spacing_um, config.nucleus.bump_um, rng)
    low, high = config.nuclei
    count = int(rng.integers(low, high + 1))
    for number in range(1, count + 1):
        if not any(_place(number, geometry, bumps, config, rng) for _ in range(PLACEMENTS)):
            raise UserError(
                "nuclei",
                found=f"nucleus {number} of {count} found no free place in {PLACEMENTS} tries",
                rule=f"Nuclei of {config.nucleus.diameter_um} um keep {config.nucleus.gap_um} um apart",
                remedy="Ask for fewer or smaller nuclei, or enlarge `shape`",
            )
    return geometry


def stain(geometry: Geometry, config: NucleiConfig, rng: np.random.Generator) -> np.ndarray:
    """Photons leaving each voxel, (Z, Y, X): stained nuclei in faint cytoplasm crossed by cell walls."""
    look = config.stain

    def texture(length_um: float) -> np.ndarray:
        return _random_field(config.shape, config.spacing_um, length_um, rng)

    low, high = np.log(look.nucleus_photons)
    brightness = np.exp(rng.uniform(low, high, size=int(geometry.owner.max()) + 1))
    of_part = np.array([0.0, 1.0, look.chromocentre, look.nucleolus])
    nuclei = brightness[geometry.owner] * of_part[geometry.parts] * (1 + look.grain * texture(look.grain_um))
    haze = look.haze_photons * (1 + look.haze_variation * texture(look.haze_um))
    # A wall is where a random field is near 0; its slope is 2 pi / wavelength in the mean square.
    distance_um = np.abs(texture(2 * look.cell_um)) * look.cell_um / math.pi
    tissue = haze + look.wall_photons * (distance_um < look.wall_um / 2)
    return np.maximum(np.where(geometry.owner > 0, nuclei, tissue), 0)


def record(
    photons: np.ndarray, spacing_um: Triple, microscope: MicroscopeConfig, rng: np.random.Generator
) -> np.ndarray:
    """The image (uint16) of `photons`, both (Z, Y, X): blurred, unevenly lit, counted, read out."""
    sigma = np.array(microscope.psf_um) / spacing_um
    photons = photons.astype(np.float32)
    focused = ndimage.gaussian_filter(photons, sigma, mode="nearest")
    spread = ndimage.gaussian_filter(photons, sigma * microscope.out_of_focus_width, mode="nearest")
    light = focused + microscope.out_of_focus * (spread - focused)
    light *= 1 - microscope.shading * _shade(photons.shape, rng)
    noise = rng.normal(microscope.offset_counts, microscope.read_noise_counts, size=light.shape)
    counts = microscope.counts_per_photon * rng.poisson(light) + noise
    return np.clip(np.rint(counts), 0, np.iinfo(np.uint16).max).astype(np.uint16)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Nucleus:
    """One nucleus, told in its own frame: rows of `frame` are its long, bent and third axis in z, y, x."""

    centre: np.ndarray
    frame: np.ndarray
    half_length: float
    half_width: float
    sagitta: float

    def coordinates(self, box: tuple[slice, ...], spacing_um: Triple) -> np.ndarray:
        """Voxel centres of `box` in um in this frame, unbent, (3, Z, Y, X)."""
        axes = [
            (np.arange(side.start, side.stop) * step - middle).astype(np.float32)
            for side, step, middle in zip(box, spacing_um, self.centre, strict=True)
        ]
        z, y, x = np.ix_(*axes)
        along, bent, third = (f[0] * z + f[1] * y + f[2] * x for f in self.frame.astype(np.float32))
        return np.stack([along, bent - self.sagitta * (np.square(along / self.half_length) - 0.5), third])

    def box(self, shape: Shape, spacing_um: Triple, margin: float) -> tuple[slice, ...]:
        """The voxels that may lie inside this nucleus when it is `margin` half-widths larger all round."""
        size = 1 + margin
        bent = self.half_width * size + self.sagitta * max(0.5, size**2 - 0.5)
        own = np.array([self.half_length * size, bent, self.half_width * size])
        reach = np.abs(self.frame.T) @ own
        low = np.ceil((self.centre - reach) / spacing_um).astype(int)
        high = np.floor((self.centre + reach) / spacing_um).astype(int) + 1
        return tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(low, high, shape, strict=True))


def _place(
    number: int, geometry: Geometry, bumps: np.ndarray, config: NucleiConfig, rng: np.random.Generator
) -> bool:
    """Adds one random nucleus to `geometry`, unless another is too near; whether it did."""
    look = config.nucleus
    nucleus = _draw_nucleus(config, rng)
    gap = look.gap_um / nucleus.half_width
    # Bumps are sums of waves, which stay below 4 standard deviations almost everywhere.
    box = nucleus.box(config.shape, config.spacing_um, gap + 4 * look.roughness)
    place = nucleus.coordinates(box, config.spacing_um)
    half_axes = np.array([nucleus.half_length, nucleus.half_width, nucleus.half_width], np.float32)
    radius = np.linalg.norm(place / half_axes[:, None, None, None], axis=0) - look.roughness * bumps[box]
    if geometry.owner[box][radius < 1 + gap].any():
        return False
    inside = radius < 1
    points, parts = place[:, inside], np.full(np.count_nonzero(inside), NUCLEOPLASM)
    for part, centre, size in _organelles(nucleus, look, rng):
        parts[np.square(points - centre[:, None]).sum(axis=0) < size**2] = part
    geometry.parts[box][inside] = parts
    geometry.owner[box][inside] = number
    return True


def _draw_nucleus(config: NucleiConfig, rng: np.random.Generator) -> _Nucleus:
    look = config.nucleus
    elongation = rng.uniform(*look.elongation)
    half_width = rng.uniform(*look.diameter_um) / 2 * elongation ** (-1 / 3)
    half_length = half_width * elongation
    return _Nucleus(
        centre=rng.uniform(0, 1, size=3) * (np.array(config.shape) - 1) * config.spacing_um,
        frame=_random_frame(math.radians(look.tilt_deg), rng),
        half_length=half_length,
        half_width=half_width,
        sagitta=rng.uniform(*look.bend) * abs(half_length - half_width),
    )


def _organelles(
    nucleus: _Nucleus, look: NucleusConfig, rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray, float]]:
    """Part, centre (um, in the nucleus's frame) and radius of each ball within, in the order of painting."""
    half_axes = np.array([nucleus.half_length, nucleus.half_width, nucleus.half_width])
    # A nucleolus lies near the middle of the long axis.
    off_centre = 0.2 * half_axes * rng.uniform(-1, 1, size=3)
    yield NUCLEOLUS, off_centre, rng.uniform(*look.nucleolus_radius) * nucleus.half_width
    low, high = look.chromocentres
    for _ in range(rng.integers(low, high + 1)):
        direction = rng.normal(size=3)
        # Chromocentres lie at the periphery.
        depth = rng.uniform(0.55, 0.85) / np.linalg.norm(direction)
        yield CHROMOCENTRE, depth * direction * half_axes, rng.uniform(*look.chromocentre_radius_um)


def _random_frame(tilt: float, rng: np.random.Generator) -> np.ndarray:
    """Three orthonormal rows (z, y, x): a long axis about `tilt` off the plane, two at random around it."""
    turn, roll = rng.uniform(0, 2 * math.pi, size=2)
    rise = rng.normal(0, tilt)
    flat = np.array([0, math.sin(turn), math.cos(turn)])
    side = np.array([0, math.cos(turn), -math.sin(turn)])
    up = np.array([1.0, 0, 0])
    long = math.cos(rise) * flat + math.sin(rise) * up
    steep = math.cos(rise) * up - math.sin(rise) * flat
    return np.stack(
        [long, math.cos(roll) * side + math.sin(roll) * steep, math.cos(roll) * steep - math.sin(roll) * side]
    )


def _random_field(
    shape: Shape, spacing_um: Triple, wavelength_um: float, rng: np.random.Generator
) -> np.ndarray:
    """A smooth random field (Z, Y, X) of mean 0 and variance 1: plane waves in all directions."""
    directions = rng.normal(size=(WAVES, 3))
    directions *= 2 * math.pi / wavelength_um / np.linalg.norm(directions, axis=1, keepdims=True)
    phase = rng.uniform(0, 2 * math.pi, size=(WAVES, 1))
    # exp(i k.r) is a product over axes, so the sum over waves is one matrix product.
    z, y, x = (
        np.exp(1j * steps[:, None] * np.arange(side))
        for steps, side in zip((directions * spacing_um).T, shape, strict=True)
    )
    planes = (z * np.exp(1j * phase))[:, :, None] * y[:, None, :]
    field = (planes.reshape(WAVES, -1).T @ x).real
    return field.reshape(shape) * math.sqrt(2 / WAVES)


def _shade(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A slope and a bow in a random direction, from 0 (brightest) to 1, (Z, Y, X)."""
    z, y, x = np.ix_(*(np.linspace(-1, 1, side) for side in shape))
    slope, bow = rng.uniform(-1, 1, size=(2, 3))
    # Depth always takes light away: what lies below has tissue above it.
    shade = abs(slope[0]) * z + slope[1] * y + slope[2] * x + bow[1] * y**2 + bow[2] * x**2
    return (shade - shade.min()) / np.ptp(shade)
