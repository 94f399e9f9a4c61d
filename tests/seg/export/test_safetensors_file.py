"""A folder that a program without fewvox can read, and fewvox too."""

import json

import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.seg.checkpoint import load
from fewvox.seg.export.safetensors_file import export_safetensors
from safetensors.torch import load_file


def test_weights_and_what_they_are(make_run, tmp_path):
    checkpoint = load(make_run())
    export_safetensors(checkpoint, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "weights.safetensors")
    assert all(torch.equal(tensors[name], tensor) for name, tensor in checkpoint.tensors.items())
    model = json.loads((tmp_path / "out" / "model.json").read_text(encoding="utf-8"))
    assert model["plan"]["preprocessing"]["spacing"] == [2.0, 1.0, 1.0]
    assert model["plan"]["labels"]["values"] == [0, 1, 2]
    assert model["architecture"]["topology"]["features"] == [2, 4]
    assert load(tmp_path / "out").info == checkpoint.info


def test_an_existing_folder_is_kept(make_run, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        export_safetensors(load(make_run()), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
