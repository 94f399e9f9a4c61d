"""Cases that do not fit the others are told, once each."""

import pytest
from fewvox.data.agreement import disagreements
from fewvox.data.intensities import Intensity


def told(facts) -> list[tuple[str, str]]:
    return [(p.severity, p.where) for p in disagreements(facts)]


def test_cases_that_are_alike_are_nothing_to_tell(make_facts):
    assert told([make_facts(name, shape=(n, 20, 20)) for n, name in enumerate("abc", start=5)]) == []
    assert told([]) == []


@pytest.mark.parametrize(("usual", "other"), [("red", "green"), ("green", "red")])
def test_channels_of_another_name_than_most_are_a_warning(make_facts, usual, other):
    facts = [make_facts(n, channels=(usual,)) for n in "ab"] + [make_facts("c", channels=(other,))]
    assert told(facts) == [("warning", "c")]


@pytest.mark.parametrize(("turned", "expected"), [(False, [("warning", "b")]), (True, [("error", "a")])])
def test_orientations_mix_only_where_nothing_was_turned(make_facts, turned, expected):
    facts = [make_facts("a", orientation="RAS", turned=turned), make_facts("b"), make_facts("c")]
    assert told(facts) == expected
    assert told(facts[:1]) == told(facts[1:]) == []


def test_known_and_unknown_spacings_do_not_mix(make_facts):
    facts = [make_facts("a"), make_facts("b", spacing=None, unit=None)]
    assert told(facts) == [("error", "b")]
    assert told(facts[1:]) == []


def test_spacings_with_and_without_unit_do_not_mix(make_facts):
    facts = [make_facts("a"), make_facts("b", unit=None), make_facts("c", unit=None)]
    assert told(facts) == [("error", "b")]
    assert told(facts[1:]) == []


@pytest.mark.parametrize(
    ("spacing", "unit"), [((50.0, 1.0, 1.0), "um"), ((2.0, 0.04, 1.0), "um"), ((2.0, 1.0, 1.0), "mm")]
)
def test_a_spacing_twenty_times_off_the_median_is_an_error(make_facts, spacing, unit):
    facts = [make_facts(n) for n in "abc"]
    assert told([*facts, make_facts("d", spacing=spacing, unit=unit)]) == [("error", "d")]
    assert told([*facts, make_facts("d", spacing=(0.03, 0.015, 0.004), unit="mm")]) == []


def test_every_copy_is_an_error_but_the_first(make_facts):
    assert told([make_facts(n, content_hash="same") for n in "abc"]) == [("error", "b"), ("error", "c")]


@pytest.mark.parametrize("shape", [(300, 100, 20), (1, 20, 5)])
def test_sizes_unlike_all_others_are_one_warning(make_facts, shape):
    facts = [make_facts(n) for n in "abcdef"]
    odd = [make_facts(n, shape=shape) for n in "xy"]
    assert told([*facts, *odd]) == [("warning", "x, y")]
    assert told([*facts[:1], *odd[:1]]) == []


def test_a_channel_of_another_scale_is_one_warning_and_a_constant_one_none(make_facts):
    def with_std(name, *stds):
        grey = [
            Intensity(lowest=0, percentile_0_5=0, median=0, percentile_99_5=1, highest=1, mean=0, std=s)
            for s in stds
        ]
        return make_facts(name, channels=("a", "b"), intensities=tuple(grey))

    facts = [with_std(n, 1.0, 5.0) for n in "abc"]
    assert told([*facts, with_std("x", 1.0, 200.0)]) == [("warning", "x")]
    assert told([*facts, with_std("x", 0.0, 5.0)]) == []


def test_many_odd_cases_are_told_by_five_names(make_facts):
    facts = [make_facts(f"n{n}") for n in range(9)] + [make_facts(f"x{n}", shape=(1, 2, 2)) for n in range(7)]
    assert told(facts) == [("warning", "x0, x1, x2, x3, x4 and 2 more")]
