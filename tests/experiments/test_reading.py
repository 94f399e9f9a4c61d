"""What a user says of the files reaches the reading, by every command that reads."""

import inspect

import pytest
from fewvox.data.errors import UserError
from fewvox.data.formats.choices import ReadChoices
from fewvox.data.reading import ScanOptions
from fewvox.experiments import api
from fewvox.experiments.cli import app
from fewvox.experiments.reading import LabelReading, Reading, scan_options
from fewvox.experiments.reading_options import takes_reading
from typer import Typer
from typer.testing import CliRunner

TABLE = "case,z,y,x,unit\na,3,1,1,um\n"
# as it is typed, as Python takes it, and the field of ScanOptions it becomes
OPTIONS = {
    "spacing": ("0.5,0.1,0.1", (0.5, 0.1, 0.1), {"spacing": (0.5, 0.1, 0.1), "unit": "nm"}),
    "replace_nonfinite": ("-2.5", -2.5, {"replace_nonfinite": -2.5}),
    "axes": ("TZYX", "TZYX", {"image": ReadChoices(axes="TZYX")}),
    "time": ("3", 3, {"image": ReadChoices(time=3), "label": ReadChoices(time=3)}),
    "dataset": ("raw", "raw", {"image": ReadChoices(dataset="raw")}),
    "label_kind": ("overlapping", "overlapping", {"label_kind": "overlapping"}),
    "classes": ("4", 4, {"classes": 4}),
    "ignore_value": ("-1", -1, {"ignore": -1}),
    "label_axes": ("CZYX", "CZYX", {"label": ReadChoices(axes="CZYX")}),
    "label_dataset": ("seg", "seg", {"label": ReadChoices(dataset="seg")}),
    "fix": ("--no-fix", False, {"fix": False}),
    "accept_geometry": ("--accept-geometry", True, {"accept_geometry": True}),
}


def beside(name: str) -> dict[str, str]:
    return {"unit": "nanometer"} if name == "spacing" else {}


@pytest.fixture(scope="module")
def typed():
    """Types options at a command that reads; gives the exit status, what was said, and what it got."""
    heard: list[dict] = []
    command = Typer()
    command.command()(takes_reading(labels=True)(lambda *, reading: heard.append(reading)))

    def run(*arguments: str):
        heard.clear()
        ran = CliRunner().invoke(command, [*arguments])
        return ran.exit_code, ran.output, heard[0] if heard else None

    return run


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_reaches_the_reading_typed_or_called(typed, name):
    text, value, fields = OPTIONS[name]
    expected = ScanOptions(**fields)
    assert scan_options({name: value, **beside(name)}) == expected
    words = [text] if text.startswith("--") else [f"--{name.replace('_', '-')}={text}"]
    words += [f"--{key}={said}" for key, said in beside(name).items()]
    status, output, reading = typed(*words)
    assert status == 0, output
    assert scan_options(reading) == expected


def test_nothing_said_is_the_default(typed):
    assert scan_options(typed()[2]) == scan_options({}) == ScanOptions()


def test_a_table_of_spacings_is_read(tmp_path, typed):
    (tmp_path / "table.csv").write_text(TABLE)
    expected = {"a": ((3.0, 1.0, 1.0), "um")}
    assert scan_options({"spacings": tmp_path / "table.csv"}).spacings == expected
    assert scan_options(typed("--spacings", str(tmp_path / "table.csv"))[2]).spacings == expected


def test_there_is_no_other_option():
    known = {*OPTIONS, "unit", "spacings"}
    assert set(LabelReading.__annotations__) | set(Reading.__annotations__) == known


@pytest.mark.parametrize(("command", "labels"), [("scan", True), ("prepare", True), ("predict", False)])
def test_commands_show_and_functions_take_the_options(command, labels, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    shown = CliRunner().invoke(app, [command, "--help"]).output
    told = {*Reading.__annotations__, *(LabelReading.__annotations__ if labels else ())}
    for name in told:
        option = "--no-fix" if name == "fix" else f"--{name.replace('_', '-')}"
        assert option in shown, option
    assert ("--label-axes" in shown) == labels
    assert "reading" in inspect.signature(getattr(api, command)).parameters


@pytest.mark.parametrize(
    "words",
    [
        ["--spacing=1,2", "--unit=um"],
        ["--spacing=a,b,c", "--unit=um"],
        ["--label-kind=masks"],
        ["--classes=1"],
        ["--classes=two"],
        ["--time=-1"],
        ["--ignore-value=x"],
        ["--replace-nonfinite=zero"],
        ["--nothing"],
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(typed, words):
    status, output, reading = typed(*words)
    assert (status, reading) == (2, None), output


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"spacing": (1, 1, 1)}, "with unit None"),
        ({"unit": "um"}, "spacing None"),
        ({"spacing": (1, 1, 1), "unit": "furlong"}, "with unit furlong"),
        ({"spacing": (1, 0, 1), "unit": "um"}, "three lengths above 0"),
        ({"spacing": (1, float("nan"), 1), "unit": "um"}, "three lengths above 0"),
        ({"axes": "ZQX"}, "axes"),
        ({"time": -1}, "time"),
        ({"label_kind": "masks"}, "'classes', 'instances' or 'overlapping'"),
        ({"classes": 1}, "greater than or equal to 2"),
        ({"replace_nonfinite": float("nan")}, "replace-nonfinite"),
        ({"replace_nonfinite": 1e39}, "replace-nonfinite"),
        ({"label_kind": "overlapping", "ignore_value": 0}, "0 says that a voxel is not of the class"),
    ],
)
def test_what_makes_no_sense_is_refused_in_python_too(told, why):
    with pytest.raises(UserError, match=why):
        scan_options(told)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_only_a_finite_float32_stands_for_what_is_none(value):
    with pytest.raises(UserError, match="Every voxel of an image is a finite number"):
        scan_options({"replace_nonfinite": value})
    assert scan_options({"replace_nonfinite": -1.5}).replace_nonfinite == -1.5


def test_axes_may_be_in_lower_case():
    options = scan_options({"axes": "zcyx", "label_axes": "zyx"})
    assert (options.image.axes, options.label.axes) == ("ZCYX", "ZYX")
    with pytest.raises(UserError, match="axes"):
        scan_options({"axes": "ABC"})
