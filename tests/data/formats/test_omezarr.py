"""OME-Zarr: both versions, any order of axes, all transformations; nothing damaged passes for whole."""

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from fewvox.data.errors import VolumeError
from fewvox.data.formats import files, lazy, omezarr
from fewvox.data.formats.choices import ReadChoices
from fewvox.data.formats.files import open_volume, read_volume
from fewvox.data.volume import Volume
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.storage import LocalStore

VERSIONS = ("0.4", "0.5")
TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
EXTENTS = {"t": 3, "c": 2, "z": 5, "y": 8, "x": 9}
SCALE = {"t": 7.0, "c": 1.0, "z": 2.0, "y": 0.8, "x": 0.8}


def counting(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return (1 + np.arange(np.prod(shape)).reshape(shape) % 60000).astype(dtype)


def group_of(path: Path, version: str, image: dict[str, Any], **others: Any) -> zarr.Group:
    """A group with one multiscale image's metadata; `others` stand beside it."""
    told = {"multiscales": [{"version": version, **image}], **others}
    attributes = told if version == "0.4" else {"ome": {"version": version, **told}}
    return zarr.create_group(
        LocalStore(path), zarr_format=2 if version == "0.4" else 3, attributes=attributes, overwrite=True
    )


def save(
    path: Path,
    array: np.ndarray,
    axes: str = "zyx",
    version: str = "0.4",
    *,
    unit: str | None = "micrometer",
    transformations: list[dict] | None = None,
    of_image: list[dict] | None = None,
    omero: dict | None = None,
    **layout: Any,
) -> Path:
    """Writes an image of one level with the scale of each axis as in SCALE."""
    told = [{"name": a, "type": TYPES[a]} | ({"unit": unit} if unit and a in "zyx" else {}) for a in axes]
    if transformations is None:
        transformations = [{"type": "scale", "scale": [SCALE[axis] for axis in axes]}]
    level = {"path": "0", "coordinateTransformations": transformations}
    image = {"axes": told, "datasets": [level]} | (
        {"coordinateTransformations": of_image} if of_image else {}
    )
    group = group_of(path, version, image, **({"omero": omero} if omero else {}))
    layout = {"chunks": tuple(min(4, n) for n in array.shape), **layout}
    group.create_array("0", shape=array.shape, dtype=array.dtype, **layout)[...] = array
    return path


def chunks_of(path: Path) -> list[Path]:
    marks = {".zgroup", ".zarray", ".zattrs", "zarr.json"}
    return sorted(file for file in path.rglob("*") if file.is_file() and file.name not in marks)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("axes", ["zyx", "xyz", "czyx", "zcyx", "yxzc", "yx", "xcy", "tczyx", "xyzct"])
def test_axes_in_any_order_read_as_the_same_volume(tmp_path, axes, version):
    tczyx = counting(*EXTENTS.values())
    absent = tuple(0 if axis not in axes else slice(None) for axis in "tczyx")
    left = [axis for axis in "tczyx" if axis in axes]
    stored = tczyx[absent].transpose([left.index(axis) for axis in axes])
    path = save(tmp_path / "a.zarr", stored, axes, version)
    volume = omezarr.read(path, ReadChoices(time=1) if "t" in axes else ReadChoices())
    c, z = (slice(None) if axis in axes else slice(0, 1) for axis in "cz")
    np.testing.assert_array_equal(volume.array, tczyx[1 if "t" in axes else 0, c, z])
    assert volume.unit == "um"
    assert volume.spacing == (2.0 if "z" in axes else 0.8, 0.8, 0.8)


@pytest.mark.parametrize("version", VERSIONS)
def test_both_levels_of_transformations_place_the_voxels(tmp_path, version):
    """A voxel's place is image(level(index)), each scaling before it shifts."""
    level = [
        {"type": "scale", "scale": [2.0, 4.0, 4.0]},
        {"type": "translation", "translation": [1.0, 2.0, 3.0]},
    ]
    image = [
        {"type": "scale", "scale": [1.0, 0.25, 0.5]},
        {"type": "translation", "translation": [10.0, 20.0, 30.0]},
    ]
    path = save(
        tmp_path / "a.zarr", counting(5, 8, 9), version=version, transformations=level, of_image=image
    )
    volume = omezarr.read(path)
    assert (volume.spacing, volume.origin, volume.unit) == ((2.0, 1.0, 2.0), (11.0, 20.5, 31.5), "um")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_the_finest_level_is_read(tmp_path, order):
    array = counting(8, 8, 8)
    scales = [{"type": "scale", "scale": [2.0**n] * 3} for n in range(3)]
    levels = [{"path": f"s{n}", "coordinateTransformations": [scales[n]]} for n in order]
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    group = group_of(tmp_path / "a.zarr", "0.5", {"axes": axes, "datasets": levels})
    for n in range(3):
        coarse = array[:: 2**n, :: 2**n, :: 2**n]
        group.create_array(f"s{n}", shape=coarse.shape, dtype=coarse.dtype, chunks=(4, 4, 4))[...] = coarse
    volume = omezarr.read(tmp_path / "a.zarr")
    np.testing.assert_array_equal(volume.array[0], array)
    assert (volume.spacing, volume.unit) == ((1.0, 1.0, 1.0), "nm")


def test_a_level_that_is_announced_but_absent_is_an_error(tmp_path):
    path = save(tmp_path / "a.zarr", counting(5, 8, 9))
    shutil.rmtree(path / "0")
    with pytest.raises(VolumeError, match="no array called '0'"):
        read_volume(path)


def rewritten(path: Path, change) -> Path:
    """The image of version 0.4 with its metadata changed."""
    told = json.loads((path / ".zattrs").read_text())
    change(told["multiscales"][0])
    (path / ".zattrs").write_text(json.dumps(told))
    return path


def test_units_that_differ_between_axes_become_that_of_x(tmp_path):
    def in_nm(image: dict) -> None:
        image["axes"][0]["unit"] = "nanometer"
        image["datasets"][0]["coordinateTransformations"] = [
            {"type": "scale", "scale": [2000.0, 0.8, 0.8]},
            {"type": "translation", "translation": [500.0, 0.0, 1.0]},
        ]

    volume = omezarr.read(rewritten(save(tmp_path / "a.zarr", counting(5, 8, 9)), in_nm))
    assert (volume.spacing, volume.origin, volume.unit) == ((2.0, 0.8, 0.8), (0.5, 0.0, 1.0), "um")


def test_a_summary_older_than_the_metadata_is_not_believed(tmp_path):
    path = save(tmp_path / "a.zarr", counting(5, 8, 9))
    zarr.consolidate_metadata(LocalStore(path))
    zarr.open_group(path, use_consolidated=False)["0"].resize((4, 8, 9))
    assert omezarr.read(path).shape == (4, 8, 9)


def test_a_scale_without_unit_is_a_spacing_without_unit(tmp_path):
    volume = omezarr.read(save(tmp_path / "a.zarr", counting(5, 8, 9), unit=None))
    assert (volume.spacing, volume.unit) == ((2.0, 0.8, 0.8), None)


@pytest.mark.parametrize(
    ("unit", "transformations"),
    [
        (None, [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]),
        ("pixel", None),
        ("micrometer", []),
        ("micrometer", [{"type": "scale", "scale": [0.0, 1.0, 1.0]}]),
        ("micrometer", [{"type": "scale", "path": "scales"}]),
        ("micrometer", [{"type": "affine", "affine": []}]),
    ],
)
def test_where_the_scale_is_not_told_the_spacing_is_unknown(tmp_path, unit, transformations):
    path = save(tmp_path / "a.zarr", counting(5, 8, 9), unit=unit, transformations=transformations)
    volume = omezarr.read(path)
    assert (volume.spacing, volume.unit, volume.origin) == (None, None, (0.0, 0.0, 0.0))
    assert any("spacing unknown" in note for note in volume.notes)


def test_a_unit_on_some_axes_only_leaves_the_spacing_unknown(tmp_path):
    path = rewritten(save(tmp_path / "a.zarr", counting(5, 8, 9)), lambda image: image["axes"][0].pop("unit"))
    assert omezarr.read(path).spacing is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["membrane", "nuclei"], ("membrane", "nuclei")),
        (["nuclei", "nuclei"], ("channel0", "channel1")),
        (["nuclei", ""], ("channel0", "channel1")),
        (["nuclei"], ("channel0", "channel1")),
    ],
)
def test_channels_are_named_where_all_labels_differ(tmp_path, labels, names, version):
    omero = {"channels": [{"label": label} for label in labels]}
    path = save(tmp_path / "a.zarr", counting(2, 5, 8, 9), "czyx", version, omero=omero)
    assert omezarr.read(path).channels == names


