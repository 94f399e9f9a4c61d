"""Weights to start from: what lies at a path is told by what is in it."""

import shutil

import pytest
import torch
from fewvox.seg.checkpoint import CheckpointError, load
from fewvox.seg.neighbours.errors import SourceError
from fewvox.seg.neighbours.sources import open_source
from fewvox.seg.networks.registry import build
from safetensors.torch import save_file

INSIDE = "checkpoints/step_000007"


@pytest.mark.parametrize("inside", ["", INSIDE, f"{INSIDE}/weights.safetensors"])
def test_a_run_its_checkpoint_and_its_weights_are_ours(make_run, inside):
    run = make_run()
    found = open_source(run / inside)
    assert found.kind == "fewvox"
    assert found.contract.preprocessing == load(run).info.plan.preprocessing
    build(found.architecture).load_state_dict(found.tensors, strict=True)


def test_a_damaged_last_one_and_a_lost_index_are_no_matter_and_told(make_run):
    run = make_run()
    shutil.copytree(run / INSIDE, run / "checkpoints/step_000008")
    (run / "checkpoints/step_000008/weights.safetensors").write_bytes(b"torn")
    (run / "checkpoints/index.json").write_text('{"last": "step_000008"}')
    (note,) = open_source(run).notes
    assert note.startswith("step_000007 is taken in place of a newer checkpoint: ")
    (run / "checkpoints/index.json").unlink()
    assert open_source(run).told == "supervised, 7 steps"


def test_our_weights_are_known_whatever_they_are_called(make_run, tmp_path):
    shutil.copy(make_run() / INSIDE / "weights.safetensors", tmp_path / "model.pth")
    assert open_source(tmp_path / "model.pth").kind == "fewvox"


def test_the_last_of_a_run_is_taken_where_it_is_preferred(make_run):
    run = make_run()
    assert open_source(run, prefer="last").told == "supervised, 7 steps"


@pytest.mark.parametrize("folder", [True, False])
def test_safetensors_without_our_description_are_a_state_dict(tmp_path, own_weights, folder):
    save_file(own_weights, str(tmp_path / "weights.safetensors"))
    found = open_source(tmp_path if folder else tmp_path / "weights.safetensors")
    assert found.kind == "state_dict"
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in own_weights.items())


def test_a_mapping_is_for_the_names_of_others(make_run, tmp_path, own_weights, saved):
    (tmp_path / "names.yaml").write_text("down: encoder\nup: decoder\nlast: output\n")
    renamed = {"encoder": "down", "decoder": "up", "output": "last"}
    theirs = {n.replace(n.split(".")[0], renamed[n.split(".")[0]], 1): t for n, t in own_weights.items()}
    found = open_source(saved({"model": theirs} | theirs), tmp_path / "names.yaml")
    assert found.trained == ("encoder", "decoder", "output")
    with pytest.raises(SourceError, match="a checkpoint of fewvox and a mapping"):
        open_source(make_run(), tmp_path / "names.yaml")


def test_a_mapping_reads_a_checkpoint_of_others_as_a_state_dict(nnunet_content, tmp_path, saved):
    (tmp_path / "names.yaml").write_text("network_weights.: ''\n")
    assert open_source(saved(nnunet_content()), tmp_path / "names.yaml").kind == "state_dict"


def test_a_path_with_nothing_to_read_is_told(tmp_path):
    with pytest.raises(SourceError, match="an empty folder"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match="no such file or folder"):
        open_source(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match=r"a folder with notes\.txt"):
        open_source(tmp_path)


def test_a_run_whose_weights_are_damaged_is_an_error_of_the_run(make_run):
    run = make_run()
    (run / INSIDE / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="safetensors"):
        open_source(run)
