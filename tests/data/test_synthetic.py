"""Synthetic nuclei: seeded, exact, and seen through a believable microscope."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fewvox.data.errors import UserError
from fewvox.data.formats.files import read_volume
from fewvox.data.synthetic import (
    CHROMOCENTRE,
    NUCLEOLUS,
    NUCLEOPLASM,
    MicroscopeConfig,
    NucleiConfig,
    NucleusConfig,
    StainConfig,
    draw_geometry,
    nuclei_volume,
    record,
    stain,
    write_nuclei,
)
from scipy import ndimage

SMALL = NucleiConfig(shape=(12, 32, 32), nuclei=(1, 2))
# Sharp, even light, no read-out noise: only photons are left to chance.
PERFECT = MicroscopeConfig(
    psf_um=(1e-3, 1e-3, 1e-3),
    out_of_focus=0,
    shading=0,
    counts_per_photon=1,
    offset_counts=0,
    read_noise_counts=0,
)


def test_same_arguments_same_bytes() -> None:
    for first, again in zip(nuclei_volume(SMALL, 3, 5), nuclei_volume(SMALL, 3, 5), strict=True):
        assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize(("seed", "index"), [(3, 6), (4, 5), (5, 3)])
def test_seed_and_index_each_give_another_volume(seed: int, index: int) -> None:
    for first, other in zip(nuclei_volume(SMALL, 3, 5), nuclei_volume(SMALL, seed, index), strict=True):
        assert (first != other).any()


def test_image_and_label_are_on_one_grid() -> None:
    image, label = nuclei_volume(SMALL, 0, 0)
    assert (image.shape, image.dtype, label.shape, label.dtype) == (
        SMALL.shape,
        "uint16",
        SMALL.shape,
        "uint8",
    )


def test_mask_is_the_same_however_bad_the_picture() -> None:
    stained = replace(SMALL, stain=StainConfig(nucleus_photons=(1, 2), haze_photons=9, grain=0.5))
    blurred = replace(SMALL, microscope=MicroscopeConfig(psf_um=(2, 1, 1), read_noise_counts=99, shading=0.9))
    for index in range(5):
        image, label = nuclei_volume(SMALL, 0, index)
        for worse in (stained, blurred):
            other_image, other_label = nuclei_volume(worse, 0, index)
            assert (label == other_label).all()
            assert (image != other_image).any()


def test_classes_differ_in_chromocentres_only() -> None:
    _, one = nuclei_volume(NucleiConfig(), 0, 0)
    _, two = nuclei_volume(NucleiConfig(classes="nucleus+chromocentres"), 0, 0)
    assert set(np.unique(one)) == {0, 1}
    assert set(np.unique(two)) == {0, 1, 2}
    assert ((two > 0) == (one > 0)).all()


def test_a_ball_has_the_volume_it_is_asked_to_have() -> None:
    """Against the formula: neither bumps nor bend, in volumes that hold it whole for many centres."""
    ball = NucleusConfig(diameter_um=(4, 4), elongation=(1, 1), roughness=0)
    config = NucleiConfig(shape=(28, 56, 56), nuclei=(1, 1), nucleus=ball)
    voxels = [nuclei_volume(config, 0, index)[1].sum() for index in range(20)]
    assert max(voxels) * np.prod(config.spacing_um) == pytest.approx(np.pi / 6 * 4**3, rel=0.02)


@pytest.mark.parametrize("bend", [0.0, 0.6])
def test_bend_moves_the_middle_off_the_line_between_the_tips(bend: float) -> None:
    """The centroid of a bent nucleus leaves its centre line's chord; a straight one is symmetric about it."""
    look = NucleusConfig(
        diameter_um=(5, 5),
        elongation=(4, 4),
        roughness=0,
        bend=(bend, bend),
        tilt_deg=0,
        chromocentres=(1, 1),
    )
    config = NucleiConfig(shape=(90, 90, 90), spacing_um=(0.25, 0.25, 0.25), nuclei=(1, 1), nucleus=look)
    labels = (nuclei_volume(config, 0, index)[1] for index in range(40))
    points = next(np.argwhere(label) for label in labels if not _touches_border(label)) * 0.25
    axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2]
    along, across = ((points - points.mean(axis=0)) @ axes[:2].T).T
    tips = across[np.abs(along) > 0.8 * along.max()].mean()
    middle = across[np.abs(along) < 0.2 * along.max()].mean()
    half_width = 2.5 * 4 ** (-1 / 3)
    # 0.8 of the half-length and beyond against 0.2 and less: at least the sagitta's 0.8^2 - 0.2^2.
    assert abs(tips - middle) == pytest.approx(
        0.7 * bend * 3 * half_width, abs=0.1 * bend * 3 * half_width + 0.05
    )