def test_time_must_be_chosen(tmp_path):
    path = save(tmp_path / "a.zarr", counting(3, 5, 8, 9), "tzyx")
    with pytest.raises(VolumeError, match="3 time points") as caught:
        read_volume(path)
    assert "--time N" in caught.value.remedy
    with pytest.raises(VolumeError, match="from 0 to 2"):
        read_volume(path, ReadChoices(time=3))
    np.testing.assert_array_equal(read_volume(path, ReadChoices(time=2)).array[0], counting(3, 5, 8, 9)[2])


def test_one_time_point_needs_no_choice(tmp_path):
    path = save(tmp_path / "a.zarr", counting(1, 5, 8, 9), "tzyx")
    np.testing.assert_array_equal(read_volume(path).array, counting(1, 5, 8, 9))


def test_declared_axes_stand_above_those_of_the_file(tmp_path):
    path = save(tmp_path / "a.zarr", counting(5, 2, 8, 9), "tczyx"[1:])
    volume = read_volume(path, ReadChoices(axes="ZCYX"))
    np.testing.assert_array_equal(volume.array, counting(5, 2, 8, 9).swapaxes(0, 1))
    assert any("declared as ZCYX" in note for note in volume.notes)
    with pytest.raises(VolumeError, match=r"\(5, 2, 8, 9\), for the declared axes ZYX"):
        read_volume(path, ReadChoices(axes="ZYX"))


