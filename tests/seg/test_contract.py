"""Volumes prepared otherwise than in pretraining are refused with what differs, or accepted knowingly."""

from dataclasses import replace

import pytest
from fewvox.data.plan import Window
from fewvox.seg import checkpoint
from fewvox.seg.contract import (
    check,
    check_preprocessing,
    mismatches,
    patch_warning,
    windows_apart,
)
from fewvox.seg.source import Contract
from fewvox.seg.transfer import TransferError
from hypothesis import assume, given
from hypothesis import strategies as st

WINDOW = Window(low=-1000.0, high=300.0, mean=50.0, std=100.0)


@pytest.fixture
def contract(make_plan):
    """A contract of the small plan; keywords replace fields of its preprocessing."""

    def make(**fields):
        plan = make_plan(**fields)
        return Contract(preprocessing=plan.preprocessing, patch=plan.training.patch)

    return make


def told(contract, plan):
    return [(m.what, m.theirs, m.ours) for m in mismatches(contract, plan)]


@pytest.mark.parametrize(
    ("fields", "what", "theirs", "ours"),
    [
        (
            {"spacing": (2.0, 1.0, 1.01)},
            "spacing",
            "2 x 1 x 1 mm",
            "2 x 1 x 1.01 mm (1.01 times coarser)",
        ),
        ({"spacing": None, "unit": None}, "spacing", "2 x 1 x 1 mm", "unknown"),
        ({"unit": "um"}, "spacing", "2 x 1 x 1 mm", "2 x 1 x 1 um (1,000 times finer)"),
        ({"unit": None}, "spacing", "2 x 1 x 1 mm", "2 x 1 x 1 (no unit)"),
        ({"orientation": "stored"}, "orientation", "axes turned to RAS", "axes as stored in the files"),
        ({"normalisation": ("percentile",)}, "normalisation", "zscore", "percentile"),
    ],
)
def test_each_difference_is_told_with_both_sides(contract, make_plan, fields, what, theirs, ours):
    assert told(contract(), make_plan(**fields)) == [(what, theirs, ours)]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"unit": "um", "spacing": (2000.0, 1000.0, 1000.0)},
        {"spacing": (2.0, 1.0, 1.0005)},
        {"channels": ("T1",)},
        {"channels": ("channel0", "channel1"), "normalisation": ("zscore", "zscore")},
        {"patch": (40, 80, 80)},
        {"orders": (0, 1, 1)},
    ],
)
def test_equal_preprocessing_told_otherwise_is_no_mismatch(contract, make_plan, fields):
    assert mismatches(contract(), make_plan(**fields)) == ()
    assert mismatches(contract(**fields), make_plan()) == ()


@pytest.mark.parametrize(
    ("theirs", "ours", "differ"),
    [
        (("T1", "T2"), ("T2", "T1"), False),
        (("T1", "T2"), ("t1", "t2"), False),
        (("T1", "T2"), ("T1",), False),
        (("T1",), ("FLAIR", "T1"), False),
        (("T1", "T2"), ("T1", "FLAIR"), True),
        (("CT",), ("MR",), True),
        (("CT",), ("channel0",), False),
    ],
)
def test_channels_of_other_names_differ(contract, make_plan, theirs, ours, differ):
    """A side may have more, and names that stand for none say nothing."""
    left = contract(channels=theirs, normalisation=("zscore",) * len(theirs))
    found = mismatches(left, make_plan(channels=ours, normalisation=("zscore",) * len(ours)))
    assert [m.what for m in found] == ["channels"] * differ


def test_normalisation_is_compared_between_channels_of_one_meaning(contract, make_plan):
    theirs = contract(channels=("T1", "dapi"), normalisation=("zscore", "percentile"))
    swapped = make_plan(channels=("dapi", "T1"), normalisation=("percentile", "zscore"))
    assert mismatches(theirs, swapped) == ()
    same_order = make_plan(channels=("dapi", "T1"), normalisation=("zscore", "percentile"))
    assert told(theirs, same_order) == [
        ("normalisation of dapi", "percentile", "zscore"),
        ("normalisation of T1", "zscore", "percentile"),
    ]
    # without names by place, and where there are more channels each is made of all
    nameless = make_plan(channels=("channel0", "channel1"), normalisation=("zscore", "percentile"))
    assert mismatches(theirs, nameless) == ()
    assert told(contract(), nameless) == [("normalisation of channel1", "zscore", "percentile")]


def test_the_ct_window_of_another_data_set_differs(contract, make_plan):
    def with_window(**fields):
        return {"normalisation": ("ct",), "windows": (replace(WINDOW, **fields),)}

    theirs = contract(**with_window())
    assert mismatches(theirs, make_plan(**with_window(mean=54.0, low=-998.0))) == ()
    other = mismatches(theirs, make_plan(**with_window(mean=90.0)))
    assert [(m.what, m.ours) for m in other] == [
        ("normalisation", "ct from -1000 to 300, mean 90, std 100"),
    ]
    assert len(mismatches(theirs, make_plan(**with_window(high=1000.0)))) == 1
    assert len(mismatches(theirs, make_plan(normalisation=("ct",), windows=(None,)))) == 1


@given(
    st.lists(st.floats(-500, 500), min_size=6, max_size=6),
    st.floats(10, 200),
    st.floats(10, 200),
    st.floats(-2000, 2000),
)
def test_no_grey_value_lies_farther_apart_than_told(ends, std_a, std_b, value):
    low_a, high_a, mean_a, low_b, high_b, mean_b = ends
    assume(low_a <= high_a and low_b <= high_b)
    a = Window(low=low_a, high=high_a, mean=mean_a, std=std_a)
    b = Window(low=low_b, high=high_b, mean=mean_b, std=std_b)
    through = [(min(max(value, w.low), w.high) - w.mean) / w.std for w in (a, b)]
    assert abs(through[0] - through[1]) <= windows_apart(a, b) + 1e-9
    assert windows_apart(a, b) == pytest.approx(windows_apart(b, a))
    assert windows_apart(a, a) == 0


