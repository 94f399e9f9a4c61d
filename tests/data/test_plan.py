"""Plans follow the rule they name, stay within their budget, and are read as they were written."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fewvox.data.errors import UserError
from fewvox.data.fingerprint import CaseFacts, Fingerprint
from fewvox.data.intensities import Intensity
from fewvox.data.labels import LabelTable
from fewvox.data.plan import BUDGETS, MAX_POOLINGS, Plan, Window, make_plan, patch_and_strides, width_for
from fewvox.data.settings import SettingsError, load_mapping, override, parse, read_yaml, write_yaml
from fewvox.data.volume import Shape
from hypothesis import given
from hypothesis import strategies as st

# volumes of three real axes; `test_a_thin_stack...` has the others
extents = st.tuples(*[st.integers(32, 700)] * 3)
budgets = st.integers(24**3, 160**3)


GREY = Intensity(lowest=0, percentile_0_5=1, median=9, percentile_99_5=90, highest=99, mean=20, std=30)


def facts(shape: Shape = (95, 512, 512), **fields) -> CaseFacts:
    case = CaseFacts(
        id="a",
        subject="a",
        shape=shape,
        spacing=(2.0, 1.0, 1.0),
        unit="um",
        orientation="stored",
        channels=("red", "green"),
        dtype="uint8",
        intensities=(GREY, GREY),
        label_voxels={0: 9, 3: 1, 200: 1},
        image_hash="",
        label_hash=None,
        content_hash="",
    )
    return replace(case, **fields)


def plan_for(*cases: CaseFacts, **options) -> Plan:
    return make_plan(Fingerprint.of(cases or (facts(),)), **options)


def poolings(strides) -> list[int]:
    return [sum(level[axis] == 2 for level in strides) for axis in range(3)]


def test_the_published_example_gives_the_published_patch():
    """Biom3d's: a median shape of (95, 512, 512) under 128^3 voxels."""
    patch, strides = patch_and_strides((95, 512, 512), 128**3)
    assert patch == (40, 224, 224)
    assert strides == ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))


def test_an_axis_pooled_less_begins_later():
    assert patch_and_strides((12, 16, 14), 64**3)[1] == ((1, 2, 1), (2, 2, 2))
    assert patch_and_strides((8, 70, 70), 64**3)[1] == ((1, 2, 2), (1, 2, 2), (2, 2, 2), (1, 2, 2))


@given(extents, budgets)
def test_every_patch_keeps_the_rule(shape, budget):
    patch, strides = patch_and_strides(shape, budget)
    for extent, size, times in zip(shape, patch, poolings(strides), strict=True):
        multiple = 2**times
        assert size % multiple == 0
        assert size <= math.ceil(extent / multiple) * multiple
        assert 4 <= size / multiple <= 8 or times == MAX_POOLINGS or size < 4
    assert math.prod(patch) <= budget


@given(extents, budgets, budgets)
def test_a_larger_budget_never_gives_a_smaller_patch(shape, one, other):
    less, more = (math.prod(patch_and_strides(shape, b)[0]) for b in sorted((one, other)))
    assert less <= more


@given(st.integers(32, 700), budgets)
def test_equal_axes_are_treated_alike(extent, budget):
    patch, strides = patch_and_strides((extent,) * 3, budget)
    assert len(set(patch)) == 1
    assert set(strides) <= {(2, 2, 2)}


def test_a_volume_within_the_budget_is_taken_whole():
    patch, _ = patch_and_strides((37, 50, 36), 128**3)
    assert patch == (40, 56, 40)


@pytest.mark.parametrize(("shape", "patch"), [((1, 64, 64), (1, 64, 64)), ((3, 40, 40), (3, 40, 40))])
def test_a_thin_stack_is_never_pooled_along_its_thin_axis(shape, patch):
    found, strides = patch_and_strides(shape, 64**3)
    assert (found, poolings(strides)[0]) == (patch, 0)


def test_a_small_budget_gives_a_small_network():
    cpu, default = (plan_for(budget=budget).training for budget in ("cpu", "default"))
    assert math.prod(cpu.patch) <= 64**3 < math.prod(default.patch) <= 128**3
    assert (cpu.width, default.width) == (16, 32)
    assert width_for(1) == 8


@given(budgets, budgets)
def test_width_grows_with_the_budget(one, other):
    less, more = (width_for(b) for b in sorted((one, other)))
    assert 8 <= less <= more