@pytest.mark.parametrize("axis", [{"name": "a", "type": "space"}, {"name": "y", "type": "space"}])
def test_axes_that_cannot_be_told_are_refused(tmp_path, axis):
    path = rewritten(
        save(tmp_path / "a.zarr", counting(5, 8, 9)), lambda image: image["axes"].__setitem__(0, axis)
    )
    with pytest.raises(VolumeError, match="--axes"):
        read_volume(path)


def test_a_channel_axis_is_told_by_its_type(tmp_path):
    def renamed(image: dict) -> None:
        image["axes"][0] = {"name": "wavelength", "type": "channel"}

    path = rewritten(save(tmp_path / "a.zarr", counting(2, 5, 8, 9), "czyx"), renamed)
    assert omezarr.read(path).array.shape == (2, 5, 8, 9)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plain_array_is_a_volume_of_unknown_spacing(tmp_path, zarr_format):
    zarr.create_array(LocalStore(tmp_path / "a.zarr"), data=counting(5, 8, 9), zarr_format=zarr_format)
    volume = read_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(volume.array[0], counting(5, 8, 9))
    assert volume.spacing is None
    assert any("read as ZYX" in note for note in volume.notes)


def test_a_plain_array_of_more_axes_is_for_the_user_to_name(tmp_path):
    zarr.create_array(LocalStore(tmp_path / "a.zarr"), data=counting(5, 2, 8, 9))
    with pytest.raises(VolumeError, match="--axes"):
        read_volume(tmp_path / "a.zarr")
    volume = read_volume(tmp_path / "a.zarr", ReadChoices(axes="ZCYX"))
    np.testing.assert_array_equal(volume.array, counting(5, 2, 8, 9).swapaxes(0, 1))


def test_the_dimensions_names_of_a_plain_array_are_heeded(tmp_path):
    zarr.create_array(
        LocalStore(tmp_path / "a.zarr"), data=counting(5, 8, 9), dimension_names=("x", "y", "z")
    )
    np.testing.assert_array_equal(read_volume(tmp_path / "a.zarr").array[0], counting(5, 8, 9).T)


def test_labels_inside_an_image_are_a_volume_of_their_own(tmp_path):
    path = save(tmp_path / "a.zarr", counting(5, 8, 9))
    zarr.open_group(path).create_group("labels", attributes={"labels": ["nuclei"]})
    save(path / "labels" / "nuclei", counting(5, 8, 9) % 3)
    np.testing.assert_array_equal(read_volume(path).array[0], counting(5, 8, 9))
    np.testing.assert_array_equal(read_volume(path / "labels" / "nuclei").array[0], counting(5, 8, 9) % 3)
    with pytest.raises(VolumeError, match="in it: nuclei"):
        read_volume(path / "labels")


PACKINGS: dict[tuple[str, str], Any] = {
    ("0.4", "raw"): None,
    ("0.4", "blosc"): numcodecs.Blosc(cname="lz4"),
    ("0.4", "zstd"): numcodecs.Zstd(),
    ("0.4", "zlib"): numcodecs.Zlib(),
    ("0.4", "lz4"): numcodecs.LZ4(),
    ("0.5", "raw"): None,
    ("0.5", "blosc"): BloscCodec(cname="lz4"),
    ("0.5", "zstd"): ZstdCodec(),
    ("0.5", "gzip"): GzipCodec(),
}


