"""Models of nnU-Net v2: the network of their plans, and how their volumes were prepared."""

import json
from pathlib import Path

import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.data.labels import LabelTable
from fewvox.data.plan import Window
from fewvox.seg.neighbours import errors
from fewvox.seg.neighbours.errors import SourceError
from fewvox.seg.neighbours.nnunet import model_file, of_nnunet
from fewvox.seg.neighbours.sources import open_source
from fewvox.seg.networks.registry import build

WHERE = Path("checkpoint_final.pth")


def test_a_checkpoint_tells_network_preparation_and_labels(nnunet_content, own_weights, architecture, saved):
    found = open_source(saved(nnunet_content()))
    assert found.kind == "nnunet"
    assert found.architecture == architecture
    assert all(torch.equal(found.tensors[name], own_weights[name]) for name in own_weights)
    assert found.trained == ("encoder", "decoder", "output")
    assert found.labels == LabelTable(values=(0, 1, 2))
    assert found.seen is None
    assert found.told == "nnU-Net, nnUNetTrainer, 3d_fullres, fold 0, 1 epochs"
    prepared = found.contract.preprocessing
    assert (prepared.spacing, prepared.unit, prepared.channels) == ((3.0, 1.0, 0.5), "mm", ("CT", "PET"))
    assert prepared.normalisation == ("ct", "zscore")
    assert prepared.windows == (Window(low=-20, high=300, mean=100, std=50), None)
    assert found.contract.patch == (8, 16, 24)
    assert found.contract.unknown == ("orientation",)
    build(found.architecture).load_state_dict(found.tensors, strict=True)


def test_transposed_volumes_come_back_to_our_axes(nnunet_content, own_weights, architecture):
    theirs = build(architecture).eval()
    theirs.load_state_dict(own_weights)
    order = [2, 0, 1]
    found = of_nnunet(
        WHERE, nnunet_content(plans={"transpose_forward": order, "transpose_backward": [1, 2, 0]})
    )
    ours = build(found.architecture).eval()
    ours.load_state_dict(found.tensors, strict=True)
    image = torch.randn(1, 2, 8, 4, 4)
    # what nnU-Net does with a volume before its network sees it, and with a mask afterwards
    seen = image.permute(0, 1, *(2 + axis for axis in order))
    expected = theirs(seen).permute(0, 1, *(2 + order.index(axis) for axis in range(3)))
    assert torch.allclose(ours(image), expected, atol=1e-5)
    assert found.contract.preprocessing.spacing == (1.0, 0.5, 3.0)
    assert found.contract.patch == (16, 24, 8)
    assert any("transposed" in note for note in found.notes)


@pytest.mark.parametrize("order", [[0, 1], [0, 0, 2], [1, 2, 3]])
def test_an_order_of_axes_that_is_none_is_refused(nnunet_content, order):
    with pytest.raises(SourceError, match="transpose_forward"):
        of_nnunet(WHERE, nnunet_content(plans={"transpose_forward": order}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"conv_op": "torch.nn.modules.conv.Conv2d"}, "conv_op Conv2d"),
        ({"n_conv_per_stage": [2, 3, 2]}, r"n_conv_per_stage \{2, 3\}"),
        ({"n_conv_per_stage_decoder": 1}, r"n_conv_per_stage_decoder \{1\}"),
        ({"norm_op": "torch.nn.modules.batchnorm.BatchNorm3d"}, "norm_op BatchNorm3d"),
        ({"norm_op_kwargs": {"eps": 0.1, "affine": True}}, "eps of norm_op 0.1"),
        ({"nonlin": "torch.nn.ReLU"}, "nonlin ReLU"),
        ({"nonlin_kwargs": {"negative_slope": 0.2}}, "negative_slope 0.2"),
        ({"nonlin_first": True}, "nonlin_first True"),
        ({"dropout_op": "torch.nn.Dropout3d", "dropout_op_kwargs": {"p": 0.2}}, "p of dropout_op 0.2"),
        ({"strides": [[2, 2, 2], [1, 2, 2], [2, 2, 2]]}, r"stride of \(2, 2, 2\) before the first"),
        ({"strides": [1, 4, 2]}, "strides of"),
        ({"kernel_sizes": [2, 3, 3]}, "kernels of"),
        ({"kernel_sizes": [[3, 3]] * 3}, "kernel_sizes"),
        ({"features_per_stage": [4, 8, 10**12]}, "features of"),
        ({"n_stages": 10**9}, "1000000000 levels"),
        ({"features_per_stage": [4, 8, 16]}, r"has the shape \(12, 8, 3, 3, 3\), not \(16, 8"),
        ({"strides": None}, "arguments|strides"),
    ],
)
def test_a_network_that_ours_cannot_be_is_refused_by_what_differs(nnunet_content, changes, told):
    with pytest.raises(SourceError, match=told):
        of_nnunet(WHERE, nnunet_content(**changes))