@pytest.mark.parametrize(("shape", "batch"), [((12, 16, 14), 8), ((64, 64, 64), 2), ((40, 56, 40), 2)])
def test_the_batch_is_what_the_budget_holds_from_two_to_eight(shape, batch):
    training = plan_for(facts(shape), budget="cpu").training
    assert training.batch == batch
    assert batch == 2 or batch * math.prod(training.patch) <= BUDGETS["cpu"]


def test_the_plan_takes_what_the_fingerprint_found():
    plan = plan_for(facts(), facts(spacing=(3.0, 1.0, 0.99999994)), facts(spacing=(4.0, 1.0, 0.99999994)))
    how = plan.preprocessing
    assert (how.spacing, how.unit, how.channels) == ((3.0, 1.0, 1.0), "um", ("red", "green"))
    assert how.normalisation == ("zscore", "zscore")
    assert plan.labels == LabelTable(values=(0, 3, 200))


def test_the_median_shape_is_told_in_voxels_of_the_target():
    thin, thick = facts((10, 20, 20)), facts((10, 20, 20), spacing=(6.0, 1.0, 1.0))
    found = Fingerprint.of([thin, thick])
    assert (found.spacing, found.median_shape) == ((4.0, 1.0, 1.0), (10, 20, 20))
    assert Fingerprint.of([thin, thin, thick]).median_shape == (10, 20, 20)
    assert Fingerprint.of([thin, thick, thick]).spacing == (6.0, 1.0, 1.0)


def test_labels_are_a_table_of_two_for_instances_and_none_without_any():
    assert plan_for(label_kind="instances").labels == LabelTable(kind="instances", values=(0, 1))
    assert plan_for(facts(label_voxels=None)).labels is None


@pytest.mark.parametrize("case", [facts(), facts(label_voxels=None, spacing=None, unit=None)])
def test_a_plan_is_read_as_it_was_written(tmp_path, case):
    plan = plan_for(case)
    write_yaml(tmp_path / "plan.yaml", plan, "comment")
    assert read_yaml(tmp_path / "plan.yaml", Plan) == plan
    assert read_yaml(tmp_path / "plan.yaml", Plan).store_hash == plan.store_hash


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("preprocessing.spacing=[2.5, 1, 1]", False),
        ("preprocessing.unit=mm", False),
        ("preprocessing.orientation=RAS", False),
        ("preprocessing.channels=[green, red]", False),
        ("labels.values=[0, 3]", False),
        ("labels.kind=instances", False),
        ("training.patch=[8, 8, 8]", True),
        ("training.width=8", True),
        ("training.batch=3", True),
        ("reasons.patch=because", True),
    ],
)
def test_only_what_a_store_depends_on_changes_its_hash(tmp_path, change, same):
    plan = plan_for()
    write_yaml(tmp_path / "plan.yaml", plan)
    edited = parse(Plan, override(load_mapping(tmp_path / "plan.yaml"), [change]), "plan.yaml")
    assert edited != plan
    assert (edited.store_hash == plan.store_hash) is same


def test_an_edited_plan_is_checked_whole(tmp_path):
    write_yaml(tmp_path / "plan.yaml", plan_for())
    changes = ["preprocessing.spacing=[0, 1, 1]", "training.strides=[[1, 2, 3]]", "training.widht=8"]
    values = override(load_mapping(tmp_path / "plan.yaml"), changes)
    with pytest.raises(SettingsError) as caught:
        parse(Plan, values, "plan.yaml")
    for key in ("preprocessing.spacing.0", "training.strides.0.2", "training.widht"):
        assert f"'{key}'" in caught.value.found


def test_every_choice_has_its_reason():
    assert set(plan_for().reasons) == {
        "spacing",
        "orders",
        "normalisation",
        "patch",
        "strides",
        "width",
        "batch",
        "labels",
    }


def test_numbers_of_a_plan_are_pythons_own():
    training = plan_for().training
    assert not any(isinstance(n, np.generic) for n in (*training.patch, training.width, training.batch))


@given(st.tuples(*[st.integers(1, 6000)] * 3), st.sampled_from(sorted(BUDGETS.values())))
def test_no_patch_exceeds_the_budget_however_thin_the_volume(shape, budget):
    """An axis that stays at 1 was once not made up for: (1, 5000, 5000) took 4.5 times the budget."""
    patch, _ = patch_and_strides(shape, budget)
    assert math.prod(patch) <= budget
    assert all(p >= 1 for p in patch)


def test_a_single_large_slice_uses_the_budget():
    patch, strides = patch_and_strides((1, 5000, 5000), 64**3)
    assert patch == (1, 512, 512)
    assert all(stride[0] == 1 for stride in strides)


