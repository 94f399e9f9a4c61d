"""ONNX computes what torch computes, or is not written."""

import json
import sys

import numpy as np
import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.seg.checkpoint import load
from fewvox.seg.export import onnx_file
from fewvox.seg.export.onnx_file import export_onnx
from fewvox.seg.networks.registry import NETWORKS, architecture_for


@pytest.fixture
def onnxruntime():
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason="make test-neighbours")
    return pytest.importorskip("onnxruntime", reason="make test-neighbours")


def test_a_missing_package_is_told(make_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"pip install fewvox\[onnx\]"):
        export_onnx(load(make_run()), tmp_path / "model.onnx")


@pytest.mark.slow
# one EfficientNet for all
@pytest.mark.parametrize("name", [n for n in NETWORKS if n[-1] not in "1234"])
def test_it_gives_the_logits_for_any_batch(onnxruntime, make_run, make_plan, tmp_path, name):
    checkpoint = load(make_run(architecture=architecture_for(make_plan(), name)))
    export_onnx(checkpoint, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).normal(size=(3, 1, 4, 8, 8)).astype(np.float32)
    (found,) = session.run(["logits"], {"image": images})
    with torch.inference_mode():
        expected = checkpoint.network().eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())
    said = json.loads(session.get_modelmeta().custom_metadata_map["fewvox"])
    assert said["plan"]["preprocessing"]["normalisation"] == ["zscore"]
    with pytest.raises(UserError, match="exists already"):
        export_onnx(checkpoint, tmp_path / "model.onnx")


@pytest.mark.slow
def test_one_that_computes_something_else_is_not_written(onnxruntime, make_run, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "TOLERANCE", 0.0)
    with pytest.raises(UserError, match="standard deviations from torch"):
        export_onnx(load(make_run(trained=("encoder", "decoder"))), tmp_path / "model.onnx")
    assert not list(tmp_path.glob("*.onnx*"))
