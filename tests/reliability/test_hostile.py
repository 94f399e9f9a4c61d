"""The rows H01, H02, S01 and S02 of the reliability table: weights and settings of other hands.

A canary is an object whose unpickling makes a folder. Every test that hands one over looks for the folder.
"""

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import torch
import yaml
from fewvox.data.errors import UserError
from fewvox.data.hashing import file_hash
from fewvox.data.store import Store
from fewvox.experiments import api
from fewvox.seg import checkpoint
from fewvox.seg.neighbours.sources import open_source
from safetensors import safe_open
from safetensors.torch import load_file, save_file

WEIGHTS = "weights.safetensors"


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def sung(tmp_path) -> Path:
    """The folder that a canary makes."""
    return tmp_path / "sung"


def bare(path: Path, value: object) -> None:
    path.write_bytes(pickle.dumps(value, 2))


def legacy(path: Path, value: object) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def numpy_object(path: Path, value: object) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([value], object), allow_pickle=True)


def torch_zip(path: Path, value: object) -> None:
    torch.save({"state_dict": {"encoder.0.0.0.weight": torch.zeros(4, 1, 3, 3, 3)}, "x": value}, path)


def nnunet_like(path: Path, value: object) -> None:
    torch.save({"network_weights": {}, "init_args": {"plans": value}, "trainer_name": "nnUNetTrainer"}, path)


def nnssl_like(path: Path, value: object) -> None:
    torch.save({"network_weights": {}, "nnssl_adaptation_plan": value}, path)


WRITERS = (bare, legacy, numpy_object, torch_zip, nnunet_like, nnssl_like)
NAMES = ("model.pth", "model.pt", "model.pkl", "model.npy", "model.ckpt", WEIGHTS)


# S01


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("write", WRITERS)
def test_S01_no_file_of_weights_runs_anything(tmp_path, sung, write, name):
    write(tmp_path / name, Canary(sung))
    for read in (open_source, checkpoint.load):
        with pytest.raises(UserError, match=r"calls|pickle|numpy array|not readable"):
            read(tmp_path / name)
    assert not sung.exists()


@pytest.mark.parametrize("write", [bare, torch_zip])
def test_S01_no_command_runs_anything(tmp_path, sung, write, tiny_store, nifti_folder):
    write(tmp_path / "model.pth", Canary(sung))
    model, out = tmp_path / "model.pth", tmp_path / "out"
    commands = (
        lambda: api.finetune(tiny_store.path, out, pretrained=model, set=("steps=1", "device=cpu")),
        lambda: api.transfer(model, tiny_store.path, json=out),
        lambda: api.embed(model, tiny_store.path, out),
        lambda: api.predict(model, nifti_folder(tmp_path / "data", 1) / "images", out),
        lambda: api.prepare(tmp_path / "data", out, from_checkpoint=model),
    )
    for command in commands:
        with pytest.raises(UserError, match=r"model\.pth"):
            command()
    assert not sung.exists()
    assert not out.exists()


@pytest.mark.parametrize("write", WRITERS)
def test_S01_no_folder_of_nnunet_runs_anything(tmp_path, sung, write):
    fold = tmp_path / "model" / "fold_0"
    fold.mkdir(parents=True)
    (fold.parent / "plans.json").write_text("{}")
    write(fold / "checkpoint_final.pth", Canary(sung))
    for path in (fold.parent, fold):
        with pytest.raises(UserError, match=r"checkpoint_final\.pth: "):
            open_source(path)
    assert not sung.exists()


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("place", [WEIGHTS, "training.pt"])
def test_S01_no_run_runs_anything(tmp_path, sung, write, place, tiny_run):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (file,) = run.glob(f"checkpoints/*/{place}")
    write(file, Canary(sung))
    readers = (checkpoint.load_state,) if place == "training.pt" else (checkpoint.load, open_source)
    for read in readers:
        with pytest.raises(UserError, match=place):
            read(run)
    assert not sung.exists()


@pytest.mark.parametrize("place", ["store.json", "plan.yaml"])
@pytest.mark.parametrize("write", [bare, numpy_object, torch_zip])
def test_S01_no_description_of_a_store_runs_anything(tmp_path, sung, write, place, tiny_store):
    shutil.copytree(tiny_store.path, tmp_path / "store")
    write(tmp_path / "store" / place, Canary(sung))
    with pytest.raises(UserError, match=f"{place}: not readable"):
        Store.open(tmp_path / "store")
    assert not sung.exists()