def test_what_a_source_does_not_tell_is_a_mismatch(contract, make_plan):
    silent = replace(contract(spacing=(9.0, 9.0, 9.0)), unknown=("spacing", "channels", "patch"))
    assert told(silent, make_plan()) == [
        ("spacing", "not told", "2 x 1 x 1 mm"),
        ("channels", "not told", "channel0"),
    ]
    nothing = Contract(preprocessing=None, patch=None)
    assert [m.what for m in mismatches(nothing, make_plan())] == [
        "spacing",
        "orientation",
        "channels",
        "normalisation",
    ]
    with pytest.raises(TransferError, match=r"(?s)spacing: not told there.*Find out how") as refused:
        check(nothing, make_plan(), "model.pt", accept=False)
    # there is nothing to adopt
    assert "--from-checkpoint" not in str(refused.value)


def test_all_differences_are_refused_at_once_with_both_ways_out(contract, make_plan):
    plan = make_plan(spacing=(1.0, 0.5, 0.5), orientation="stored", normalisation=("percentile",))
    with pytest.raises(TransferError) as refused:
        check(contract(), plan, "RUN", accept=False)
    assert str(refused.value) == (
        "RUN: its volumes were prepared otherwise\n"
        "  spacing: 2 x 1 x 1 mm there, 1 x 0.5 x 0.5 mm (2 times finer) here\n"
        "  orientation: axes turned to RAS there, axes as stored in the files here\n"
        "  normalisation: zscore there, percentile here\n"
        ". Volumes are prepared alike before and after the hand-off, or a gain turns into a loss. Prepare "
        "your volumes as its own were (`fewvox prepare DATA --from-checkpoint RUN --out NEW`), or fine-tune "
        "on them as they are with --accept-mismatch, which stands in the transfer report."
    )
    assert check(contract(), plan, "RUN", accept=True) == mismatches(contract(), plan)


def test_voxels_of_another_world_are_not_to_be_adopted(contract, make_plan):
    for spacing in ((0.4, 1.0, 1.0), (2.0, 1.0, 9.0)):
        with pytest.raises(TransferError, match="too far apart to prepare your volumes at 2 x 1 x 1 mm"):
            check(contract(), make_plan(spacing=spacing), "RUN", accept=False)


def test_nothing_to_accept_is_no_error(contract, make_plan):
    assert check(contract(), make_plan(), "RUN", accept=False) == ()


def test_a_checkpoint_is_checked_by_what_it_tells_of_itself(make_run, make_plan):
    found = checkpoint.load(make_run())
    check_preprocessing(found, make_plan())
    with pytest.raises(TransferError, match=r"weights\.safetensors: (?s:.)*spacing: 2 x 1 x 1 mm there"):
        check_preprocessing(found, make_plan(spacing=(3.0, 1.0, 1.0)))


@pytest.mark.parametrize(
    ("theirs", "ours", "fits"),
    [
        (("T1", "T2"), ("T1", "T2"), True),
        (("T1", "T2"), ("channel0", "channel1"), True),
        (("T1", "T2"), ("T2", "T1"), False),
        (("T1", "T2"), ("T1",), False),
        (("channel0",), ("channel0", "channel1"), False),
        (("CT",), ("MR",), False),
    ],
)
def test_a_network_that_nothing_adapts_takes_its_own_channels_alone(make_run, make_plan, theirs, ours, fits):
    plans = [make_plan(channels=names, normalisation=("zscore",) * len(names)) for names in (theirs, ours)]
    found = checkpoint.load(make_run(plan=plans[0]))
    if fits:
        check_preprocessing(found, plans[1])
        return
    with pytest.raises(
        TransferError, match=f"channels: {', '.join(theirs)} there, {', '.join(ours)} here"
    ) as e:
        check_preprocessing(found, plans[1])
    assert str(e.value).count("channels:") == 1
    assert "--accept-mismatch" not in str(e.value)


@pytest.mark.parametrize(
    ("fields", "warned"),
    [
        ({}, False),
        ({"patch": (8, 16, 16)}, False),
        ({"patch": (4, 18, 8)}, True),
        ({"patch": (4, 8, 2)}, True),
        ({"spacing": (2.0, 1.0, 0.4)}, True),
        ({"spacing": (2000.0, 1000.0, 1000.0), "unit": "um"}, False),
        ({"spacing": None, "unit": None}, False),
    ],
)
def test_a_patch_of_another_extent_is_warned_of(contract, make_plan, fields, warned):
    assert (patch_warning(contract(), make_plan(**fields)) is not None) == warned


def test_the_warning_of_a_patch_tells_both_extents(contract, make_plan):
    told = patch_warning(contract(), make_plan(patch=(4, 40, 8)))
    assert told is not None
    assert told.startswith("patch: 8 x 8 x 8 mm there, 8 x 40 x 8 mm here, up to 5 times larger")
    unknown = replace(contract(), unknown=("patch",))
    assert patch_warning(unknown, make_plan(patch=(4, 40, 8))) is None
    voxels = make_plan(patch=(4, 40, 8), spacing=None, unit=None)
    found = patch_warning(contract(spacing=None, unit=None), voxels)
    assert str(found).startswith("patch: 4 x 8 x 8 voxels there")