@pytest.mark.parametrize(("version", "packing"), PACKINGS)
def test_a_cut_chunk_is_an_error_that_names_the_volume(tmp_path, version, packing):
    """Blosc itself reads on behind the end of a cut chunk, whatever stands there."""
    noise = np.random.default_rng(0).integers(0, 60000, (8, 8, 8), np.uint16)
    path = save(tmp_path / "a.zarr", noise, version=version, compressors=PACKINGS[version, packing])
    np.testing.assert_array_equal(read_volume(path).array[0], noise)
    chunk = chunks_of(path)[1]
    whole = chunk.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], whole[:5], b""):
        chunk.write_bytes(damaged)
        with pytest.raises(VolumeError, match=r"a\.zarr"):
            read_volume(path)


def test_a_damaged_shard_is_an_error(tmp_path):
    """Zarr takes a shard of no bytes for one that was never written."""
    path = save(tmp_path / "a.zarr", counting(8, 8, 8), version="0.5", shards=(8, 8, 8), chunks=(4, 4, 4))
    (shard,) = chunks_of(path)
    whole = shard.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b""):
        shard.write_bytes(damaged)
        with pytest.raises(VolumeError, match=r"a\.zarr"):
            read_volume(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_absent_chunks_are_the_fill_value_and_counted(tmp_path, version):
    path = save(tmp_path / "a.zarr", counting(8, 8, 8), version=version, fill_value=7)
    chunks_of(path)[0].unlink()
    volume = read_volume(path)
    assert (volume.array[0, :4, :4, :4] == 7).all()
    assert (volume.array[0, 4:] == counting(8, 8, 8)[4:]).all()
    assert any("1 of 8 chunks" in note and "read as 7" in note for note in volume.notes)


@pytest.mark.parametrize("name", ["../b.zarr/0", "/etc", "file:///etc", "https://example.org/a.zarr"])
def test_nothing_outside_the_folder_is_followed(tmp_path, name):
    save(tmp_path / "b.zarr", counting(5, 8, 9))
    path = rewritten(
        save(tmp_path / "a.zarr", counting(5, 8, 9)),
        lambda image: image["datasets"][0].__setitem__("path", name),
    )
    with pytest.raises(VolumeError, match=r"a\.zarr"):
        read_volume(path)


@pytest.mark.parametrize("field", [{"filters": [{"id": "pickle"}]}, {"compressor": {"id": "pickle"}}])
@pytest.mark.parametrize("dtype", ["<u2", "|O"])
def test_pickled_chunks_are_refused(tmp_path, field, dtype):
    save(tmp_path / "a.zarr", counting(5, 8, 9))
    told = json.loads((tmp_path / "a.zarr/0/.zarray").read_text())
    (tmp_path / "a.zarr/0/.zarray").write_text(json.dumps({**told, "dtype": dtype, **field}))
    with pytest.raises(VolumeError):
        read_volume(tmp_path / "a.zarr")


def test_complex_voxels_are_refused(tmp_path):
    path = save(tmp_path / "a.zarr", counting(5, 8, 9, dtype="complex64"))
    with pytest.raises(VolumeError, match="data type complex64"):
        read_volume(path)


def test_a_folder_that_is_no_zarr_is_refused(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(VolumeError, match="without Zarr metadata"):
        read_volume(tmp_path / "a.zarr")


def test_damaged_metadata_are_an_error(tmp_path):
    for name in (".zattrs", ".zgroup", "0/.zarray"):
        path = save(tmp_path / "a.zarr", counting(5, 8, 9))
        (path / name).write_text("{")
        with pytest.raises(VolumeError):
            read_volume(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_sparse_giant_opens_at_once_and_reads_only_what_is_asked(tmp_path, version):
    told = {"chunks": (128, 128, 128), "dtype": "uint8", "shape": (1024,) * 3}
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    scale = [{"type": "scale", "scale": [2.0, 0.8, 0.8]}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    array = group_of(tmp_path / "a.zarr", version, image).create_array("0", **told)
    array[300:310, 500:520, 600:630] = np.broadcast_to(1 + np.arange(30, dtype=np.uint8), (10, 20, 30))
    tracemalloc.start()
    volume = open_volume(tmp_path / "a.zarr")
    part = volume.array[:, 299:311, 499:521, 599:631]
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    assert not isinstance(volume, Volume)
    assert isinstance(volume.array, lazy.LazyArray)
    assert (volume.shape, volume.array.chunk, volume.spacing) == ((1024,) * 3, (128,) * 3, (2.0, 0.8, 0.8))
    assert part.shape == (1, 12, 22, 32)
    assert part.sum() == 10 * 20 * sum(range(1, 31))
    assert (part[0, 1:-1, 1:-1, 1:-1] == 1 + np.arange(30)).all()


def test_damage_in_a_volume_on_disk_is_met_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(lazy, "WHOLE_BYTES", 0)
    path = save(tmp_path / "a.zarr", counting(8, 8, 8), compressors=numcodecs.Zstd())
    chunk = chunks_of(path)[-1]
    chunk.write_bytes(chunk.read_bytes()[:-1])
    volume = open_volume(path)
    assert (volume.array[:, :4, :4, :4] == counting(8, 8, 8)[:4, :4, :4]).all()
    with pytest.raises(VolumeError):
        volume.array[:, 4:, 4:, 4:]
    with pytest.raises(VolumeError):
        read_volume(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_result_stands_where_its_source_does(tmp_path, version):
    shift = {"type": "translation", "translation": [1.0, 0.0, 3.0, 4.0, 5.0]}
    scale = {"type": "scale", "scale": [7.0, 1.0, 2.0, 0.8, 0.3]}
    array = counting(3, 2, 5, 8, 9)
    path = save(tmp_path / "a.zarr", array, "tczyx", version, transformations=[scale, shift])
    volume = read_volume(path, ReadChoices(time=0))
    out = tmp_path / f"b{files.mask_suffix(volume.source)}"
    labels = counting(5, 8, 9, dtype="uint8")
    files.write_like(out, labels, volume.source)
    again = read_volume(out)
    np.testing.assert_array_equal(again.array[0], labels)
    assert again.array.dtype == np.uint8
    assert (again.spacing, again.unit, again.origin) == (volume.spacing, volume.unit, volume.origin)
    assert again.source.version == version
    assert "".join(axis.letter for axis in again.source.axes) == "ZYX"
    files.write_like(out, volume.array, volume.source)
    assert read_volume(out).array.shape == (2, 5, 8, 9)


def test_a_result_replaces_an_older_one_whole(tmp_path):
    volume = read_volume(save(tmp_path / "a.zarr", counting(5, 8, 9)))
    files.write_like(tmp_path / "b.zarr", counting(2, 5, 8, 9), volume.source)
    files.write_like(tmp_path / "b.zarr", counting(5, 8, 9), volume.source)
    np.testing.assert_array_equal(read_volume(tmp_path / "b.zarr").array[0], counting(5, 8, 9))
    with pytest.raises(ValueError, match="shape"):
        files.write_like(tmp_path / "b.zarr", counting(4, 8, 9), volume.source)
    np.testing.assert_array_equal(read_volume(tmp_path / "b.zarr").array[0], counting(5, 8, 9))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]


@settings(max_examples=15)
@given(data=st.data(), version=st.sampled_from(VERSIONS))
def test_any_result_is_read_back(tmp_path_factory, data, version):
    """Shapes, data types, orders of axes, spacings, both versions."""
    axes = "".join(data.draw(st.permutations(data.draw(st.sampled_from(["zyx", "czyx", "yx", "cyx"])))))
    extents = {axis: data.draw(st.integers(1, 6)) for axis in "czyx"}
    dtype = data.draw(st.sampled_from(["uint8", "int16", ">u2", "uint32", "float32", "float64"]))
    scale = [data.draw(st.floats(1e-4, 1e4)) for _ in axes]
    folder = tmp_path_factory.mktemp("any")
    array = counting(*(extents[axis] for axis in axes)).astype(dtype)
    steps = [{"type": "scale", "scale": scale}]
    volume = read_volume(save(folder / "a.zarr", array, axes, version, transformations=steps))
    assert volume.array.dtype.isnative
    assert volume.spacing == pytest.approx([scale[axes.index(a if a in axes else "x")] for a in "zyx"])
    files.write_like(folder / "b.zarr", volume.array, volume.source)
    again = read_volume(folder / "b.zarr")
    np.testing.assert_array_equal(again.array, volume.array)
    assert (again.array.dtype, again.spacing, again.unit) == (volume.array.dtype, volume.spacing, "um")
    result = zarr.open_array(LocalStore(folder / "b.zarr" / "0", read_only=True), mode="r")
    kept = axes if extents["c"] > 1 else axes.replace("c", "")
    assert result.shape == tuple(extents[axis] for axis in kept)