@pytest.fixture
def changed(tmp_path, tiny_store):
    """A copy of a store in which a file of the first case was changed, and its size and hash with it."""

    def change(name: str, write) -> tuple[Store, str]:
        folder = tmp_path / "store"
        shutil.copytree(tiny_store.path, folder)
        case = next(iter(tiny_store.cases))
        file = folder / "cases" / case / name
        file.unlink()
        write(file)
        index = json.loads((folder / "store.json").read_text())
        index["cases"][0]["files"][name] = {"size": file.stat().st_size, "sha256": file_hash(file)}
        (folder / "store.json").write_text(json.dumps(index))
        return Store.open(folder), case

    return change


def test_S01_positions_that_are_objects_are_refused(changed, sung):
    store, case = changed("foreground.npz", lambda file: np.savez(file, **{"1": np.array([Canary(sung)])}))
    with pytest.raises(UserError, match=r"foreground\.npz: not readable \(Object arrays"):
        store.foreground(case)
    assert not sung.exists()


def test_S01_a_pickle_in_the_metadata_of_an_array_stays_bytes(changed, sung):
    def write(file):
        array = blosc2.asarray(np.zeros((1, 2, 2, 2), np.float16), urlpath=str(file), mode="w")
        array.schunk.vlmeta["canary"] = pickle.dumps(Canary(sung))

    store, case = changed("image_0.b2nd", write)
    assert store.image(case)[0].sum() == 0
    assert not sung.exists()


def test_S01_an_array_that_is_code_is_not_run(changed):
    """blosc2 stores functions as text, and before 4.14.1 it ran the text when the file was opened."""

    def write(file):
        array = blosc2.zeros((1, 2, 2, 2), urlpath=str(file.with_name("operand.b2nd")), mode="w")
        function = blosc2.lazyudf(doubled, (array,), dtype=np.float64, shape=array.shape)
        function.save(urlpath=str(file))
        stored: Any = blosc2.open(str(file), mode="a", deserialize="full")
        described = stored.schunk.vlmeta["_LazyArray"]
        assert "def doubled" in str(described)
        described["UDF"] = f"1 / 0\n{described['UDF']}"
        stored.schunk.vlmeta["_LazyArray"] = described

    store, case = changed("image_0.b2nd", write)
    with pytest.raises(UserError, match=r"image_0\.b2nd: not readable \(.*'LazyArray'"):
        store.image(case)
    with pytest.raises(ZeroDivisionError):  # it would have run
        blosc2.open(str(store.path / "cases" / case / "image_0.b2nd"), deserialize="full")


def doubled(inputs, output, offset):
    """A function that blosc2 can store: one of a file, with plain arguments."""
    output[:] = inputs[0] * 2


@pytest.mark.parametrize("kind", [blosc2.ObjectArray])
def test_S01_a_list_of_objects_is_no_array(changed, kind):
    store, case = changed("image_0.b2nd", lambda file: kind(urlpath=str(file), mode="w").append({"a": 1}))
    with pytest.raises(UserError, match=r"image_0\.b2nd: "):
        store.image(case)


def test_S01_the_canaries_sing_where_they_are_let(tmp_path, sung):
    """Without this the tests above would pass with dead canaries."""
    for write in WRITERS:
        write(tmp_path / "file", Canary(sung))
        if write is bare:
            pickle.loads((tmp_path / "file").read_bytes())
        elif write is numpy_object:
            np.load(tmp_path / "file", allow_pickle=True)
        else:
            torch.load(tmp_path / "file", weights_only=False)
        assert sung.is_dir()
        sung.rmdir()


# S02

CODE = "!!python/object/apply:os.mkdir ['{}']"


def test_S02_no_configuration_runs_anything(tmp_path, sung, tiny_store, fewvox):
    file = tmp_path / "evil.yaml"
    file.write_text(f"lr: {CODE.format(sung.as_posix())}\n")
    data, store, out = tmp_path / "data", tiny_store.path, tmp_path / "out"
    (data / "images").mkdir(parents=True)
    for arguments in (
        ("finetune", "--store", store, "--out", out, "--config", file),
        ("pretrain", "mae", "--store", store, "--out", out, "--config", file),
        ("finetune", "--store", store, "--out", out, "--set", f"lr={CODE.format(sung.as_posix())}"),
        ("compare", file, "--out", out),
    ):
        status, said = fewvox(*arguments)
        assert status == 1, said
        assert "YAML" in said
    assert not sung.exists()


def test_S02_no_plan_and_no_mapping_runs_anything(tmp_path, sung, nifti_folder):
    file = tmp_path / "evil.yaml"
    file.write_text(f"version: {CODE.format(sung.as_posix())}\n")
    data = nifti_folder(tmp_path / "data", 2)
    for read in (
        lambda: api.prepare(data, tmp_path / "store", plan=file),
        lambda: open_source(tmp_path / "model.pth", file),
    ):
        with pytest.raises(UserError, match=r"evil\.yaml: not readable as YAML.*no tags"):
            read()
    assert not sung.exists()