def _touches_border(label: np.ndarray) -> bool:
    inner = label[1:-1, 1:-1, 1:-1]
    return bool(inner.sum() < label.sum())


def test_number_of_nuclei_is_in_range_and_each_is_seen() -> None:
    config = NucleiConfig()
    counts = set()
    for index in range(30):
        geometry = draw_geometry(config, np.random.default_rng([0, index]))
        present = set(np.unique(geometry.owner)) - {0}
        assert present == set(range(1, len(present) + 1))
        counts.add(len(present))
    assert counts == set(range(config.nuclei[0], config.nuclei[1] + 1))


def test_no_two_nuclei_are_closer_than_the_gap() -> None:
    """Slow reference: the distance of every voxel to each nucleus in turn."""
    config = NucleiConfig()
    for index in range(10):
        owner = draw_geometry(config, np.random.default_rng([2, index])).owner
        for number in range(1, owner.max() + 1):
            distance_um = ndimage.distance_transform_edt(owner != number, sampling=config.spacing_um)
            others = (owner > 0) & (owner != number)
            assert np.asarray(distance_um)[others].min() >= config.nucleus.gap_um


def test_default_nuclei_find_their_places() -> None:
    for index in range(60):
        assert draw_geometry(NucleiConfig(), np.random.default_rng([1, index])).owner.any()


def test_a_crowd_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="fewer or smaller nuclei"):
        nuclei_volume(replace(SMALL, nuclei=(60, 60)), 0, 0)


def test_nucleolus_is_dark_and_chromocentres_bright() -> None:
    config = NucleiConfig(nuclei=(1, 1), microscope=PERFECT)
    rng = np.random.default_rng(0)
    for _ in range(10):
        geometry = draw_geometry(config, rng)
        image = record(stain(geometry, config, rng), config.spacing_um, PERFECT, rng)
        plasm, centres, nucleolus = (
            image[geometry.parts == part].mean() for part in (NUCLEOPLASM, CHROMOCENTRE, NUCLEOLUS)
        )
        assert nucleolus < 0.6 * plasm
        assert centres > 1.7 * plasm


