"""Which levels answer to each other, by what they see."""

from dataclasses import replace

import pytest
from fewvox.data.plan import Preprocessing
from fewvox.seg.alignment import Alignment, align
from fewvox.seg.networks.topology import Topology
from fewvox.seg.source import Contract
from hypothesis import given
from hypothesis import strategies as st

CUBE = (2, 2, 2)
FLAT = (1, 2, 2)


def volumes(spacing, unit="um"):
    return Preprocessing(
        unit=unit, spacing=spacing, orientation="RAS", channels=("channel0",), normalisation=("zscore",)
    )


def levels(*strides):
    n = len(strides) + 1
    return Topology(features=tuple(8 * 2**i for i in range(n)), kernels=((3, 3, 3),) * n, strides=strides)


def found(ours, spacing, theirs, their_spacing, unit="um", their_unit="um", unknown=()):
    contract = Contract(preprocessing=volumes(their_spacing, their_unit), patch=None, unknown=unknown)
    return align(levels(*ours), volumes(spacing, unit), levels(*theirs), contract)


@pytest.mark.parametrize(
    ("ours", "spacing", "theirs", "their_spacing", "shift"),
    [
        ((CUBE,) * 2, (1, 1, 1), (CUBE,) * 2, (1, 1, 1), 0),
        ((CUBE,) * 2, (2, 2, 2), (CUBE,) * 2, (1, 1, 1), 1),
        ((CUBE,) * 2, (1, 1, 1), (CUBE,) * 2, (2, 2, 2), -1),
        ((CUBE,) * 3, (1, 1, 1), (CUBE,) * 3, (4, 4, 4), -2),
        # the finest level of one network is in plane as coarse as the second of the other
        ((CUBE,) * 2, (1, 1, 1), (FLAT, CUBE, CUBE), (1, 0.5, 0.5), 1),
        ((FLAT, FLAT, CUBE), (2, 0.5, 0.5), (CUBE,) * 2, (1, 1, 1), -1),
        # more levels below do not matter
        ((CUBE,) * 4, (1, 1, 1), (CUBE,) * 2, (1.2, 1.2, 1.2), 0),
        # halfway: none is nearer
        ((CUBE,) * 2, (1, 1, 1), (CUBE,) * 2, (2**0.5,) * 3, 0),
        # a shift is nearer by a hair, and not worth it
        ((CUBE,) * 2, (1, 1, 1), (CUBE,) * 2, (1.45,) * 3, 0),
        ((CUBE,) * 2, (1, 1, 1), (CUBE,) * 2, (1.55,) * 3, -1),
    ],
)
def test_levels_of_like_resolution_answer_to_each_other(ours, spacing, theirs, their_spacing, shift):
    made = found(ours, spacing, theirs, their_spacing)
    assert made.shift == shift
    assert made.note.startswith("levels aligned by resolution: level ")
    assert found(theirs, their_spacing, ours, spacing).shift == -shift


def test_units_are_converted_and_the_note_tells_each_in_its_own():
    made = found((CUBE,) * 2, (0.002, 0.001, 0.001), (FLAT, CUBE), (2, 0.5, 0.5), unit="mm")
    assert made.shift == 1
    assert "level 0 here (0.002 x 0.001 x 0.001 mm) is level 1 there (2 x 1 x 1 um)" in made.note


@pytest.mark.parametrize(("levels_here", "levels_there"), [(2, 3), (1, 1), (3, 3)])
def test_volumes_of_other_worlds_meet_finest_with_finest(levels_here, levels_there):
    ours, theirs = (CUBE,) * levels_here, (CUBE,) * levels_there
    made = found(ours, (1, 1, 1), theirs, (1, 1, 1), unit="mm")
    assert made.shift == 0
    assert "finest with finest: 1 x 1 x 1 mm here and 1 x 1 x 1 um there are too far apart" in made.note


def test_a_shift_that_leaves_less_than_half_a_counterpart_is_not_taken():
    assert found((CUBE,) * 3, (4, 4, 4), (CUBE,) * 3, (1, 1, 1)).shift == 2
    made = found((CUBE,) * 2, (4, 4, 4), (CUBE,) * 2, (1, 1, 1))
    assert (made.shift, "too far apart" in made.note) == (0, True)


@pytest.mark.parametrize(
    ("changes", "side"),
    [
        ({"spacing": None}, "here"),
        ({"unit": None}, "here"),
        ({"their_spacing": None}, "there"),
        ({"their_unit": None}, "there"),
        ({"unknown": ("spacing",)}, "there"),
        ({"spacing": None, "their_spacing": None}, "here and there"),
    ],
)
def test_an_unknown_spacing_means_finest_with_finest(changes, side):
    told = {"ours": (CUBE,), "spacing": (4, 4, 4), "theirs": (CUBE,), "their_spacing": (2, 2, 2)} | changes
    made = found(**told)
    assert made.shift == 0
    assert made.note == f"levels aligned finest with finest: the spacing is unknown {side}"


def test_a_source_that_tells_nothing_of_its_volumes_is_met_finest_with_finest():
    made = align(levels(CUBE), volumes((1, 1, 1)), levels(CUBE), Contract(preprocessing=None, patch=None))
    assert (made.shift, "unknown there" in made.note) == (0, True)


@pytest.mark.parametrize(
    ("ours", "theirs", "shift", "block", "there"),
    [
        (3, 3, 0, "encoder.2", "encoder.2"),
        (3, 3, 0, "decoder.0", "decoder.0"),
        (4, 3, 0, "decoder.0", None),
        (4, 3, 0, "decoder.1", "decoder.0"),
        (3, 4, 0, "decoder.0", "decoder.1"),
        (4, 3, 0, "encoder.3", None),
        (3, 4, 1, "encoder.0", "encoder.1"),
        (3, 4, 1, "decoder.0", "decoder.0"),
        (3, 3, 1, "encoder.2", None),
        (3, 3, -1, "encoder.0", None),
        (3, 3, -1, "decoder.0", "decoder.1"),
        (3, 3, -1, "decoder.1", None),
        (3, 4, 0, "output", "output"),
        (3, 4, 1, "output", None),
    ],
)
def test_blocks_answer_by_their_level(ours, theirs, shift, block, there):
    assert Alignment(ours=ours, theirs=theirs, shift=shift, note="").counterpart(block) == there


def test_what_has_no_counterpart_is_too_fine_or_too_coarse():
    finer = Alignment(ours=3, theirs=3, shift=-1, note="")
    assert "as fine as" in finer.missing("encoder.0")
    assert "as fine as" in finer.missing("decoder.1")
    coarser = replace(finer, shift=1)
    assert "as coarse as" in coarser.missing("encoder.2")
    assert "as coarse as" in coarser.missing("decoder.0")
    assert "as coarse as" in Alignment(ours=2, theirs=1, shift=0, note="").missing("decoder.0")
    assert coarser.missing("output") == "the finest levels do not answer to each other"


@given(ours=st.integers(1, 6), theirs=st.integers(1, 6), shift=st.integers(-5, 5))
def test_no_block_there_answers_twice_and_levels_stay_together(ours, theirs, shift):
    made = Alignment(ours=ours, theirs=theirs, shift=shift, note="")
    back = Alignment(ours=theirs, theirs=ours, shift=-shift, note="")
    blocks = [f"encoder.{i}" for i in range(ours)] + [f"decoder.{i}" for i in range(ours - 1)]
    pairs = {block: there for block in blocks if (there := made.counterpart(block))}
    assert len(set(pairs.values())) == len(pairs)
    for block, there in pairs.items():
        assert back.level(there) == made.level(block) + shift
        assert back.counterpart(there) == block
