"""A plan fits the memory it is given, the checkpoint it is adopted from, or the file it is in."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fewvox.data.errors import UserError
from fewvox.data.fingerprint import Fingerprint
from fewvox.data.labels import LabelTable
from fewvox.data.plan import make_plan
from fewvox.data.scan import Scan
from fewvox.data.settings import write_yaml
from fewvox.experiments import planning
from fewvox.experiments.planning import adopted, bytes_for, label_kind_of, make_within, plan_of, planned
from fewvox.seg.contract import mismatches
from fewvox.seg.networks.registry import architecture_for
from fewvox.seg.source import Contract


@pytest.fixture
def scanned(make_facts):
    """What a scan may find of two labelled volumes of 60 x 200 x 200 voxels."""
    facts = [make_facts(n, shape=(60, 200, 200), label_voxels={0: 9, 3: 2}) for n in "ab"]
    return scan_of(*facts)


def scan_of(*facts, **fields) -> Scan:
    return Scan(cases=(), fingerprint=Fingerprint.of(facts), problems=(), **fields)


@pytest.fixture
def costs(monkeypatch):
    """A network that takes 1 KiB a voxel of its batch, to try many budgets at no time."""
    monkeypatch.setattr(
        planning, "bytes_for", lambda plan: 1024 * plan.training.batch * math.prod(plan.training.patch)
    )


def test_more_memory_never_gives_a_smaller_patch_and_never_takes_more_than_it(scanned, costs):
    volumes = []
    for gib in (0.05, 0.1, 0.3, 0.5, 1, 1.7, 2.5, 4, 16):
        plan = make_within(scanned, gib, None)
        assert planning.bytes_for(plan) <= gib * 2**30
        assert plan.reasons["budget"].startswith(f"{gib:.1f} GiB hold")
        volumes.append(math.prod(plan.training.patch))
    assert volumes == sorted(volumes)
    assert len(set(volumes)) > 4
    largest = make_within(scanned, 1000, None)
    assert largest.training == make_within(scanned, "default", None).training


def test_the_largest_size_that_fits_is_taken(scanned, costs):
    plan = make_within(scanned, 1, None)
    edge = int(plan.reasons["budget"].split("^3")[0].split()[-1])
    above = make_plan(scanned.fingerprint, voxels=(edge + 8) ** 3)
    assert planning.bytes_for(above) > 2**30


def test_the_memory_of_a_step_is_that_of_the_network(scanned):
    plan = make_within(scanned, "cpu", None)
    more = replace(plan, training=replace(plan.training, batch=2 * plan.training.batch))
    assert 2**26 < bytes_for(plan) < bytes_for(more) < 2**33


def test_a_budget_in_which_nothing_fits_tells_what_would(scanned, costs):
    with pytest.raises(UserError, match=r"budget 0\.001: 0\.00 GiB\. The smallest network takes 0\.0\d GiB"):
        make_within(scanned, 0.001, None)


@pytest.mark.parametrize("budget", ["large", "-1", 0, "nan", "inf", ""])
def test_a_budget_that_is_none_is_told_with_those_there_are(scanned, budget):
    with pytest.raises(UserError, match="A budget is default, cpu, device, or a number of GiB"):
        make_within(scanned, budget, None)


def test_the_memory_of_the_device_is_not_used_up(scanned, costs, monkeypatch):
    monkeypatch.setattr(planning.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(planning.psutil, "virtual_memory", lambda: SimpleNamespace(available=5 * 2**28))
    assert make_within(scanned, "device", None).training == make_within(scanned, "1", None).training


def said_by(plan, scanned, monkeypatch, **given) -> tuple[object, list[str]]:
    said: list[str] = []
    monkeypatch.setattr(planning, "plan_of", lambda *_: plan)
    given = {"file": None, "checkpoint": None, "budget": "cpu", "normalisation": None, **given}
    return planned(scanned, **given, say=said.append), said


def test_the_plan_of_a_checkpoint_is_adopted_with_the_labels_of_the_data(scanned, make_facts, monkeypatch):
    theirs = make_plan(Fingerprint.of([make_facts("z", spacing=(4.0, 2.0, 2.0), shape=(40, 80, 80))]))
    plan, said = said_by(theirs, scanned, monkeypatch, checkpoint="run")
    assert (plan.preprocessing, plan.training) == (theirs.preprocessing, theirs.training)
    assert plan.labels == LabelTable(values=(0, 3))
    changed = {line.split(":")[0] for line in said}
    assert {"preprocessing.spacing", "training.patch", "training.width"} <= changed
    assert "preprocessing.channels" not in changed
    spacing = next(line for line in said if line.startswith("preprocessing.spacing"))
    assert spacing.endswith("[4.0, 2.0, 2.0] as it was pretrained, [2.0, 1.0, 1.0] from this data set")
    assert plan.reasons["patch"].startswith("adopted from a checkpoint; ")
    assert plan.reasons["labels"] == "values found in 2 labels, in rising order"


def test_a_checkpoint_of_the_same_plan_changes_nothing(scanned, monkeypatch):
    own = make_within(scanned, "cpu", None)
    plan, said = said_by(own, scanned, monkeypatch, checkpoint="run")
    assert (plan.store_hash, said) == (own.store_hash, [])


def two_channels(make_facts, *names):
    made = make_plan(Fingerprint.of([make_facts("z", channels=names)]))
    how = replace(made.preprocessing, normalisation=("zscore", "percentile"))
    return replace(made, preprocessing=how)


def test_the_channels_of_the_data_keep_their_names_and_order(scanned, make_facts):
    theirs = two_channels(make_facts, "red", "green")
    plan = adopted(theirs, two_channels(make_facts, "green", "red"), "run", lambda _: None)
    assert plan.preprocessing.channels == ("green", "red")
    assert plan.preprocessing.normalisation == ("percentile", "zscore")
    assert mismatches(Contract(preprocessing=theirs.preprocessing, patch=None), plan) == ()


def test_a_data_set_of_more_channels_adopts_too(scanned, make_facts):
    theirs = make_plan(Fingerprint.of([make_facts("z", spacing=(4.0, 2.0, 2.0))]))
    plan = adopted(theirs, two_channels(make_facts, "red", "green"), "run", lambda _: None)
    assert plan.preprocessing.channels == ("red", "green")
    assert plan.preprocessing.normalisation == ("zscore", "zscore")
    assert plan.preprocessing.spacing == (4.0, 2.0, 2.0)


def test_an_orientation_that_files_do_not_know_is_not_adopted(scanned):
    own = make_plan(scanned.fingerprint)
    theirs = replace(own, preprocessing=replace(own.preprocessing, orientation="RAS"))
    said = []
    assert adopted(theirs, own, "run", said.append).preprocessing == own.preprocessing
    assert said == [
        "preprocessing.orientation: stored from the files, which cannot be turned to RAS as it was "
        "pretrained: fine-tune with --accept-mismatch"
    ]


@pytest.mark.parametrize(
    ("spacing", "refused"),
    [
        ((8.0, 4.0, 4.0), False),
        ((8.2, 1.0, 1.0), True),
        ((0.3, 1.0, 1.0), False),
        ((2.0, 1.0, 0.12), True),
        ((2000.0, 1000.0, 1000.0), True),
    ],
)
def test_voxels_of_another_world_are_refused(scanned, spacing, refused):
    own = make_plan(scanned.fingerprint)
    theirs = replace(own, preprocessing=replace(own.preprocessing, spacing=spacing))
    if not refused:
        assert adopted(theirs, own, "run", lambda _: None).preprocessing.spacing == spacing
        return
    with pytest.raises(UserError, match=r"run: its voxels were .* um\. Those here are \(2\.0, 1"):
        adopted(theirs, own, "run", lambda _: None)


def test_weights_of_another_program_give_the_plan_they_tell(scanned, monkeypatch):
    own = make_plan(scanned.fingerprint, budget="cpu")
    source = SimpleNamespace(
        kind="nnunet",
        contract=Contract(preprocessing=own.preprocessing, patch=(8, 16, 16)),
        architecture=architecture_for(own),
    )
    monkeypatch.setattr(planning, "open_source", lambda _: source)
    plan = plan_of("model", own)
    assert plan.preprocessing == own.preprocessing
    assert (plan.training.patch, plan.training.strides) == ((8, 16, 16), own.training.strides)
    assert architecture_for(replace(plan, labels=own.labels)) == source.architecture
    source.contract = Contract(preprocessing=own.preprocessing, patch=None, unknown=("spacing", "patch"))
    with pytest.raises(UserError, match="model: it does not tell spacing, patch"):
        plan_of("model", own)


def test_a_plan_file_is_taken_with_the_labels_it_lacks(scanned, tmp_path, monkeypatch):
    file = tmp_path / "plan.yaml"
    own = make_within(scanned, "cpu", None)
    edited = replace(own, training=replace(own.training, batch=7))
    write_yaml(file, edited)
    assert said_by(None, scanned, monkeypatch, file=file) == (edited, [])
    write_yaml(file, replace(edited, labels=None))
    assert said_by(None, scanned, monkeypatch, file=file) == (
        edited,
        ["the plan has no label values; those of this data set are taken"],
    )


def test_a_plan_file_tells_the_kind_of_labels(scanned, tmp_path):
    file = tmp_path / "plan.yaml"
    own = make_plan(scanned.fingerprint)
    write_yaml(file, replace(own, labels=LabelTable(kind="instances", ignore=9)))
    assert label_kind_of(file, None) == label_kind_of(file, "instances") == ("instances", 9)
    with pytest.raises(UserError, match="--label-kind classes: the plan says instances"):
        label_kind_of(file, "classes")
    write_yaml(file, replace(own, labels=None))
    assert label_kind_of(file, "classes") == label_kind_of(None, "classes") == ("classes", None)