@given(st.tuples(*[st.integers(1, 700)] * 3), st.integers(16, 128), st.integers(0, 40))
def test_a_larger_edge_never_gives_a_smaller_patch(shape, edge, more):
    """Budgets as `prepare` tries them, and volumes however thin; no patch is above the volume."""
    less, larger = (plan_for(facts(shape), voxels=e**3).training for e in (edge, edge + more))
    assert math.prod(less.patch) <= math.prod(larger.patch) <= (edge + more) ** 3
    for extent, size, times in zip(shape, less.patch, poolings(less.strides), strict=True):
        assert size % 2**times == 0
        assert size <= -(-extent // 2**times) * 2**times


@pytest.mark.parametrize(
    ("names", "fields", "schemes"),
    [
        (("CT", "ct_arterial"), {}, ("ct", "ct")),
        (("contrast", "T1"), {}, ("zscore", "zscore")),
        (("DAPI", "anti-GFP (488)"), {}, ("percentile", "percentile")),
        (("red", "green"), {"orientation": "RAS", "dtype": "int16", "lowest": -1000}, ("ct", "ct")),
        (("red", "green"), {"orientation": "RAS", "dtype": "float32", "lowest": -1000}, ("zscore", "zscore")),
        (
            ("red", "green"),
            {"orientation": "stored", "dtype": "int16", "lowest": -1000},
            ("zscore", "zscore"),
        ),
        (("red", "green"), {"orientation": "RAS", "dtype": "int16", "lowest": -800}, ("zscore", "zscore")),
    ],
)
def test_normalisation_is_chosen_by_name_and_by_air(names, fields, schemes):
    lowest = fields.pop("lowest", 0)
    case = facts(channels=names, intensities=(replace(GREY, lowest=lowest),) * 2, **fields)
    plan = plan_for(case)
    assert plan.preprocessing.normalisation == schemes
    assert all(
        f"{name}: {scheme}" in plan.reasons["normalisation"]
        for name, scheme in zip(names, schemes, strict=True)
    )


def test_air_in_most_volumes_is_enough():
    def with_lowest(value):
        return facts(orientation="RAS", dtype="int16", intensities=(replace(GREY, lowest=value),) * 2)

    assert plan_for(*map(with_lowest, (-1024, -1000, 0))).preprocessing.normalisation == ("ct", "ct")
    assert plan_for(*map(with_lowest, (-1024, 0, 0))).preprocessing.normalisation == ("zscore", "zscore")


def test_a_given_normalisation_is_of_all_channels_or_one_each():
    assert plan_for(normalisation=["none"]).preprocessing.normalisation == ("none", "none")
    assert plan_for(normalisation=["ct", "zscore"]).preprocessing.normalisation == ("ct", "zscore")
    with pytest.raises(UserError, match=r"3 schemes .*one for each of 2"):
        plan_for(normalisation=["ct"] * 3)


def test_the_window_of_a_ct_is_of_the_median_case():
    def case(shift):
        grey = {name: value + shift for name, value in vars(GREY).items()}
        return facts(intensities=(Intensity(**grey), GREY))

    windows = plan_for(case(0), case(10), case(500), normalisation=["ct", "zscore"]).preprocessing.windows
    assert windows == (Window(low=11, high=100, mean=30, std=40), None)
    flat = facts(intensities=(replace(GREY, std=0),) * 2)
    assert plan_for(flat, normalisation=["ct"]).preprocessing.windows[0].std == 1


@pytest.mark.parametrize(
    ("spacing", "orders"),
    [
        ((3.0, 1.0, 1.0), (1, 1, 1)),
        ((3.1, 1.0, 1.0), (0, 1, 1)),
        ((1.0, 4.0, 4.0), (1, 0, 0)),
        (None, (1, 1, 1)),
    ],
)
def test_only_a_much_coarser_axis_keeps_its_slices(spacing, orders):
    plan = plan_for(facts(spacing=spacing, unit=spacing and "um"))
    assert plan.preprocessing.orders == orders


def test_labels_know_what_is_unannotated():
    ilastik = facts(label_voxels={1: 9, 2: 5})
    assert plan_for(ilastik, ignore=0).labels == LabelTable(values=(1, 2), ignore=0)
    assert plan_for(facts(), ignore=200).labels == LabelTable(values=(0, 3), ignore=200)
    masks = facts(label_voxels={0: 9, 1: 2, 2: 0}, label_channels=2)
    overlapping = plan_for(masks, label_kind="overlapping", ignore=1).labels
    assert overlapping == LabelTable(kind="overlapping", values=(0, 1, 2), ignore=1)
