"""Checkpoints of nnssl, in its published form.

Source of the form: adaptation_plan.py of https://github.com/MIC-DKFZ/nnssl, commit 286f3f4, and 236091b for
the one of 2024.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fewvox.seg.neighbours import nnssl
from fewvox.seg.neighbours.errors import SourceError
from fewvox.seg.neighbours.known import RESIDUAL
from fewvox.seg.neighbours.names import nnunet_residual_names
from fewvox.seg.neighbours.nnssl import of_nnssl
from fewvox.seg.neighbours.plans import topology_of
from fewvox.seg.neighbours.sources import open_source
from fewvox.seg.neighbours.state_dict import of_state_dict
from fewvox.seg.networks.registry import Architecture, build
from fewvox.seg.networks.topology import Topology

WHERE = Path("checkpoint_final.pth")
CONFIGURATION = {
    "data_identifier": "nnsslPlans_onemmiso",
    "preprocessor_name": "DefaultPreprocessor",
    "spacing_style": "onemmiso",
    "normalization_schemes": ["ZScoreNormalization"] * 2,
    "use_mask_for_norm": [False, False],
    "spacing": [1, 1, 1],
    "patch_size": [16, 16, 16],
}
ARGUMENTS = {
    "n_stages": 3,
    "features_per_stage": [4, 8, 12],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": 2,
    "n_conv_per_stage_decoder": 2,
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.modules.activation.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}


def adaptation_plan(configuration=CONFIGURATION, name="PlainConvUNet", arguments=ARGUMENTS, **changes):
    pretrain_plan = {
        "dataset_name": "Dataset745_OpenMind",
        "plans_name": "nnsslPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "FixedResEncUNetPlanner",
        "configurations": {"onemmiso": configuration},
    }
    plan = {
        "architecture_plans": {
            "arch_class_name": name,
            "arch_kwargs": arguments,
            "arch_kwargs_requiring_import": ["conv_op", "norm_op", "nonlin"],
        },
        "pretrain_plan": pretrain_plan,
        "pretrain_num_input_channels": 2,
        "recommended_downstream_patchsize": [16, 16, 16],
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stages.0",
        "keys_to_in_proj": ["encoder.stages.0.0.convs.0.conv", "encoder.stages.0.0.convs.0.all_modules.0"],
        "key_to_lpe": None,
    }
    return plan | changes


@pytest.fixture
def content(nnunet_weights):
    """What nnssl's trainer of masked autoencoders saves: a whole U-Net that gives back its two channels."""

    def make(plan=None, weights=nnunet_weights):
        weights = {n: t[:2] if n.startswith("decoder.seg_layers.") else t for n, t in weights.items()}
        return {
            "network_weights": weights,
            "nnssl_adaptation_plan": plan or adaptation_plan(),
            "trainer_name": "BaseMAETrainer",
            "citations": [{"type": "Pretraining Method", "name": "MAE", "bibtex_citations": []}],
        }

    return make


def test_a_masked_autoencoder_gives_encoder_and_decoder(content, own_weights, architecture, saved):
    found = open_source(saved(content()))
    assert found.kind == "nnssl"
    assert found.trained == ("encoder", "decoder")
    assert found.architecture.topology == architecture.topology
    assert (found.architecture.in_channels, found.architecture.classes) == (2, 1)
    assert all(torch.equal(t, own_weights[name]) for name, t in found.tensors.items())
    assert {name.split(".")[0] for name in found.tensors} == {"encoder", "decoder"}
    assert found.told == "nnssl, BaseMAETrainer, PlainConvUNet (encoder and decoder)"
    assert "left out, as it gives back images: decoder.seg_layers" in " ".join(found.notes)
    assert found.contract.preprocessing.spacing == (1, 1, 1)
    assert found.contract.preprocessing.normalisation == ("zscore", "zscore")
    assert found.contract.patch == (16, 16, 16)
    assert found.contract.unknown == ("channels", "orientation")
    assert found.labels is found.seen is None


@pytest.mark.parametrize(
    ("encoder", "key"),
    [("encoder.", "encoder.stages"), ("online_encoder.", "online_encoder.stages"), ("", "stages")],
)
@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "net."])
def test_an_encoder_alone_is_found_by_its_key(content, nnunet_weights, own_weights, encoder, key, wrapper):
    weights = {
        f"{wrapper}{encoder}{name.removeprefix('encoder.')}": tensor
        for name, tensor in nnunet_weights.items()
        if name.startswith("encoder.")
    }
    if encoder == "online_encoder.":
        weights |= {n.replace("online", "target"): torch.zeros_like(t) for n, t in weights.items()}
    found = of_nnssl(WHERE, content(adaptation_plan(key_to_encoder=key), weights))
    assert found.trained == ("encoder",)
    assert all(torch.equal(t, own_weights[name]) for name, t in found.tensors.items())
    network = build(found.architecture)
    assert {n for n in network.state_dict() if n.startswith("encoder.")} == found.tensors.keys()


def test_a_key_that_leads_nowhere_is_an_error(content):
    with pytest.raises(SourceError, match="first convolution"):
        of_nnssl(WHERE, content(adaptation_plan(key_to_encoder="backbone.stages")))


def test_volumes_that_were_not_resampled_have_no_known_spacing(content):
    plan = adaptation_plan({**CONFIGURATION, "spacing": None, "spacing_style": "noresample"})
    found = of_nnssl(WHERE, content(plan))
    assert found.contract.unknown == ("channels", "spacing", "orientation")
    assert found.contract.preprocessing.spacing is None


