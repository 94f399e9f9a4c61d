"""Checkpoints: whole or absent, told apart, and never executed."""

import json
import os
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.data.labels import LabelTable
from fewvox.seg import checkpoint
from fewvox.seg.checkpoint import CheckpointError
from fewvox.seg.networks.registry import build
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

WEIGHTS = "weights.safetensors"
DUMPS = {"pickle": lambda value, file: pickle.dump(value, file, protocol=2), "torch": torch.save}


class Canary:
    """An object whose unpickling makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def save(tmp_path, make_info):
    """Saves checkpoints of one run; gives its folder."""

    def make(steps, score=None, state=None, seed=0):
        info = make_info(steps=steps)
        checkpoint.save(tmp_path / "run", build(info.architecture, seed), info, state or {}, score)
        return tmp_path / "run"

    return make


def step_folders(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir() if path.is_dir())


def test_weights_description_and_state_come_back(tmp_path, make_info):
    info = make_info(scores={"score": 0.25, "dice/1": 0.5}, environment={"torch": "x"}, validated_on=("b",))
    network = build(info.architecture, 0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.5)
    network(torch.randn(1, 1, 4, 8, 8)).sum().backward()
    optimiser.step()
    state = {"optimiser": optimiser.state_dict(), "counters": {"step": 7, "skipped": 1}}
    checkpoint.save(tmp_path, network, info, state, 0.25)
    loaded = checkpoint.load(tmp_path)
    assert loaded.info == info
    again = loaded.network().state_dict()
    assert all(torch.equal(again[key], value) for key, value in network.state_dict().items())
    assert str(checkpoint.load_state(tmp_path)) == str(state)


def test_a_checkpoint_from_before_voxels_could_be_unannotated_is_read(save):
    file = save(7) / "checkpoints/step_000007" / WEIGHTS
    tensors = load_file(file)
    with safe_open(str(file), framework="pt") as opened:
        described = json.loads(opened.metadata()["fewvox"])
    assert described["plan"]["labels"].pop("ignore") is None
    save_file(tensors, file, {"fewvox": json.dumps(described)})
    found = checkpoint.load(file)
    assert found.info.plan.labels == LabelTable(values=(0, 1, 2))
    found.network()


@pytest.mark.parametrize("inside", ["", "checkpoints/step_000007", f"checkpoints/step_000007/{WEIGHTS}"])
def test_a_run_a_checkpoint_folder_and_a_file_are_read_alike(save, inside):
    assert checkpoint.load(save(7) / inside).info.steps == 7


def test_a_checkpoint_holds_no_place_of_its_making(save):
    run = save(7)
    assert str(run.parent).encode() not in (run / "checkpoints/step_000007" / WEIGHTS).read_bytes()


def test_best_and_last_are_kept_and_the_others_removed(save):
    for steps, score in [(1, 0.5), (2, 0.9), (3, 0.7), (4, None)]:
        run = save(steps, score, seed=steps)
    assert step_folders(run) == ["step_000002", "step_000004"]
    assert checkpoint.load(run).info.steps == 2
    assert checkpoint.load(run, "last").info.steps == 4
    run = save(5, 0.95)
    assert step_folders(run) == ["step_000005"]


def test_without_scores_the_last_is_the_best(save):
    save(1)
    assert checkpoint.load(save(2)).info.steps == 2


@pytest.mark.parametrize("name", ["model.pth", "model.pt", "model.pkl", WEIGHTS])
@pytest.mark.parametrize("protocol", DUMPS)
def test_a_pickle_is_refused_and_never_run(tmp_path, name, protocol):
    with (tmp_path / name).open("wb") as file:
        DUMPS[protocol]({"state": Canary(tmp_path / "ran")}, file)
    for given in (tmp_path / name, tmp_path) if name == WEIGHTS else (tmp_path / name,):
        with pytest.raises(CheckpointError, match=r"pickle.*refused"):
            checkpoint.load(given)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", DUMPS)
def test_a_pickle_as_training_state_is_refused_and_never_run(save, tmp_path, protocol):
    run = save(7)
    with (run / "checkpoints/step_000007/training.pt").open("wb") as file:
        DUMPS[protocol]({"optimiser": Canary(tmp_path / "ran")}, file)
    with pytest.raises(CheckpointError, match=r"training\.pt: not readable"):
        checkpoint.load_state(run)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", DUMPS)
def test_the_canary_sings_when_it_is_unpickled(tmp_path, protocol):
    """Without this the tests above would pass with a dead canary."""
    with (tmp_path / "model.pt").open("wb") as file:
        DUMPS[protocol](Canary(tmp_path / "ran"), file)
    if protocol == "pickle":
        pickle.loads((tmp_path / "model.pt").read_bytes())
    else:
        torch.load(tmp_path / "model.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_weights_are_refused(save, share):
    path = save(7) / "checkpoints/step_000007" / WEIGHTS
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="not readable as safetensors"):
        checkpoint.load(path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_training_state_is_refused(save, share):
    run = save(7, state={"counters": {"step": 7}})
    path = run / "checkpoints/step_000007/training.pt"
    assert zipfile.is_zipfile(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="not readable"):
        checkpoint.load_state(run)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "no fewvox description"),
        ({"format": "pt"}, "no fewvox description"),
        ({"fewvox": "not json"}, "not readable as JSON"),
        ({"fewvox": "[]"}, "CheckpointInfo|keys here"),
        ({"fewvox": '{"foo": 1}'}, "'architecture' is missing.*unknown key 'foo'"),
    ],
)
def test_safetensors_of_another_program_are_refused_with_what_was_found(tmp_path, metadata, message):
    save_file({"weight": torch.zeros(2)}, str(tmp_path / WEIGHTS), metadata)
    with pytest.raises(UserError, match=message):
        checkpoint.load(tmp_path)


def test_a_checkpoint_of_a_later_version_is_refused(save):
    path = save(7) / "checkpoints/step_000007" / WEIGHTS
    loaded = checkpoint.load(path)
    description = json.dumps({**json.loads(metadata_of(path)), "version": 2})
    save_file(loaded.tensors, str(path), {"fewvox": description})
    with pytest.raises(UserError, match="'version' is 2"):
        checkpoint.load(path)


def metadata_of(path):
    header = int.from_bytes(path.read_bytes()[:8], "little")
    return json.loads(path.read_bytes()[8 : 8 + header])["__metadata__"]["fewvox"]


def test_weights_of_another_architecture_are_not_half_loaded(save):
    loaded = checkpoint.load(save(7))
    tensors = {name: tensor for name, tensor in loaded.tensors.items() if name != "output.bias"}
    with pytest.raises(RuntimeError, match=r"output\.bias"):
        replace(loaded, tensors=tensors).network()


@pytest.mark.parametrize("left", ["file", "folder"])
def test_a_path_without_a_checkpoint_is_told(tmp_path, left):
    path = tmp_path / "run"
    if left == "folder":
        path.mkdir()
    message = "no checkpoint in it" if left == "folder" else "no such file or folder"
    with pytest.raises(CheckpointError, match=f"run: {message}"):
        checkpoint.load(path)


def test_a_save_that_fails_leaves_the_checkpoints_as_they_were(save, make_info, monkeypatch):
    run = save(1, 0.5)

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        save(2, 0.9)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["index.json", "step_000001"]
    assert checkpoint.load(run).info.steps == 1


def test_what_a_killed_save_left_does_no_harm(save, make_info):
    run = save(1, 0.5)
    index = (run / "checkpoints/index.json").read_bytes()
    kept = (run / "checkpoints/step_000001" / WEIGHTS).read_bytes()
    save(2, 0.9, seed=2)
    # as if killed before the index was replaced: step 2 is there, and a part of it, but nobody points to it
    (run / "checkpoints/index.json").write_bytes(index)
    (run / "checkpoints/step_000001").mkdir()
    (run / "checkpoints/step_000001" / WEIGHTS).write_bytes(kept)
    gone = 2**22 + 1  # beyond the largest process number
    (run / f"checkpoints/.partial-{gone}-abcdef.step_000002").mkdir()
    assert checkpoint.load(run).info.steps == 1
    assert checkpoint.load(run, "last").info.steps == 1

    save(2, 0.7, seed=3)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["index.json", "step_000002"]
    expected = build(make_info().architecture, 3).state_dict()
    assert torch.equal(checkpoint.load(run).tensors["output.weight"], expected["output.weight"])


def test_an_old_checkpoint_goes_only_after_the_index_points_to_the_new(save, monkeypatch):
    run = save(1)

    remove = shutil.rmtree

    def fail(path, **options):
        if path.name == "step_000001":
            assert checkpoint.load(run, "last").info.steps == 2
            raise KeyboardInterrupt
        remove(path, **options)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", fail)
    with pytest.raises(KeyboardInterrupt):
        save(2)
    assert step_folders(run) == ["step_000001", "step_000002"]


@pytest.mark.parametrize(
    "error", [OSError("No space left"), RuntimeError("writing failed"), SafetensorError("I/O error")]
)
def test_a_save_without_space_is_told_and_leaves_the_checkpoint_before(save, monkeypatch, error):
    run = save(1, 0.5)

    def fail(*args):
        raise error

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(
        CheckpointError, match=rf"cannot be written \({error}\).*MiB free on the disk.*takes up to"
    ):
        save(2, 0.9)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["index.json", "step_000001"]