@pytest.mark.parametrize("name", ["os.system", "monai.networks.nets.UNet", "builtins.eval", "", None])
def test_S02_networks_come_from_the_registry_alone(tmp_path, tiny_run, name):
    (file,) = tiny_run.glob(f"checkpoints/*/{WEIGHTS}")
    with safe_open(str(file), framework="pt") as opened:
        described = json.loads(opened.metadata()["fewvox"])
    described["architecture"]["name"] = name
    save_file(load_file(file), str(tmp_path / WEIGHTS), {"fewvox": json.dumps(described)})
    for read in (checkpoint.load, open_source):
        with pytest.raises(UserError, match=rf"'architecture\.name' is {name!r}"):
            read(tmp_path / WEIGHTS)


@pytest.mark.parametrize("name", ["os.system", "builtins.eval"])
def test_S02_a_class_named_in_plans_is_never_looked_up(tmp_path, name):
    plans = {"configurations": {"3d": {"architecture": {"network_class_name": name, "arch_kwargs": {}}}}}
    arguments = {"plans": plans, "configuration": "3d", "dataset_json": {}}
    torch.save({"network_weights": {}, "init_args": arguments}, tmp_path / "checkpoint_final.pth")
    with pytest.raises(UserError, match=rf"the network {name}.*PlainConvUNet"):
        open_source(tmp_path)


def test_S02_the_code_runs_where_it_is_let(sung):
    """Without this the tests above would pass with dead code."""
    yaml.unsafe_load(CODE.format(sung.as_posix()))
    assert sung.exists()


# H01 and H02


@pytest.fixture
def weights(tiny_run) -> dict[str, torch.Tensor]:
    """The tensors of a run."""
    return checkpoint.load(tiny_run).tensors


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "backbone.", "0.layers.", "module._orig_mod.net."]
)
def test_H01_prefixes_are_resolved_and_noted(tmp_path, weights, prefix):
    torch.save({f"{prefix}{name}": tensor for name, tensor in weights.items()}, tmp_path / "model.pt")
    found = open_source(tmp_path / "model.pt")
    assert found.tensors.keys() == weights.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in weights.items())
    assert any(prefix.split(".")[0] in note for note in found.notes)


def test_H01_a_renamed_encoder_is_found_and_a_lost_tensor_named(tmp_path, weights):
    renamed = {n.replace("encoder.", "encoder_q."): t for n, t in weights.items() if n.startswith("encoder.")}
    (tmp_path / "names.yaml").write_text("strides: [[2, 2, 2]]\n")
    torch.save(renamed, tmp_path / "model.pt")
    with pytest.raises(UserError, match="levels with"):
        open_source(tmp_path / "model.pt", tmp_path / "names.yaml")
    lost = {name: tensor for name, tensor in weights.items() if name != "encoder.1.0.1.weight"}
    torch.save(lost, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"without encoder\.1\.0\.1\.weight"):
        open_source(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"foo": 1}, r"no tensors, but the keys foo"),
        ({"swinViT.patch_embed.proj.weight": torch.zeros(48, 1, 2, 2, 2)}, r"swinViT.*as in nnU-Net"),
        ({"epoch": 1, "optimizer": {"state": {}}}, "no tensors, but the keys epoch, optimizer"),
        ([torch.zeros(1)], "a torch file with list"),
    ],
)
def test_H02_a_wrong_container_is_told_with_what_is_in_it(tmp_path, content, told):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(UserError, match=rf"model\.pt: .*{told}"):
        open_source(tmp_path / "model.pt")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("name", ["model.pt", WEIGHTS])
def test_H02_truncated_weights_are_told(tmp_path, weights, share, name):
    path = tmp_path / name
    torch.save(weights, path) if name == "model.pt" else save_file(weights, str(path))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"empty|cut short|not readable"):
        open_source(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t * float("nan"), "NaN"),
        (lambda t: t[:-1], "has the shape"),
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: t.to(torch.int32), "torch.int32"),
    ],
)
def test_H02_weights_that_are_none_are_told_by_name(tmp_path, weights, change, told):
    torch.save(
        {**weights, "encoder.1.1.0.weight": change(weights["encoder.1.1.0.weight"])}, tmp_path / "model.pt"
    )
    with pytest.raises(UserError, match=rf"encoder\.1\.1\.0\.weight.*{told}"):
        open_source(tmp_path / "model.pt")


def test_H02_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, weights):
    torch.save({**weights, "zeros": torch.zeros(10**6)}, tmp_path / "stored.pt")
    with zipfile.ZipFile(tmp_path / "stored.pt") as stored, zipfile.ZipFile(
        tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED
    ) as packed:  # fmt: skip
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    with pytest.raises(UserError, match="zip bomb"):
        open_source(tmp_path / "model.pt")