def test_the_patch_of_the_pretraining_stands_above_that_of_the_plan(content):
    found = of_nnssl(WHERE, content(adaptation_plan(pretrain_patch_size=[8, 8, 16])))
    assert found.contract.patch == (8, 8, 16)


@pytest.mark.parametrize("name", ["PrimusS", "PrimusM"])
def test_a_transformer_is_refused(content, name):
    with pytest.raises(SourceError, match=f"the network {name}, a transformer"):
        of_nnssl(WHERE, content(adaptation_plan(name=name, arguments=None)))


def test_the_form_of_2024_tells_the_patch_alone(content):
    plan = {
        "architecture_name": "PlainConvUNet",
        "num_input_channels": 2,
        "input_patch_size": [16, 16, 16],
        "state_dict_key_to_encoder": "encoder.stages",
        "state_dict_key_to_stem": "encoder.stem",
    }
    with pytest.raises(SourceError, match="the network PlainConvUNet, without arguments"):
        of_nnssl(WHERE, content(plan))
    with pytest.raises(SourceError, match="'key_to_encoder' is None"):
        of_nnssl(WHERE, content({**plan, "state_dict_key_to_encoder": None}))


def test_a_plan_without_preparation_leaves_it_open(content):
    found = of_nnssl(WHERE, content(adaptation_plan(pretrain_plan=None, pretrain_patch_size=[16, 16, 16])))
    assert found.contract.preprocessing is None
    assert found.contract.patch == (16, 16, 16)
    assert found.contract.unknown == ("spacing", "orientation", "channels", "normalisation")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pretrain_num_input_channels": 1}, "2 input channels, 1 by its adaptation plan"),
        ({"key_to_encoder": 3}, "'key_to_encoder' is 3"),
        ({"architecture_plans": {}}, r"'architecture_plans\.arch_class_name' is missing"),
        ({"pretrain_plan": {"configurations": {}}}, "no whole configuration|configuration ''"),
    ],
)
def test_a_plan_that_does_not_fit_is_told(content, changes, told):
    with pytest.raises(SourceError, match=told):
        of_nnssl(WHERE, content(adaptation_plan(**changes)))


@pytest.fixture(scope="module")
def residual():
    """A residual U-Net, its weights, and these by nnU-Net's names."""
    topology = Topology(
        features=(4, 8, 8), kernels=((3, 3, 3),) * 3, strides=((2, 2, 2), (1, 2, 2)), blocks=(1, 2, 1)
    )
    architecture = Architecture(name="residual_unet", in_channels=2, classes=1, topology=topology)
    own = {name: torch.randn(t.shape) for name, t in build(architecture, 0).state_dict().items()}
    names = nnunet_residual_names(topology)
    return architecture, own, {theirs: own[ours] for ours in own for theirs in names[ours]}


def test_residual_encoders_come_as_ours(content, residual):
    architecture, own, weights = residual
    arguments = {name: value for name, value in ARGUMENTS.items() if name != "n_conv_per_stage"}
    arguments |= {
        "features_per_stage": [4, 8, 8],
        "kernel_sizes": [[3, 3, 3]] * 3,
        "n_blocks_per_stage": [1, 2, 1],
    }
    arguments |= {"strides": [[1, 1, 1], [2, 2, 2], [1, 2, 2]], "n_conv_per_stage_decoder": 1}
    found = of_nnssl(
        WHERE, content(adaptation_plan(name="ResidualEncoderUNet", arguments=arguments), weights)
    )
    assert found.architecture == architecture
    assert found.trained == ("encoder", "decoder")
    assert all(torch.equal(tensor, own[name]) for name, tensor in found.tensors.items())
    without_blocks = {**arguments, "n_blocks_per_stage": [1, 1, 1]}
    with pytest.raises(SourceError, match=r"does not have: encoder\.stages\.1\.blocks\.1"):
        of_nnssl(
            WHERE, content(adaptation_plan(name="ResidualEncoderUNet", arguments=without_blocks), weights)
        )


def test_a_residual_state_dict_tells_its_blocks(residual):
    architecture, own, weights = residual
    for named in (own, weights):
        found = of_state_dict(WHERE, {f"module.{name}": tensor for name, tensor in named.items()})
        assert found.architecture == architecture
        assert all(torch.equal(tensor, own[name]) for name, tensor in found.tensors.items())


@pytest.mark.parametrize(
    ("name", "parts"), [("ResEncL", ("encoder", "decoder")), ("NoSkipResEncL", ("encoder",))]
)
def test_presets_are_those_of_nnssl(content, name, parts, monkeypatch, residual):
    """The preset at a size that a test can hold."""
    preset = nnssl._PRESETS["ResEncL"]
    topology = topology_of(RESIDUAL, preset.arch_kwargs, WHERE)
    assert topology.features == (32, 64, 128, 256, 320, 320)
    assert topology.blocks == (1, 3, 4, 6, 6, 6)
    assert topology.strides == ((2, 2, 2),) * 5
    small = {
        **preset.arch_kwargs, "n_stages": 3, "features_per_stage": [4, 8, 8], "n_blocks_per_stage": [1, 2, 1],
        "strides": [1, 2, [1, 2, 2]]
    }  # fmt: skip
    monkeypatch.setitem(nnssl._PRESETS, "ResEncL", replace(preset, arch_kwargs=small))
    found = of_nnssl(WHERE, content(adaptation_plan(name=name, arguments=None), residual[2]))
    assert found.trained == parts
    assert found.architecture == residual[0]
