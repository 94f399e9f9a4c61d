"""Progress without a terminal."""

from io import StringIO

import pytest
from fewvox.experiments import display
from rich.console import Console


def shown(monkeypatch) -> StringIO:
    out = StringIO()
    monkeypatch.setattr(display, "console", Console(file=out, force_terminal=False, width=200))
    return out


def test_a_log_file_gets_the_last_line_and_not_every_step(monkeypatch):
    out = shown(monkeypatch)
    with display.meter("training") as meter:
        for done in range(1, 101):
            meter.update(done, 100)
    assert out.getvalue().splitlines()[-1].startswith("training 100/100")
    assert len(out.getvalue().splitlines()) < 5


def test_the_time_left_follows_the_pace_of_this_start(monkeypatch):
    out, now = shown(monkeypatch), iter([0.0, 20.0])
    monkeypatch.setattr(display.time, "monotonic", lambda: next(now))
    with display.meter("training") as meter:
        meter.update(50, 100)  # resumed in the middle
        meter.update(60, 100)
    assert "(80 s left)" in out.getvalue()


def test_a_validation_has_a_line_of_its_own(monkeypatch):
    out = shown(monkeypatch)
    with display.meter("training") as meter:
        display.TrainingDisplay(meter).validated(5, {"score": 0.5})
    assert "step 5: validation score 0.500" in out.getvalue()


@pytest.mark.parametrize(
    ("count", "text"), [(1000, "1 MiB"), (200 * 2**20, "200 MiB"), (3 * 2**29, "1.5 GiB")]
)
def test_bytes_are_told_in_a_unit_that_fits(count, text):
    assert display.bytes_text(count) == text
