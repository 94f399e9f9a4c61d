"""A spacing beside a file is in the order and unit that it tells, and refused where it tells neither."""

import itertools
import json

import pytest
from fewvox.data.dataset import find_cases
from fewvox.data.errors import DatasetError
from fewvox.data.sidecars import read_sidecar, read_spacing_table, sidecar_of


@pytest.fixture
def write(tmp_path):
    def make(told, name="a.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(told if isinstance(told, str) else json.dumps(told), encoding="utf-8")
        return path

    return make


@pytest.mark.parametrize("order", list(itertools.permutations("zyx")))
def test_i11_spacing_by_name_is_the_same_in_every_order(write, order):
    lengths = {"z": 2, "y": 0.5, "x": 0.4}
    told = {"spacing": {axis: lengths[axis] for axis in order}, "unit": "micrometer"}
    assert read_sidecar(write(told)) == ((2, 0.5, 0.4), "um")


@pytest.mark.parametrize(("axes", "listed"), [("zyx", [2, 0.5, 0.4]), ("xyz", [0.4, 0.5, 2])])
def test_i11_a_list_is_read_in_the_order_of_its_axes(write, axes, listed):
    assert read_sidecar(write({"spacing": listed, "axes": axes, "unit": "nm"})) == ((2, 0.5, 0.4), "nm")


def test_i11_a_list_that_tells_no_order_is_refused_with_both_readings(write):
    path = write({"spacing": [2, 0.5, 0.4], "unit": "um"})
    with pytest.raises(DatasetError, match=r"z 2, y 0.5, x 0.4, or z 0.4, y 0.5, x 2\?") as caught:
        read_sidecar(path)
    assert caught.value.where == str(path)


def test_a_bare_list_of_nnunet_is_in_array_order_and_of_no_unit(write):
    write({"channel_names": {"0": "DAPI"}}, "dataset.json")
    assert read_sidecar(write({"spacing": [2, 0.5, 0.4]}, "imagesTr/a.json")) == ((2, 0.5, 0.4), None)


def test_a_bare_list_in_the_data_set_of_another_program_is_refused(write):
    write({"name": "images of ours"}, "dataset.json")
    with pytest.raises(DatasetError, match="without"):
        read_sidecar(write({"spacing": [2, 0.5, 0.4]}, "imagesTr/a.json"))


@pytest.mark.parametrize(
    "told",
    [
        '{"spacing": [1, 1',
        [],
        {"spacing": 2, "unit": "um"},
        {"spacing": {"z": 2, "y": 1}, "unit": "um"},
        {"spacing": {"z": 2, "y": 1, "x": 1, "t": 1}, "unit": "um"},
        {"spacing": {"z": 0, "y": 1, "x": 1}, "unit": "um"},
        {"spacing": {"z": -1, "y": 1, "x": 1}, "unit": "um"},
        '{"spacing": {"z": NaN, "y": 1, "x": 1}, "unit": "um"}',
        '{"spacing": {"z": Infinity, "y": 1, "x": 1}, "unit": "um"}',
        {"spacing": {"z": "2", "y": 1, "x": 1}, "unit": "um"},
        {"spacing": {"z": True, "y": 1, "x": 1}, "unit": "um"},
        {"spacing": [1, 1], "axes": "zyx", "unit": "um"},
        {"spacing": [1, 1, 1], "axes": "yxz", "unit": "um"},
    ],
)
def test_what_is_no_spacing_is_refused_by_the_name_of_the_file(write, told):
    with pytest.raises(DatasetError, match=r"a\.json: .*three lengths above 0"):
        read_sidecar(write(told))


@pytest.mark.parametrize("unit", [{}, {"unit": None}, {"unit": "pixel"}, {"unit": 1}, {"units": "um"}])
def test_a_spacing_without_unit_of_length_is_refused(write, unit):
    with pytest.raises(DatasetError, match=r"a\.json: (no|the) unit"):
        read_sidecar(write({"spacing": {"z": 2, "y": 1, "x": 1}, **unit}))


def test_only_a_file_that_tells_a_spacing_is_a_sidecar(write, tmp_path):
    write({"SpacingBetweenSlices": 2}, "a.json")
    assert sidecar_of(tmp_path / "a") is None
    assert sidecar_of(tmp_path / "absent") is None
    later = write({"spacing": [1, 1, 1]}, "b.json")
    assert sidecar_of(tmp_path / "a", tmp_path / "b") == later


def test_cases_find_their_sidecars(lay, write):
    root = lay("s.1/a.nii.gz", "s.1/b.tif", "dataset.tif")
    write({"name": "ours"}, "dataset.json")
    beside = write({"spacing": {"z": 2, "y": 1, "x": 1}, "unit": "um"}, "s.1/a.json")
    cases = find_cases(root).cases
    assert {case.id: case.sidecar for case in cases} == {"dataset": None, "s.1/a": beside, "s.1/b": None}


@pytest.mark.parametrize(
    "text",
    [
        "case,z,y,x,unit\na.tif,2,0.5,0.4,µm\ns/b,1,1,1,mm\n",
        "unit;x;y;z;case\num;0,4;0,5;2;a\nmm;1;1;1;s/b\n",
    ],
)
def test_a_table_tells_spacings_in_any_order_of_columns(write, text):
    found = read_spacing_table(write(text, "t.csv"))
    assert found == {"a": ((2, 0.5, 0.4), "um"), "s/b": ((1, 1, 1), "mm")}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("case,x,y,z\na,1,1,1\n", "columns"),
        ("case,z,y,x,unit\na,1,1,1,\n", "no unit"),
        ("case,z,y,x,unit\na,1,,1,um\n", "three lengths"),
        ("case,z,y,x,unit\na,1,one,1,um\n", "three lengths"),
        ("case,z,y,x,unit\na,1,nan,1,um\n", "three lengths"),
        ("case,z,y,x,unit\na,1,1,1,um\na.tif,1,1,1,mm\n", "two spacings of 'a'"),
    ],
)
def test_a_table_that_leaves_anything_open_is_refused(write, text, told):
    with pytest.raises(DatasetError, match=told):
        read_spacing_table(write(text, "t.csv"))
