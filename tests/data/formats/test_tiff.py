"""TIFF: one array through all its dialects; calibration kept as written; nothing cut passes for whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from fewvox.data.errors import VolumeError
from fewvox.data.formats import lazy, tiff
from fewvox.data.formats.choices import ReadChoices
from fewvox.data.formats.files import open_volume, read_volume
from hypothesis import given, settings
from hypothesis import strategies as st

NOISE = np.random.default_rng(0).integers(0, 60000, (9, 40, 50), np.uint16)
SPACING = (2.0, 0.8, 0.8)
OME_UM = {"PhysicalSizeZ": 2.0, "PhysicalSizeY": 0.8, "PhysicalSizeX": 0.8}
RESOLUTION = ((5, 4), (5, 4))
PLAIN: Any = {"metadata": None, "photometric": "minisblack"}


def counting(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) % 60000).astype(dtype)


def imagej(path: Path, array: np.ndarray, axes: str, **metadata: Any) -> Path:
    metadata = {"axes": axes, "unit": "um", "spacing": 2.0, **metadata}
    kept = {key: value for key, value in metadata.items() if value is not None}
    tifffile.imwrite(path, array, imagej=True, resolution=RESOLUTION, metadata=kept)
    return path


def ome(path: Path, array: np.ndarray, axes: str, **metadata: Any) -> Path:
    metadata = {"axes": axes, **OME_UM, **metadata}
    kept = {key: value for key, value in metadata.items() if value is not None}
    tifffile.imwrite(path, array, ome=True, photometric="minisblack", metadata=kept)
    return path


def tags(path: Path) -> dict[str, Any]:
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        return {name: page.tags.valueof(name) for name in ("XResolution", "YResolution", "ResolutionUnit")}


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_one_array_reads_alike_from_every_axis_order(tmp_path, bigtiff, byteorder):
    """I08, declared axes too."""
    zcyx = counting(9, 2, 64, 80)
    options: Any = {"photometric": "minisblack", "bigtiff": bigtiff, "byteorder": byteorder}
    calibration = {**OME_UM}
    imagej(tmp_path / "imagej.tif", zcyx, "ZCYX")
    tifffile.imwrite(tmp_path / "z.tif", zcyx, ome=True, metadata={"axes": "ZCYX", **calibration}, **options)
    czyx = zcyx.swapaxes(0, 1)
    tifffile.imwrite(tmp_path / "c.tif", czyx, ome=True, metadata={"axes": "CZYX", **calibration}, **options)
    wrong: Any = {"axes": "CZYX", **calibration}
    tifffile.imwrite(tmp_path / "declared.tif", zcyx, ome=True, metadata=wrong, **options)
    for name in ("imagej", "z", "c", "declared"):
        choices = ReadChoices(axes="ZCYX" if name == "declared" else None)
        volume = tiff.read(tmp_path / f"{name}.tif", choices)
        assert volume.array.dtype == np.dtype(np.uint16)
        assert volume.array.dtype.isnative
        np.testing.assert_array_equal(volume.array, czyx)
        assert (volume.spacing, volume.unit) == (SPACING, "um")


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.full((2, 3, 4), 65535, ">u2"), np.uint16),
        (np.full((2, 3, 4), -32768, ">i2"), np.int16),
        (np.full((2, 3, 4), 255, "u1"), np.uint8),
        (np.full((2, 3, 4), 1e300, "f8"), np.float64),
        (np.ones((2, 3, 8), bool), np.uint8),
    ],
)
def test_extreme_values_and_byte_orders_survive(tmp_path, array, dtype):
    tifffile.imwrite(tmp_path / "a.tif", array, byteorder=">", photometric="minisblack")
    volume = tiff.read(tmp_path / "a.tif")
    assert volume.array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.array[0], array)


@pytest.mark.parametrize(
    ("unit", "known"), [("um", "um"), ("micron", "um"), ("\\u00B5m", "um"), ("nm", "nm"), ("inch", "inch")]
)
def test_imagej_units(tmp_path, unit, known):
    volume = tiff.read(imagej(tmp_path / "a.tif", counting(5, 8, 9), "ZYX", unit=unit))
    assert (volume.spacing, volume.unit) == (SPACING, known)


@pytest.mark.parametrize("unit", ["pixel", "pixels", "", None, "sec"])
def test_without_a_unit_of_length_the_spacing_is_unknown(tmp_path, unit):
    volume = tiff.read(imagej(tmp_path / "a.tif", counting(5, 8, 9), "ZYX", unit=unit))
    assert (volume.spacing, volume.unit) == (None, None)
    assert any("spacing unknown" in note for note in volume.notes)


def test_imagej_without_the_distance_of_slices_has_no_spacing(tmp_path):
    volume = tiff.read(imagej(tmp_path / "a.tif", counting(5, 8, 9), "ZYX", spacing=None))
    assert (volume.spacing, volume.unit) == (None, None)
    assert any("distance between slices" in note for note in volume.notes)


def test_a_plain_stack_has_no_spacing_whatever_its_resolution(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", counting(5, 8, 9), metadata=None, photometric="minisblack", resolution=(300, 300)
    )
    volume = tiff.read(tmp_path / "a.tif")
    assert (volume.spacing, volume.unit, volume.array.shape) == (None, None, (1, 5, 8, 9))
    assert any("read as Z" in note for note in volume.notes)


def test_imagej_units_that_differ_between_axes_become_one(tmp_path):
    volume = tiff.read(imagej(tmp_path / "a.tif", counting(5, 8, 9), "ZYX", zunit="nm", spacing=2000.0))
    assert (volume.spacing, volume.unit) == (SPACING, "um")


def test_ome_in_nanometres_measures_the_same(tmp_path):
    sizes = {key: value * 1000 for key, value in OME_UM.items()}
    units = {f"{key}Unit": "nm" for key in OME_UM}
    volume = tiff.read(ome(tmp_path / "a.tif", counting(5, 8, 9), "ZYX", **sizes, **units))
    assert (volume.spacing, volume.unit) == ((2000.0, 800.0, 800.0), "nm")
    assert volume.in_unit("um").spacing == pytest.approx(SPACING)


def test_ome_units_that_differ_between_axes_become_one(tmp_path):
    volume = tiff.read(
        ome(tmp_path / "a.tif", counting(5, 8, 9), "ZYX", PhysicalSizeZ=2000.0, PhysicalSizeZUnit="nm")
    )
    assert (volume.spacing, volume.unit) == (SPACING, "um")


@pytest.mark.parametrize(
    "gap", [{"PhysicalSizeZ": None}, {"PhysicalSizeX": 0.0}, {"PhysicalSizeZUnit": "pixel"}]
)
def test_ome_with_a_gap_in_its_sizes_has_no_spacing(tmp_path, gap):
    volume = tiff.read(ome(tmp_path / "a.tif", counting(5, 8, 9), "ZYX", **gap))
    assert (volume.spacing, volume.unit) == (None, None)
    assert any("spacing unknown" in note for note in volume.notes)


def test_ome_channel_names_are_kept(tmp_path):
    path = ome(tmp_path / "a.tif", counting(2, 5, 8, 9), "CZYX", Channel={"Name": ["membrane", "nuclei"]})
    assert tiff.read(path).channels == ("membrane", "nuclei")


def test_axes_of_extent_1_are_squeezed_in_any_order(tmp_path):
    path = ome(tmp_path / "a.tif", counting(5, 8, 9)[:, None, None], "ZTCYX")
    np.testing.assert_array_equal(tiff.read(path).array, counting(5, 8, 9)[None])


@pytest.mark.parametrize("samples", [3, 4])
def test_colours_are_channels_never_slices(tmp_path, samples):
    array = counting(5, 8, 9, samples, dtype="uint8")
    extra: Any = {"extrasamples": ["unassalpha"]} if samples == 4 else {}
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", **extra)
    volume = tiff.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.array, np.moveaxis(array, -1, 0))
    assert volume.channels == ("red", "green", "blue", "alpha")[:samples]
    assert any("samples" in note for note in volume.notes)


def test_imagej_colours_are_channels(tmp_path):
    array = counting(5, 8, 9, 3, dtype="uint8")
    volume = tiff.read(imagej(tmp_path / "a.tif", array, "ZYXS"))
    np.testing.assert_array_equal(volume.array, np.moveaxis(array, -1, 0))


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_channels_stored_as_samples_of_their_own_plane_are_whole(tmp_path, kind):
    array = counting(5, 3, 8, 9)
    description = "ImageJ=1.54f\nimages=15\nchannels=3\nslices=5\nunit=um\nspacing=2.0\n"
    if kind == "imagej":
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            for plane in array:
                options: Any = {"photometric": "rgb", "planarconfig": "separate", "metadata": None}
                writer.write(plane, resolution=RESOLUTION, description=description, **options)
                description = ""
    else:
        options = {"photometric": "rgb", "planarconfig": "separate", "ome": True}
        tifffile.imwrite(tmp_path / "a.tif", array, metadata={"axes": "ZSYX", **OME_UM}, **options)
    volume = tiff.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.array, array.swapaxes(0, 1))
    assert volume.spacing == SPACING


@pytest.mark.parametrize("limit", [0, lazy.WHOLE_BYTES], ids=["on disk", "in memory"])
def test_one_page_may_stand_for_all_planes(tmp_path, monkeypatch, limit):
    """So ImageJ writes stacks beyond 4 GB."""
    monkeypatch.setattr(lazy, "WHOLE_BYTES", limit)
    description = "ImageJ=1.54f\nimages=9\nslices=9\nunit=um\nspacing=2.0\n"
    options: Any = {"resolution": RESOLUTION, "description": description}
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(NOISE[0], **PLAIN, **options)
    content = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        start = tif.pages.first.dataoffsets[0]
    (tmp_path / "a.tif").write_bytes(content[:start] + NOISE.tobytes())
    np.testing.assert_array_equal(tiff.read(tmp_path / "a.tif").load().array[0], NOISE)
    (tmp_path / "a.tif").write_bytes(content[:start] + NOISE.tobytes()[:-1])
    with pytest.raises(VolumeError):
        tiff.read(tmp_path / "a.tif")


def test_time_must_be_chosen(tmp_path):
    array = counting(3, 5, 8, 9)
    path = imagej(tmp_path / "a.tif", array, "TZYX")
    with pytest.raises(VolumeError, match="each time point as a file of its own") as caught:
        tiff.read(path)
    assert "3 time points" in caught.value.found
    assert "--time N" in caught.value.remedy
    assert "--axes" in caught.value.remedy
    for time in range(3):
        volume = tiff.read(path, ReadChoices(time=time))
        np.testing.assert_array_equal(volume.array[0], array[time])
        assert volume.spacing == SPACING
    with pytest.raises(VolumeError, match="from 0 to 2"):
        tiff.read(path, ReadChoices(time=3))


def test_time_that_is_depth_is_declared_so(tmp_path):
    """Stacks are often saved with their slices as frames."""
    volume = tiff.read(imagej(tmp_path / "a.tif", counting(5, 8, 9), "TYX"), ReadChoices(axes="ZYX"))
    np.testing.assert_array_equal(volume.array[0], counting(5, 8, 9))
    assert volume.spacing == SPACING
    assert any("declared as ZYX" in note and "TYX" in note for note in volume.notes)


def test_declared_axes_tell_what_nobody_else_does(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", counting(3, 5, 8, 9), photometric="minisblack")
    volume = tiff.read(tmp_path / "a.tif", ReadChoices(axes="CZYX"))
    np.testing.assert_array_equal(volume.array, counting(3, 5, 8, 9))
    volume = tiff.read(tmp_path / "a.tif", ReadChoices(axes="TZYX", time=1))
    np.testing.assert_array_equal(volume.array[0], counting(3, 5, 8, 9)[1])


@pytest.mark.parametrize("axes", ["ZYX", "TZCYX"])
def test_declared_axes_may_name_those_of_extent_1(tmp_path, axes):
    path = ome(tmp_path / "a.tif", counting(1, 5, 1, 8, 9), "TZCYX")
    np.testing.assert_array_equal(tiff.read(path, ReadChoices(axes=axes)).array[0], counting(5, 8, 9))


@pytest.mark.parametrize("axes", ["ZYX", "CYX", "ZCTX", "ZZYX"])
def test_declared_axes_that_do_not_fit_are_refused(tmp_path, axes):
    path = imagej(tmp_path / "a.tif", counting(5, 2, 8, 9), "ZCYX")
    with pytest.raises(
        VolumeError, match=rf"axes ZCYX of shape \(5, 2, 8, 9\), for the declared axes {axes}"
    ):
        tiff.read(path, ReadChoices(axes=axes))


def test_axes_that_cannot_be_told_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", counting(3, 5, 8, 9), photometric="minisblack")
    with pytest.raises(VolumeError, match="named axes"):
        tiff.read(tmp_path / "a.tif")


def test_several_images_are_refused_and_counted(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(counting(5, 8, 9), photometric="minisblack")
        writer.write(counting(4, 6, 7), photometric="minisblack")
    with pytest.raises(VolumeError, match="2 images"):
        tiff.read(tmp_path / "a.tif")


def test_pyramid_levels_are_no_images_of_their_own(tmp_path):
    array = counting(5, 64, 80)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        options: Any = {"tile": (16, 16), "photometric": "minisblack"}
        writer.write(array, subifds=1, metadata={"axes": "ZYX", **OME_UM}, **options)
        writer.write(array[:, ::2, ::2], subfiletype=1, **options)
    np.testing.assert_array_equal(tiff.read(tmp_path / "a.ome.tif").array[0], array)


def test_a_thumbnail_is_no_image_of_its_own(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(counting(5, 64, 80), **PLAIN)
        writer.write(counting(7, 11, dtype="uint8"), subfiletype=1, **PLAIN)
    np.testing.assert_array_equal(tiff.read(tmp_path / "a.tif").array[0], counting(5, 64, 80))


def test_complex_voxels_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", counting(5, 8, 9).astype(np.complex64))
    with pytest.raises(VolumeError, match="data type complex64"):
        tiff.read(tmp_path / "a.tif")


@pytest.mark.parametrize("shape", [(5, 8, 9), (8, 9)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_an_imagej_result_is_calibrated_as_its_source(tmp_path, shape, dtype):
    axes = "ZYX"[-len(shape) :]
    path = imagej(tmp_path / "a.tif", counting(*shape), axes, unit="\\u00B5m", spacing=1.75, zorigin=3.5)
    volume = tiff.read(path)
    labels = counting(*volume.shape, dtype=dtype)
    tiff.write(tmp_path / "b.tif", labels, volume.source)
    again = tiff.read(tmp_path / "b.tif")
    np.testing.assert_array_equal(again.array[0], labels)
    assert again.array.dtype == labels.dtype
    assert again.source == volume.source
    assert tags(tmp_path / "b.tif") == tags(path)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert tif.series[0].axes == axes
        meta = tif.imagej_metadata or {}
        assert (meta["unit"], meta["spacing"], meta["zorigin"]) == ("\\u00B5m", 1.75, 3.5)
        assert tif.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE


def test_an_imagej_unit_in_other_letters_is_understood_and_written_as_imagej_does(tmp_path):
    path = imagej(tmp_path / "a.tif", counting(5, 8, 9), "ZYX")
    path.write_bytes(path.read_bytes().replace(b"unit=um", b"unit=\xb5m"))
    volume = tiff.read(path)
    assert (volume.spacing, volume.unit) == (SPACING, "um")
    tiff.write(tmp_path / "b.tif", volume.array, volume.source)
    assert rb"unit=\u00B5m" in (tmp_path / "b.tif").read_bytes()


def test_a_result_of_a_colour_image_is_grey(tmp_path):
    volume = tiff.read(imagej(tmp_path / "a.tif", counting(5, 8, 9, 3, dtype="uint8"), "ZYXS"))
    tiff.write(tmp_path / "b.tif", volume.array[0], volume.source)
    again = tiff.read(tmp_path / "b.tif")
    assert again.array.shape == (1, 5, 8, 9)
    assert again.spacing == SPACING


def test_an_ome_result_keeps_sizes_and_units(tmp_path):
    units = {f"{key}Unit": "nm" for key in OME_UM}
    volume = tiff.read(ome(tmp_path / "a.ome.tif", counting(2, 5, 8, 9), "CZYX", **units))
    tiff.write(tmp_path / "b.ome.tif", volume.array[0], volume.source)
    again = tiff.read(tmp_path / "b.ome.tif")
    np.testing.assert_array_equal(again.array, volume.array[:1])
    assert again.source == volume.source
    assert dict(again.source.words) == {**OME_UM, **units}


def test_an_ome_result_does_not_invent_units(tmp_path):
    volume = tiff.read(ome(tmp_path / "a.ome.tif", counting(5, 8, 9), "ZYX"))
    tiff.write(tmp_path / "b.ome.tif", volume.array[0], volume.source)
    assert tiff.read(tmp_path / "b.ome.tif").source == volume.source


def test_a_plain_result_is_plain_with_the_same_tags(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        counting(3, 8, 9),
        metadata=None,
        photometric="minisblack",
        resolution=((7, 3), (11, 3)),
        resolutionunit="CENTIMETER",
    )
    volume = tiff.read(tmp_path / "a.tif")
    tiff.write(tmp_path / "b.tif", volume.array[0], volume.source)
    assert tags(tmp_path / "b.tif") == tags(tmp_path / "a.tif")
    again = tiff.read(tmp_path / "b.tif")
    assert again.source == volume.source
    np.testing.assert_array_equal(again.array, volume.array)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert not any((tif.is_imagej, tif.is_ome, tif.is_shaped))


def test_more_labels_than_imagej_can_hold_become_ome_with_the_same_spacing(tmp_path):
    volume = tiff.read(imagej(tmp_path / "a.tif", counting(5, 8, 9), "ZYX"))
    labels = counting(5, 8, 9).astype(np.uint32) + 70_000
    tiff.write(tmp_path / "b.tif", labels, volume.source)
    again = tiff.read(tmp_path / "b.tif")
    assert again.source.kind == "ome"
    assert (again.spacing, again.unit) == (SPACING, "um")
    np.testing.assert_array_equal(again.array[0], labels)


@pytest.mark.parametrize("kind", ["imagej", "ome", "plain"])
def test_channels_of_a_result_stay_apart(tmp_path, kind):
    source = tiff.TiffSource(kind=kind, shape=(5, 8, 9))
    probabilities = counting(3, 5, 8, 9).astype(np.float32)
    tiff.write(tmp_path / "b.tif", probabilities, source)
    np.testing.assert_array_equal(tiff.read(tmp_path / "b.tif").array, probabilities)


@pytest.mark.parametrize("kind", ["imagej", "ome", "plain"])
def test_beyond_the_classic_limit_it_is_a_bigtiff(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(tiff, "_CLASSIC_BYTES", 100)
    tiff.write(tmp_path / "b.tif", counting(5, 8, 9), tiff.TiffSource(kind=kind, shape=(5, 8, 9)))
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        assert tif.is_bigtiff
        assert not tif.is_imagej  # whose files end at 4 GB
    np.testing.assert_array_equal(tiff.read(tmp_path / "b.tif").array[0], counting(5, 8, 9))


def test_a_result_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match="shape"):
        tiff.write(tmp_path / "b.tif", counting(5, 8, 8), tiff.TiffSource(kind="imagej", shape=(5, 8, 9)))


@settings(max_examples=30, deadline=None)
@given(spacing=st.tuples(*[st.floats(1e-4, 1e4)] * 3), unit=st.sampled_from(["nm", "um", "mm"]))
def test_any_spacing_of_a_new_file_is_read_back(tmp_path_factory, spacing, unit):
    path = tmp_path_factory.mktemp("new") / "a.tif"
    tiff.write_new(path, counting(2, 3, 4), spacing, unit)
    volume = tiff.read(path)
    assert volume.unit == unit
    assert volume.spacing == pytest.approx(spacing, rel=1e-6)


@pytest.mark.parametrize("shape", [(5, 8, 9), (2, 5, 8, 9), (1, 1, 8, 9)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "uint32"])
def test_a_new_file_holds_its_array(tmp_path, shape, dtype):
    array = counting(*shape).astype(dtype)
    tiff.write_new(tmp_path / "a.tif", array, (0.28, 0.0046, 0.0046), "um")
    volume = tiff.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.array, array.reshape(-1, *shape[-3:]))
    assert volume.array.dtype == array.dtype
    assert (volume.spacing, volume.unit) == ((0.28, 0.0046, 0.0046), "um")


def test_a_new_file_without_spacing_has_none(tmp_path):
    tiff.write_new(tmp_path / "a.tif", counting(5, 8, 9))
    assert tiff.read(tmp_path / "a.tif").spacing is None


def pages(path: Path, array: np.ndarray, **options: Any) -> None:
    """One page after another, each with its data behind it, as simple writers do."""
    with tifffile.TiffWriter(path) as writer:
        for plane in array:
            writer.write(plane, **PLAIN, **options)


TILES: Any = {"compression": "lzw", "tile": (16, 16)}
WRITERS: dict[str, Callable[[Path, np.ndarray], object]] = {
    "imagej contiguous": lambda path, array: imagej(path, array, "ZYX"),
    "imagej compressed": lambda path, array: tiff.write_new(path, array, SPACING, "um"),
    "ome contiguous": lambda path, array: ome(path, array, "ZYX"),
    "ome compressed": lambda path, array: tiff.write(
        path, array, tiff.TiffSource(kind="ome", shape=array.shape)
    ),
    "shaped": lambda path, array: tifffile.imwrite(path, array, photometric="minisblack"),
    "pages": lambda path, array: pages(path, array),
    "compressed pages": lambda path, array: pages(path, array, compression="zlib"),
    "tiled pages": lambda path, array: pages(path, array, **TILES),
    "bigtiff": lambda path, array: tifffile.imwrite(path, array, bigtiff=True, **PLAIN),
    "big-endian": lambda path, array: tifffile.imwrite(path, array, byteorder=">", **PLAIN),
}


# tifffile ends these with 16 bytes that nothing in the file refers to: nobody can miss them
UNUSED_TAIL = {"imagej contiguous": 16, "shaped": 16, "big-endian": 16}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("array", [NOISE, NOISE[:3, :4, :5]], ids=["large", "small"])
def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path, name, array):
    path = tmp_path / "a.tif"
    WRITERS[name](path, array)
    np.testing.assert_array_equal(read_volume(path).array[0], array)
    content = path.read_bytes()
    size = len(content) - UNUSED_TAIL.get(name, 0)
    for cut in sorted({size * n // 16 for n in range(1, 16)} | {size - lost for lost in range(1, 300, 13)}):
        path.write_bytes(content[:cut])
        with pytest.raises(VolumeError):
            read_volume(path)


def announcing(path: Path, description: str, **options: Any) -> Path:
    """Nine pages under an ImageJ description."""
    with tifffile.TiffWriter(path) as writer:
        for plane in NOISE:
            writer.write(plane, **PLAIN, description=description, **options)
            description = ""
    return path


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=["raw", "compressed"])
@pytest.mark.parametrize("counts", ["images=12\nslices=12", "images=12"])
def test_fewer_pages_than_imagej_announces_are_refused(tmp_path, counts, options):
    path = announcing(tmp_path / "a.tif", f"ImageJ=1.54f\n{counts}\nunit=um\nspacing=2.0\n", **options)
    with pytest.raises(VolumeError, match=r"planes|tifffile reports"):
        tiff.read(path)


def test_a_list_of_pages_that_ends_early_is_refused(tmp_path):
    path = imagej(tmp_path / "a.tif", NOISE, "ZYX")
    with tifffile.TiffFile(path) as tif:
        fourth, fifth = tif.pages[3], tif.pages[4]
        place = path.read_bytes().index(fifth.offset.to_bytes(4, "little"), fourth.offset)
    content = bytearray(path.read_bytes())
    content[place : place + 4] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(VolumeError, match="4 pages for 9 planes"):
        tiff.read(path)


@pytest.mark.parametrize("also", [b"", b"PlaneCount"])
def test_fewer_planes_than_ome_announces_are_refused(tmp_path, also):
    path = ome(tmp_path / "a.ome.tif", NOISE[:5], "ZYX")
    content = path.read_bytes().replace(b'SizeZ="5"', b'SizeZ="9"')
    path.write_bytes(content.replace(also + b'="5"', also + b'="9"') if also else content)
    with pytest.raises(VolumeError, match="planes"):
        tiff.read(path)


def test_a_plane_that_ome_assigns_no_page_is_refused(tmp_path):
    path = ome(tmp_path / "a.ome.tif", NOISE[:5], "ZYX")
    path.write_bytes(path.read_bytes().replace(b'PlaneCount="5"', b'PlaneCount="4"'))
    with pytest.raises(VolumeError, match="1 of 5 planes are missing"):
        tiff.read(path)


def test_one_compressed_page_does_not_stand_for_many(tmp_path):
    description = "ImageJ=1.54f\nimages=9\nslices=9\nunit=um\nspacing=2.0\n"
    tifffile.imwrite(tmp_path / "a.tif", NOISE[0], **PLAIN, description=description, compression="zlib")
    with pytest.raises(VolumeError, match="1 page for 9 planes"):
        tiff.read(tmp_path / "a.tif")


def test_a_page_without_data_is_refused(tmp_path):
    """An interrupted writer leaves such pages; tifffile reads them as zeros."""
    pages(tmp_path / "a.tif", NOISE)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        third: Any = tif.pages[2]
        third.tags["StripByteCounts"].overwrite(0)
    with pytest.raises(VolumeError, match="page 3 has parts without data"):
        tiff.read(tmp_path / "a.tif")


STORED: dict[str, Callable[[Path, np.ndarray], object]] = {
    "ome": lambda path, array: ome(path, array, "CZYX"),
    "imagej": lambda path, array: imagej(path, array.swapaxes(0, 1), "ZCYX"),
    "big-endian": lambda path, array: tifffile.imwrite(
        path, array, byteorder=">", ome=True, photometric="minisblack", metadata={"axes": "CZYX"}
    ),
    "compressed": lambda path, array: tiff.write(
        path, array, tiff.TiffSource(kind="ome", shape=array.shape[1:])
    ),
    "tiled": lambda path, array: tifffile.imwrite(
        path, array, ome=True, photometric="minisblack", metadata={"axes": "CZYX"}, **TILES
    ),
    "bilevel": lambda path, array: tifffile.imwrite(
        path, array > 30000, ome=True, photometric="minisblack", metadata={"axes": "CZYX"}
    ),
    "samples": lambda path, array: tifffile.imwrite(
        path, np.moveaxis(array, 0, -1), photometric="rgb", compression="zlib"
    ),
    "planes of colours": lambda path, array: tifffile.imwrite(
        path, array.swapaxes(0, 1), photometric="rgb", planarconfig="separate", compression="zlib"
    ),
}


@pytest.mark.parametrize("name", STORED)
def test_boxes_of_a_volume_on_disk_are_those_of_one_in_memory(tmp_path, monkeypatch, name):
    array = np.random.default_rng(0).integers(0, 60000, (3, 7, 40, 50), np.uint16)
    STORED[name](tmp_path / "a.tif", array)
    whole = tiff.read(tmp_path / "a.tif")
    assert whole.array.shape == array.shape
    monkeypatch.setattr(lazy, "WHOLE_BYTES", 0)
    opened = tiff.read(tmp_path / "a.tif")
    assert isinstance(opened.array, lazy.LazyArray)
    assert (opened.array.dtype, opened.array.chunk) == (whole.array.dtype, (1, 40, 50))
    for box in ((slice(1, 3), slice(2, 5), slice(3, 30), slice(7, 8)), (slice(0, 3), slice(4, 4))):
        np.testing.assert_array_equal(opened.array[box], whole.array[box])
    np.testing.assert_array_equal(opened.load().array, whole.array)
    assert (opened.source, opened.channels, opened.notes) == (whole.source, whole.channels, whole.notes)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_time_point_of_a_volume_on_disk(tmp_path, monkeypatch, compression):
    monkeypatch.setattr(lazy, "WHOLE_BYTES", 0)
    array = counting(3, 5, 8, 9)
    options: Any = {"photometric": "minisblack", "compression": compression, "metadata": {"axes": "TZYX"}}
    tifffile.imwrite(tmp_path / "a.tif", array, ome=True, **options)
    np.testing.assert_array_equal(
        tiff.read(tmp_path / "a.tif", ReadChoices(time=2)).array[0:1, 1:3], array[2:3, 1:3]
    )


def test_a_sparse_giant_opens_at_once_and_reads_only_what_is_asked(tmp_path):
    tifffile.memmap(
        tmp_path / "a.tif", shape=(1024, 1024, 1024), dtype="u1", bigtiff=True, metadata={"axes": "ZYX"}
    )[1000, 500, 20] = 7
    volume = open_volume(tmp_path / "a.tif")
    assert isinstance(volume.array, lazy.LazyArray)
    assert (volume.shape, volume.array.chunk) == ((1024,) * 3, (1, 1024, 1024))
    part = volume.array[:, 999:1002, 499:502, 19:22]
    assert part.shape == (1, 3, 3, 3)
    assert (part[0, 1, 1, 1], part.sum()) == (7, 7)


def test_damage_in_a_volume_on_disk_is_met_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(lazy, "WHOLE_BYTES", 0)
    tiff.write_new(tmp_path / "a.tif", NOISE, SPACING, "um")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        last: Any = tif.pages[8]
        start, length = last.dataoffsets[0], last.databytecounts[0]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[start : start + length] = bytes(length)
    (tmp_path / "a.tif").write_bytes(content)
    volume = open_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.array[0:1, :8][0], NOISE[:8])
    with pytest.raises(VolumeError):
        volume.array[:, 8:]
    with pytest.raises(VolumeError):
        read_volume(tmp_path / "a.tif")
