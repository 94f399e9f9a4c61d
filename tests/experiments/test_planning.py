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
from fewvox.experiments.planning import adopted, bytes_for, label_kind_of, make_within, planned


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
    monkeypatch.setattr(planning, "load", lambda _: SimpleNamespace(info=SimpleNamespace(plan=plan)))
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


def test_a_network_of_other_channels_is_refused(scanned, make_facts):
    own = make_plan(scanned.fingerprint)
    theirs = make_plan(Fingerprint.of([make_facts("z", channels=("red", "green"))]))
    with pytest.raises(UserError, match=r"run: a network for 2 channels \(red, green\).*channels channel0"):
        adopted(theirs, own, "run", lambda _: None)


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