def test_every_whole_nucleus_has_its_parts() -> None:
    config = NucleiConfig(shape=(60, 128, 128), nuclei=(8, 8))
    geometry = draw_geometry(config, np.random.default_rng(0))
    border = np.ones(config.shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    whole = set(np.unique(geometry.owner)) - set(np.unique(geometry.owner[border]))
    assert len(whole) >= 3
    for number in whole:
        inside = geometry.owner == number
        assert set(np.unique(geometry.parts[inside])) == {NUCLEOPLASM, CHROMOCENTRE, NUCLEOLUS}


def test_blur_is_the_point_spread_wider_along_z() -> None:
    """Measured in the image of a point: second moments in um."""
    spacing, psf = (0.2, 0.1, 0.1), (0.52, 0.18, 0.18)
    photons = np.zeros((61, 61, 61))
    photons[30, 30, 30] = 2e6
    image = record(photons, spacing, replace(PERFECT, psf_um=psf), np.random.default_rng(0)).astype(float)
    places = np.indices(image.shape) - 30
    measured = [
        np.sqrt((image * place**2).sum() / image.sum()) * step
        for place, step in zip(places, spacing, strict=True)
    ]
    assert measured == pytest.approx(psf, rel=0.03)
    assert measured[0] > 2.5 * measured[1]


def test_out_of_focus_light_is_spread_and_none_is_lost() -> None:
    photons = np.zeros((61, 61, 61))
    photons[30, 30, 30] = 1e6
    sharp, hazy = (
        record(photons, (0.2, 0.1, 0.1), replace(PERFECT, psf_um=(0.5, 0.2, 0.2), out_of_focus=f), _rng())
        for f in (0.0, 0.5)
    )
    assert hazy[30, 30, 30] < 0.6 * sharp[30, 30, 30]
    assert hazy.sum(dtype=float) == pytest.approx(sharp.sum(dtype=float), rel=0.05)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("photons", [2.0, 20.0, 200.0])
def test_photon_noise_is_poisson(photons: float) -> None:
    """Variance over mean is the counts that one photon makes, at every brightness."""
    flat = np.full((20, 40, 40), photons)
    image = record(flat, (1, 1, 1), replace(PERFECT, counts_per_photon=10), _rng())
    assert image.mean() == pytest.approx(10 * photons, rel=0.02)
    assert image.var() / image.mean() == pytest.approx(10, rel=0.04)


def test_read_noise_is_there_without_any_light() -> None:
    microscope = replace(PERFECT, offset_counts=100, read_noise_counts=15)
    image = record(np.zeros((20, 40, 40)), (1, 1, 1), microscope, _rng())
    assert image.mean() == pytest.approx(100, abs=0.5)
    assert image.std() == pytest.approx(15, rel=0.03)


def test_shading_bounds_the_largest_loss_of_light() -> None:
    image = record(np.full((20, 40, 40), 1e4), (1, 1, 1), replace(PERFECT, shading=0.4), _rng())
    assert image.max() == pytest.approx(1e4, rel=0.04)
    assert image.min() == pytest.approx(0.6e4, rel=0.04)


def test_files_hold_the_volumes_and_their_spacing(tmp_path: Path) -> None:
    out = write_nuclei(tmp_path / "new" / "set", unannotated=2, annotated=1, test=1, seed=7, config=SMALL)
    assert _files(out) == [
        "test/images/nucleus_0001.tif",
        "test/labels/nucleus_0001.tif",
        "train/images/nucleus_0000.tif",
        "train/images/nucleus_0002.tif",
        "train/images/nucleus_0003.tif",
        "train/labels/nucleus_0000.tif",
    ]
    for kind, expected in zip(("images", "labels"), nuclei_volume(SMALL, 7, 1), strict=True):
        volume = read_volume(out / "test" / kind / "nucleus_0001.tif")
        assert volume.unit == "um"
        assert volume.spacing == pytest.approx(SMALL.spacing_um)
        assert (volume.array == expected[None]).all()


def test_more_unannotated_volumes_change_no_other(tmp_path: Path) -> None:
    few, many = (
        write_nuclei(tmp_path / str(n), unannotated=n, annotated=1, test=1, seed=7, config=SMALL)
        for n in (1, 3)
    )
    assert len(_files(many)) == len(_files(few)) + 2
    for name in _files(few):
        assert (few / name).read_bytes() == (many / name).read_bytes()


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_an_existing_folder_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="exists already"):
        write_nuclei(tmp_path, unannotated=1, annotated=1, test=1, seed=0, config=SMALL)
    assert _files(tmp_path) == ["mine.txt"]


def test_nothing_is_left_of_a_set_that_failed(tmp_path: Path) -> None:
    crowded = replace(SMALL, nuclei=(60, 60))
    with pytest.raises(UserError, match="fewer or smaller nuclei"):
        write_nuclei(tmp_path / "set", unannotated=1, annotated=1, test=1, seed=0, config=crowded)
    assert list(tmp_path.iterdir()) == []


def test_a_range_that_runs_backwards_is_named(tmp_path: Path) -> None:
    backwards = replace(SMALL, nucleus=NucleusConfig(diameter_um=(5, 3)))
    with pytest.raises(UserError, match=r"nucleus\.diameter_um"):
        write_nuclei(tmp_path / "set", unannotated=1, annotated=1, test=1, seed=0, config=backwards)
