"""Numbers that follow a training from their start to their end."""

import math

import pytest
from fewvox.data.settings import SettingsError, parse
from fewvox.ssl.schedule import Course, Schedule
from hypothesis import given
from hypothesis import strategies as st

courses = st.builds(
    Course, shape=st.sampled_from(["linear", "cosine", "polynomial"]), power=st.floats(0.1, 10)
)


@given(courses, st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted))
def test_every_course_goes_from_0_to_1_and_never_back(course, times):
    assert (course.passed(0.0), course.passed(1.0)) == (0, 1)
    early, late = (course.passed(t) for t in times)
    assert 0 <= early <= late <= 1


@pytest.mark.parametrize(
    ("shape", "power", "expected"),
    [
        ("linear", 3.0, [0, 0.25, 0.5, 0.75, 1]),
        ("cosine", 3.0, [(1 - math.cos(math.pi * t / 4)) / 2 for t in range(5)]),
        ("polynomial", 2.0, [0, 7 / 16, 3 / 4, 15 / 16, 1]),
        ("polynomial", 1.0, [0, 0.25, 0.5, 0.75, 1]),
        ("polynomial", 0.5, [1 - math.sqrt(1 - t / 4) for t in range(5)]),
    ],
)
def test_courses_are_those_of_their_formulas(shape, power, expected):
    course = Course(shape=shape, power=power)
    assert [course.passed(t / 4) for t in range(5)] == pytest.approx(expected)


def test_a_number_goes_from_its_start_to_its_end():
    schedule = Schedule(start=0.9, end=0.1)
    assert [schedule.at(t) for t in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.9, 0.7, 0.5, 0.1])
    bent = Schedule(start=1.0, end=3.0, shape="polynomial", power=2)
    assert bent.at(0.5) == pytest.approx(2.5)


@pytest.mark.parametrize("values", [{"shape": "step"}, {"power": 0}, {"middle": 1}])
def test_courses_that_there_are_not_are_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        parse(Schedule, {"start": 0, "end": 1} | values, "overlap")
