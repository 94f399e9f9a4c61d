"""What a file is, told by its first bytes."""

import pickle

import h5py
import numpy as np
import pytest
import torch
from fewvox.seg.neighbours.containers import read_container
from fewvox.seg.neighbours.errors import SourceError
from safetensors.torch import save_file


@pytest.mark.parametrize("name", ["model.pth", "model.bin", "model"])
def test_a_torch_file_is_known_by_its_content(saved, name):
    assert read_container(saved({"a": torch.ones(2)}, name))[0]["a"].tolist() == [1, 1]


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    save_file({"a": torch.ones(2)}, str(tmp_path / name), {"format": "pt"})
    tensors, metadata = read_container(tmp_path / name)
    assert tensors["a"].tolist() == [1, 1]
    assert metadata == {"format": "pt"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "pointer of Git LFS"),
        (pickle.dumps({"a": 1}), "a bare pickle"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.8.0", "such as ONNX"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"<!DOCTYPE html>\n<html>", "a web page"),
        (b"epoch,loss\n1,0.5\n", r"text \(epoch,loss 1,0.5"),
        (b"\n \n", "text"),
        (b"\xff\xfe\x00\x01", "unknown format that begins with the bytes ff fe 00 01"),
        (b"PK\x03\x04", "cut short or damaged"),
        ((5000).to_bytes(8, "little") + b"{", "not readable as safetensors"),
        ((2**63).to_bytes(8, "little") + b'{"a": 1}', "not readable as safetensors"),
    ],
)
@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_other_files_are_told_by_their_kind(tmp_path, content, told, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=rf"{name}: .*{told}"):
        read_container(tmp_path / name)


def test_keras_and_numpy_files_are_told(tmp_path):
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file["layer/kernel"] = np.zeros(3)
    with pytest.raises(SourceError, match="HDF5, as Keras writes"):
        read_container(tmp_path / "model.h5")
    np.save(tmp_path / "model.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(SourceError, match=r"a numpy array \(\.npy\)"):
        read_container(tmp_path / "model.npy")


def test_a_torch_file_that_is_no_mapping_is_told(saved):
    with pytest.raises(SourceError, match="a torch file with Tensor"):
        read_container(saved(torch.zeros(2)))