def test_dropout_that_drops_nothing_is_none(nnunet_content, nnunet_weights):
    none = {"dropout_op": "torch.nn.Dropout3d", "dropout_op_kwargs": {"p": 0}}
    found = of_nnunet(WHERE, nnunet_content(**none)).tensors
    moved = {name.replace("all_modules.1", "all_modules.2"): t for name, t in nnunet_weights.items()}
    none = {"dropout_op": "Dropout3d", "dropout_op_kwargs": {"p": 0.0}}
    there = of_nnunet(WHERE, nnunet_content(weights=moved, **none)).tensors
    assert found.keys() == there.keys()
    assert all(torch.equal(found[name], there[name]) for name in found)


def test_another_class_is_refused_with_those_there_are(nnunet_content):
    architecture = {"network_class_name": "monai.networks.nets.SwinUNETR", "arch_kwargs": {}}
    with pytest.raises(SourceError, match=r"the network monai.*SwinUNETR.*PlainConvUNet"):
        of_nnunet(WHERE, nnunet_content(architecture=architecture))


def test_plans_of_before_2_3_are_read(nnunet_content, architecture):
    old = {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 12,
        "n_conv_per_stage_encoder": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    }
    assert of_nnunet(WHERE, nnunet_content(drop=("architecture",), **old)).architecture == architecture
    with pytest.raises(SourceError, match=r"n_conv_per_stage \{3\}"):
        of_nnunet(
            WHERE, nnunet_content(drop=("architecture",), **old | {"n_conv_per_stage_encoder": [3] * 3})
        )
    with pytest.raises(SourceError, match=r"before nnU-Net 2\.3 that are not whole"):
        of_nnunet(WHERE, nnunet_content(drop=("architecture",), UNet_class_name="PlainConvUNet"))
    with pytest.raises(SourceError, match="no architecture"):
        of_nnunet(WHERE, nnunet_content(drop=("architecture",)))


def test_a_configuration_inherits(nnunet_content):
    content = nnunet_content()
    plans = content["init_args"]["plans"]
    plans["configurations"]["3d_large"] = {"inherits_from": "3d_fullres", "spacing": [4.0, 1.0, 1.0]}
    content["init_args"]["configuration"] = "3d_large"
    assert of_nnunet(WHERE, content).contract.preprocessing.spacing == (4.0, 1.0, 1.0)
    plans["configurations"]["3d_fullres"]["inherits_from"] = "3d_large"
    with pytest.raises(SourceError, match="no whole configuration '3d_large'"):
        of_nnunet(WHERE, content)


@pytest.mark.parametrize(
    ("plans", "changes", "unknown", "told"),
    [
        ({"image_reader_writer": "NibabelIOWithReorient"}, {}, (), ""),
        ({"image_reader_writer": "Tiff3DIO"}, {}, ("spacing", "orientation"), "of no known unit"),
        ({}, {"spacing": None}, ("spacing", "orientation"), "spacing: none"),
        ({}, {"patch_size": None}, ("orientation", "patch"), ""),
        (
            {},
            {"normalization_schemes": ["RescaleTo01Normalization", "ZScoreNormalization"]},
            ("orientation", "normalisation"),
            "channel 0: RescaleTo01Normalization, which there is not here",
        ),
        (
            {},
            {"use_mask_for_norm": [False, True]},
            ("orientation", "normalisation"),
            "channel 1: ZScoreNormalization inside the region that is not 0",
        ),
        (
            {"foreground_intensity_properties_per_channel": {}},
            {},
            ("orientation", "normalisation"),
            "CT without the grey values",
        ),
    ],
)
def test_what_is_not_known_of_the_preparation_is_said(nnunet_content, plans, changes, unknown, told):
    found = of_nnunet(WHERE, nnunet_content(plans=plans, **changes))
    assert found.contract.unknown == unknown
    assert told in " ".join(found.notes)
    assert (found.contract.preprocessing.spacing is None) == ("spacing" in unknown)
    assert found.contract.preprocessing.orientation == ("stored" if "orientation" in unknown else "RAS")


@pytest.mark.parametrize("spacing", [[1.0, 1.0], [0, 1, 1], [float("nan"), 1, 1], [float("inf"), 1, 1]])
def test_a_spacing_that_is_none_is_refused(nnunet_content, spacing):
    with pytest.raises(SourceError, match="spacing"):
        of_nnunet(WHERE, nnunet_content(spacing=spacing))


@pytest.mark.parametrize(
    ("labels", "table"),
    [
        ({"background": 0, "a": 1, "b": 2, "ignore": 3}, LabelTable(values=(0, 1, 2), ignore=3)),
        ({"background": 0, "whole": [1, 2], "b": 2}, None),
        ({"background": 0, "a": 1}, None),
        ({}, None),
    ],
)
def test_labels_are_told_where_they_are_plain_classes(nnunet_content, labels, table):
    found = of_nnunet(
        WHERE, nnunet_content(dataset={"channel_names": {"0": "a", "1": "b"}, "labels": labels})
    )
    assert found.labels == table


