"""MetaMorph's calibration: MetaSeries XML and STK tags, and results that keep it."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from fewvox.data.formats import tiff

ARRAY = np.arange(5 * 8 * 9, dtype=np.uint16).reshape(5, 8, 9)
HEIGHTS = (10.0, 10.5, 11.0, 11.5, 12.0)


def xml(height: float | None, *, state: str = "on", unit: str = "um", x: float | None = 0.13) -> str:
    props = [
        f'<prop id="spatial-calibration-state" type="bool" value="{state}"/>',
        '<prop id="spatial-calibration-y" type="float" value="0.26"/>',
        f'<prop id="spatial-calibration-units" type="string" value="{unit}"/>',
    ]
    props += [f'<prop id="spatial-calibration-x" type="float" value="{x}"/>'] if x else []
    props += [f'<prop id="z-position" type="float" value="{height}"/>'] if height is not None else []
    return f"<MetaData><Build>7</Build><PlaneInfo>{''.join(props)}</PlaneInfo></MetaData>"


def metaseries(path: Path, descriptions: list[str], software: str | None = "MetaSeries") -> Path:
    with tifffile.TiffWriter(path) as writer:
        for plane, description in zip(ARRAY, descriptions, strict=False):
            options: Any = {"software": software, "metadata": None, "photometric": "minisblack"}
            writer.write(plane, description=description, **options)
    return path


def stk(path: Path, distances: list[float], unit: str = "um") -> Path:
    """A MetaMorph stack: one page with all planes behind it, and tags that count otherwise than TIFF."""
    planes = len(distances)
    dates = (2453738, 0, 2453738, 0)
    rows = b"".join(struct.pack("<6I", round(distance * 1000), 1000, *dates) for distance in distances)
    # ids 4, 5, 6 of UIC1 are the calibrations of x and y, as fractions, and their unit
    uic1 = np.zeros(6, "<u4")
    tags: Any = [(33628, 4, 6, uic1.tobytes(), True), (33629, 4, 6 * planes, rows, True)]
    options: Any = {"metadata": None, "photometric": "minisblack", "extratags": tags}
    tifffile.imwrite(path, ARRAY[0], byteorder="<", **options)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        places = {code: (page.tags[code].offset, page.tags[code].valueoffset) for code in (33628, 33629)}
        strip = page.tags["StripOffsets"].valueoffset
    for code, kind, count in ((33629, 5, planes), (33628, 4, 3)):
        entry = places[code][0]
        content[entry + 2 : entry + 8] = struct.pack("<HI", kind, count)
    end = len(content)
    content += struct.pack("<5I", 13, 100, 26, 100, len(unit) + 1) + unit.encode() + b"\0"
    uic1 = struct.pack("<6I", 4, end, 5, end + 8, 6, end + 16)
    content[places[33628][1] : places[33628][1] + 24] = uic1
    content[strip : strip + 4] = struct.pack("<I", len(content))
    path.write_bytes(content + ARRAY[:planes].tobytes())
    return path


@pytest.mark.parametrize("software", ["MetaSeries", None])
def test_metaseries_pages_tell_the_spacing(tmp_path, software):
    path = metaseries(tmp_path / "a.tif", [xml(height) for height in HEIGHTS], software)
    volume = tiff.read(path)
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert (volume.spacing, volume.unit) == ((0.5, 0.26, 0.13), "um")


@pytest.mark.parametrize(
    ("descriptions", "said"),
    [
        ([xml(h) for h in (10, 10.5, 11, 12, 12.5)], "no one distance"),
        ([xml(h) for h in (10, 10, 10, 10, 10)], "no one distance"),
        ([xml(None)] * 5, "no one distance"),
        ([xml(10.0)] + [""] * 4, "no one distance"),
        ([xml(h, state="off") for h in HEIGHTS], "calibration is off"),
        ([xml(h, x=None) for h in HEIGHTS], "calibration is off"),
        ([xml(h, unit="pixel") for h in HEIGHTS], "'pixel'"),
    ],
)
def test_what_metaseries_pages_do_not_tell_is_unknown(tmp_path, descriptions, said):
    volume = tiff.read(metaseries(tmp_path / "a.tif", descriptions))
    assert (volume.spacing, volume.unit) == (None, None)
    assert any(said in note and "spacing unknown" in note for note in volume.notes)


def test_a_stage_that_stops_a_little_off_is_even(tmp_path):
    heights = np.add(HEIGHTS, (0, 0.001, -0.001, 0.001, 0))
    volume = tiff.read(metaseries(tmp_path / "a.tif", [xml(height) for height in heights]))
    assert volume.spacing == (0.5, 0.26, 0.13)


def test_a_single_plane_is_as_deep_as_its_pixels_are_wide(tmp_path):
    volume = tiff.read(metaseries(tmp_path / "a.tif", [xml(10.0)]))
    assert (volume.spacing, volume.shape) == ((0.13, 0.26, 0.13), (1, 8, 9))


def test_stk_tags_tell_the_spacing(tmp_path):
    volume = tiff.read(stk(tmp_path / "a.tif", [0.5] * 5))
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert (volume.spacing, volume.unit) == ((0.5, 0.26, 0.13), "um")


def test_stk_planes_unevenly_apart_have_no_spacing(tmp_path):
    volume = tiff.read(stk(tmp_path / "a.tif", [0.5, 0.5, 0.7, 0.5, 0.5]))
    assert volume.spacing is None
    assert any("no one distance" in note for note in volume.notes)


@pytest.mark.parametrize("kind", ["metaseries", "stk"])
def test_a_result_keeps_the_spacing(tmp_path, kind):
    if kind == "stk":
        path = stk(tmp_path / "a.tif", [0.5] * 5)
    else:
        path = metaseries(tmp_path / "a.tif", [xml(height) for height in HEIGHTS])
    volume = tiff.read(path)
    tiff.write(tmp_path / "b.tif", volume.array[0].astype(np.uint8), volume.source)
    again = tiff.read(tmp_path / "b.tif")
    assert (again.spacing, again.unit, again.source.kind) == (volume.spacing, "um", "imagej")
