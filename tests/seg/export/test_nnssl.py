"""An adaptation plan of the published form."""

import pydoc

import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.seg.checkpoint import load
from fewvox.seg.export.nnssl import PLAN, adaptation_plan, export_nnssl

DEEP = {"patch": (4, 8, 8), "strides": ((1, 2, 2), (2, 2, 2))}


@pytest.fixture
def checkpoint(make_run, make_plan):
    return load(make_run(plan=make_plan(**DEEP), trained=("encoder", "decoder"), method="mae"))


def test_the_file_has_what_readers_ask_for(checkpoint, tmp_path):
    export_nnssl(checkpoint, tmp_path / "model.pth")
    found = torch.load(tmp_path / "model.pth", weights_only=True)
    plan = found[PLAN]
    (configuration,) = plan["pretrain_plan"]["configurations"].values()
    assert configuration["spacing"] == [2.0, 1.0, 1.0]
    assert configuration["patch_size"] == plan["recommended_downstream_patchsize"] == [4, 8, 8]
    assert configuration["normalization_schemes"] == ["ZScoreNormalization"]
    assert plan["pretrain_num_input_channels"] == 1
    assert plan["key_to_lpe"] is None
    assert plan["architecture_plans"]["arch_class_name"] == "PlainConvUNet"
    names = found["network_weights"].keys()
    assert all(f"{key}.weight" in names for key in plan["keys_to_in_proj"])
    assert any(name.startswith(f"{plan['key_to_stem']}.") for name in names)


def test_an_existing_file_is_kept(checkpoint, tmp_path):
    (tmp_path / "model.pth").write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already"):
        export_nnssl(checkpoint, tmp_path / "model.pth")
    assert (tmp_path / "model.pth").read_bytes() == b"mine"


def test_the_keys_are_those_of_the_network_class(checkpoint, tmp_path):
    """The encoder and its stem load as nnU-Net's fine-tuning extension loads them: by submodule, strictly."""
    module = pytest.importorskip(
        "dynamic_network_architectures.architectures.unet", reason="make test-neighbours"
    )
    export_nnssl(checkpoint, tmp_path / "model.pth")
    found, plan = torch.load(tmp_path / "model.pth", weights_only=True), adaptation_plan(checkpoint)
    built = plan["architecture_plans"]
    kwargs = dict(built["arch_kwargs"])
    for key in built["arch_kwargs_requiring_import"]:
        kwargs[key] = kwargs[key] and pydoc.locate(kwargs[key])
    network = getattr(module, built["arch_class_name"])(input_channels=1, num_classes=4, **kwargs)
    assert (network.key_to_encoder, network.key_to_stem) == (plan["key_to_encoder"], plan["key_to_stem"])
    assert set(network.keys_to_in_proj) == set(plan["keys_to_in_proj"])
    for key in (plan["key_to_encoder"], plan["key_to_stem"]):
        part = {n[len(key) + 1 :]: t for n, t in found["network_weights"].items() if n.startswith(f"{key}.")}
        network.get_submodule(key).load_state_dict(part, strict=True)