def test_channels_without_names_are_unknown_and_those_of_a_cascade_refused(nnunet_content):
    assert "channels" in of_nnunet(WHERE, nnunet_content(dataset={"labels": {}})).contract.unknown
    with pytest.raises(SourceError, match=r"2 input channels for 1 \(CT\).*cascade"):
        of_nnunet(WHERE, nnunet_content(dataset={"channel_names": {"0": "CT"}}))


@pytest.mark.parametrize("key", ["plans", "configuration", "dataset_json"])
def test_a_checkpoint_that_is_not_whole_is_told(nnunet_content, key):
    content = nnunet_content()
    del content["init_args"][key]
    with pytest.raises(SourceError, match=f"'init_args.{key}' is missing"):
        of_nnunet(WHERE, content)
    with pytest.raises(UserError, match=r"init_args"):
        of_nnunet(WHERE, {**content, "init_args": ["what"] * 10**6})


def test_the_model_folder_and_its_fold_are_read_alike(nnunet_content, saved):
    file = saved(nnunet_content(), "model/fold_0/checkpoint_final.pth")
    for name, value in (("plans.json", {}), ("dataset.json", {})):
        (file.parent.parent / name).write_text(json.dumps(value))
    saved({}, "model/fold_0/checkpoint_best.pth")
    assert open_source(file.parent.parent).path == open_source(file.parent).path == file
    saved(nnunet_content(), "model/fold_1/checkpoint_final.pth")
    with pytest.raises(SourceError, match=r"2 folds.*\(fold_0, fold_1\).*one of them"):
        open_source(file.parent.parent)


def test_a_fold_without_a_checkpoint_is_told(tmp_path):
    (tmp_path / "fold_0").mkdir()
    assert model_file(tmp_path) is None
    (tmp_path / "plans.json").write_text("{}")
    with pytest.raises(SourceError, match="fold_0: no checkpoint in it"):
        model_file(tmp_path)


def test_a_model_that_nnunet_itself_saved(nnunet_content, tmp_path, monkeypatch, own_weights):
    """The real trainer, where nnunetv2 is installed."""
    module = pytest.importorskip("nnunetv2.training.nnUNetTrainer.nnUNetTrainer", exc_type=ImportError)
    for name in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
        (tmp_path / name / "Dataset004_Hippocampus" / "x").mkdir(parents=True)
    (tmp_path / "nnUNet_preprocessed" / "Dataset004_Hippocampus" / "x" / "c00.b2nd").touch()
    content = nnunet_content()
    arguments = content["init_args"]
    configuration = arguments["plans"]["configurations"]["3d_fullres"]
    configuration |= {"batch_size": 2, "data_identifier": "x", "batch_dice": False}
    arguments["plans"]["continue_training"] = False
    trainer = module.nnUNetTrainer(
        arguments["plans"], "3d_fullres", 0, arguments["dataset_json"], device=torch.device("cpu")
    )
    monkeypatch.setattr(trainer, "_do_i_compile", lambda: False)
    trainer.initialize()
    for key, value in content["logging"].items():
        trainer.logger.log(key, value[0], 0)
    trainer.save_checkpoint(str(tmp_path / "checkpoint_final.pth"))
    trainer.set_deep_supervision_enabled(False)
    found = open_source(tmp_path / "checkpoint_final.pth")
    ours = build(found.architecture).eval()
    ours.load_state_dict(found.tensors, strict=True)
    image = torch.randn(1, 2, 8, 16, 24)
    assert torch.equal(ours(image), trainer.network.eval()(image))


@pytest.mark.parametrize("weights", [[torch.zeros(1)], None, 3])
def test_weights_that_are_no_mapping_are_told(nnunet_content, weights):
    with pytest.raises(SourceError, match=rf"network_weights that are {type(weights).__name__}"):
        of_nnunet(Path("x.pth"), nnunet_content(weights=weights))


@pytest.mark.parametrize("inner", [[3] * 10**4, ["3" * 10**4]])
def test_a_list_that_stands_there_a_thousand_times_is_not_written_out(nnunet_content, monkeypatch, inner):
    monkeypatch.setattr(errors, "_LONGEST", 10**5)
    with pytest.raises(SourceError, match="a description of more than 100,000 values"):
        of_nnunet(Path("x.pth"), nnunet_content(patch_size=[inner] * 1000))


def test_a_description_that_holds_itself_is_refused(nnunet_content, monkeypatch):
    monkeypatch.setattr(errors, "_LONGEST", 10**5)
    within: list = []
    within.append(within)
    with pytest.raises(SourceError, match="a description of more than"):
        of_nnunet(Path("x.pth"), nnunet_content(plans={"more": within}))
