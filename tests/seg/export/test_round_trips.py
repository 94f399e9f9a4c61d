"""What is exported and taken back is what it was, and what cannot be told says so."""

from typing import Any

import pytest
import torch
from fewvox.data.labels import LabelTable
from fewvox.data.plan import Window
from fewvox.seg.checkpoint import load
from fewvox.seg.contract import NOT_TOLD, mismatches
from fewvox.seg.export.nnssl import export_nnssl
from fewvox.seg.export.nnunet import MODEL, export_nnunet
from fewvox.seg.neighbours.sources import open_source
from fewvox.seg.networks.registry import architecture_for, build

# three levels, the first stride along two axes, a kernel of one slice
DEEP = {"patch": (4, 8, 8), "strides": ((1, 2, 2), (2, 2, 2)), "spacing": (3.0, 1.0, 1.0)}
PRETRAINED = ("encoder", "decoder")


@pytest.fixture(params=["unet", "residual_unet"])
def checkpoint(request, make_run, make_plan) -> Any:
    """Makes a checkpoint of each network that nnU-Net has; its plan is changed by keywords."""

    def make(trained=(*PRETRAINED, "output"), **fields):
        plan = make_plan(**(DEEP | fields))
        return load(make_run(plan=plan, architecture=architecture_for(plan, request.param), trained=trained))

    return make


def without_output(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("output.")}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def not_told(found, plan) -> list[str]:
    """What of the contract is open; everything else that would be compared is the same."""
    differing = mismatches(found.contract, plan)
    assert all(m.theirs == NOT_TOLD for m in differing)
    return [m.what for m in differing]


def test_by_way_of_nnssl_everything_but_the_channel_names_comes_back(checkpoint, tmp_path):
    made = checkpoint(PRETRAINED)
    export_nnssl(made, tmp_path / "model.pth")
    found = open_source(tmp_path / "model.pth")
    assert found.kind == "nnssl"
    assert found.trained == PRETRAINED
    assert found.architecture.topology == made.info.architecture.topology
    assert found.architecture.name == made.info.architecture.name
    assert_equal(found.tensors, without_output(made.tensors))
    assert not_told(found, made.info.plan) == ["channels"]
    assert found.contract.patch == made.info.plan.training.patch


def test_by_way_of_nnunet_the_whole_model_comes_back(checkpoint, tmp_path):
    window = Window(low=-100.0, high=300.0, mean=20.0, std=50.0)
    made = checkpoint(channels=("CT", "PET"), normalisation=("ct", "zscore"), windows=(window, None))
    export_nnunet(made, tmp_path / "out")
    found = open_source(tmp_path / "out" / MODEL)
    assert (found.kind, found.architecture) == ("nnunet", made.info.architecture)
    assert_equal(without_output(found.tensors), without_output(made.tensors))
    assert found.labels is not None
    assert made.info.plan.labels is not None
    assert found.labels.same_classes(made.info.plan.labels)
    assert not_told(found, made.info.plan) == []
    assert found.contract.preprocessing == made.info.plan.preprocessing
    assert found.contract.patch == made.info.plan.training.patch
    images = torch.randn(1, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    network = build(found.architecture)
    network.load_state_dict(found.tensors, strict=True)
    with torch.inference_mode():
        theirs, ours = network.eval()(images), made.network().eval()(images)
    # all but the output's centre, which softmax does not see
    assert not torch.equal(theirs, ours)
    torch.testing.assert_close(theirs, ours - made_centre(made, images), rtol=0, atol=1e-5)
    torch.testing.assert_close(theirs.softmax(dim=1), ours.softmax(dim=1), rtol=0, atol=1e-6)


def made_centre(made, images: torch.Tensor) -> torch.Tensor:
    """The mean of a network's logits over the classes."""
    return made.network().eval()(images).mean(dim=1, keepdim=True)


def test_weights_to_train_from_come_back_without_their_plans(checkpoint, tmp_path):
    made = checkpoint(PRETRAINED)
    export_nnunet(made, tmp_path / "out")
    found = open_source(tmp_path / "out/checkpoint.pth")
    assert (found.kind, found.trained) == ("state_dict", PRETRAINED)
    assert found.architecture.topology == made.info.architecture.topology
    assert_equal(found.tensors, without_output(made.tensors))
    assert not_told(found, made.info.plan) == ["spacing", "orientation", "channels", "normalisation"]


@pytest.mark.parametrize(
    ("fields", "open_"),
    [
        ({"orientation": "stored", "unit": "um"}, ["spacing", "orientation"]),
        ({"orientation": "stored", "unit": None, "spacing": None}, ["orientation"]),
        ({"unit": None, "spacing": None}, []),
    ],
)
def test_nnunet_cannot_tell_the_unit_of_a_tiff_nor_its_axes(make_run, make_plan, tmp_path, fields, open_):
    made = load(make_run(plan=make_plan(**(DEEP | fields))))
    export_nnunet(made, tmp_path / "out")
    assert not_told(open_source(tmp_path / "out" / MODEL), made.info.plan) == open_


def test_values_with_gaps_come_back_as_the_numbers_of_the_classes(make_run, make_plan, tmp_path):
    made = load(make_run(plan=make_plan(labels=LabelTable(values=(0, 5, 255)), **DEEP)))
    export_nnunet(made, tmp_path / "out")
    assert open_source(tmp_path / "out" / MODEL).labels == LabelTable(values=(0, 1, 2))
