"""Checkpoints that earlier releases wrote load, and compute what they computed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.data.splits import Split
from fewvox.seg import checkpoint
from fewvox.seg.checkpoint import CheckpointError
from fewvox.seg.finetune import FinetuneConfig, finetune
from fewvox.seg.migrations import VERSION, migrated
from fewvox.seg.neighbours.sources import open_source
from fewvox.seg.networks.registry import build
from fewvox.seg.transfer import transfer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

VERSION_1 = Path(__file__).parent / "fixtures/version_1/weights.safetensors"


@pytest.fixture
def old_run(tmp_path):
    """A run as version 1 left it."""
    folder = tmp_path / "run/checkpoints/step_000003"
    folder.mkdir(parents=True)
    shutil.copy(VERSION_1, folder)
    torch.save({"counters": {"step": 3}}, folder / "training.pt")
    (folder.parent / "index.json").write_text(json.dumps({"last": folder.name}))
    return tmp_path / "run"


def description():
    with safe_open(str(VERSION_1), framework="pt") as opened:
        return json.loads(opened.metadata()["fewvox"])


def test_a_network_of_version_1_computes_what_it_computed(old_run):
    """The expected numbers were written down by the release that made the file."""
    for path in (VERSION_1, old_run):
        found = checkpoint.load(path)
        with torch.no_grad():
            logits = found.network().eval()(torch.linspace(-1, 1, 256).reshape(1, 1, 4, 8, 8))
        expected = [0.04523687809705734, -0.021990112960338593, 0.019626466557383537]
        assert logits[0, :, 1, 3, 5].tolist() == pytest.approx(expected, abs=1e-5)
        assert float(logits.double().mean()) == pytest.approx(0.5394897884742065, abs=1e-5)
        assert float(logits.double().std()) == pytest.approx(0.9577717022457948, abs=1e-5)


def test_it_is_told_to_be_migrated_and_saved_as_today(old_run, tmp_path):
    found = checkpoint.load(old_run)
    assert (found.version, found.info.version) == (1, VERSION)
    assert found.notes == (f"{found.path}: read from format version 1",)
    checkpoint.save(tmp_path / "new", found.network(), found.info, {}, None)
    again = checkpoint.load(tmp_path / "new")
    assert (again.version, again.notes, again.info) == (VERSION, (), found.info)
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in found.tensors.items())


def test_only_the_biases_that_are_new_are_added_and_they_are_zero():
    before = load_file(VERSION_1)
    described, after = migrated(description(), before, VERSION_1)
    added = after.keys() - before.keys()
    assert described["version"] == VERSION
    assert added == {
        *(f"encoder.{level}.{n}.0.bias" for level in range(3) for n in range(2)),
        *(f"decoder.{block}.convolutions.{n}.0.bias" for block in range(2) for n in range(2)),
        "decoder.0.up.bias",
        "decoder.1.up.bias",
    }
    assert not any(after[name].any() for name in added)
    assert all(after[name] is tensor for name, tensor in before.items())
    assert description()["version"] == 1


@pytest.mark.parametrize("name", ["output.bias", "encoder.0.0.1.bias", "encoder.1.0.0.weight"])
def test_what_version_1_had_is_not_made_up(tmp_path, name):
    tensors = load_file(VERSION_1)
    del tensors[name]
    save_file(tensors, tmp_path / "weights.safetensors", {"fewvox": json.dumps(description())})
    with pytest.raises(CheckpointError, match=rf"Missing key.*{name}"):
        checkpoint.load(tmp_path).network()


def test_a_version_to_come_is_refused_with_the_versions_that_are_known():
    with pytest.raises(UserError, match=r"has format version 3\. This release reads the versions 1, 2\."):
        migrated({"version": 3}, {}, "file")


def test_a_training_that_an_older_version_began_is_not_continued(old_run):
    with pytest.raises(
        UserError, match=r"a run of format version 1; this release writes 2.*Finish it with.*fewvox finetune"
    ):
        checkpoint.load_training(old_run)


def test_continuing_an_old_run_is_refused_before_its_settings_are_compared(old_run, tiny_store):
    (old_run / "config.yaml").write_text("steps: 3\n")
    cases = tuple(tiny_store.cases)
    split = Split(train=cases[:2], validation=(), test=())
    with pytest.raises(UserError, match=r"a run of format version 1.*finetune --pretrained"):
        finetune(tiny_store, split, old_run, FinetuneConfig(device="cpu"), resume=True)


def test_weights_of_version_1_are_taken_without_a_probe_to_prove_it(make_plan):
    source = open_source(VERSION_1)
    network = build(source.architecture, 1)
    report = transfer(network, source.architecture, source, make_plan(labels=source.labels))
    assert report.notes[0] == f"{VERSION_1}: read from format version 1"
    assert report.proof is not None
    assert report.proof.deviations == {}
    assert {*report.proof.left_out.values()} == {"the checkpoint holds no probe"}
    assert {t.state for t in report.tensors} == {"loaded"}
