"""What nnU-Net is given; held by nnU-Net itself where it is installed (`make test-neighbours`)."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.data.formats import files
from fewvox.data.labels import LabelTable
from fewvox.data.plan import Window
from fewvox.data.preprocess import preprocess
from fewvox.seg import batch_predict, checkpoint
from fewvox.seg.checkpoint import load
from fewvox.seg.export.nnssl import export_nnssl
from fewvox.seg.export.nnunet import MODEL, export_nnunet
from fewvox.seg.export.nnunet_network import arguments, weights
from fewvox.seg.export.nnunet_plans import differences_in_predicting, differences_in_preparing, plans
from fewvox.seg.export.safetensors_file import export_safetensors
from fewvox.seg.networks.registry import architecture_for, build
from fewvox.seg.weights import gaussian
from torch.nn import functional as F

# three levels, one of them pooled along two axes: (6, 16, 16) takes several windows
DEEP = {"patch": (4, 8, 8), "strides": ((1, 2, 2), (2, 2, 2))}


def configuration(said: dict) -> dict:
    return said["configurations"]["3d_fullres"]


def test_a_run_becomes_weights_plans_and_a_model(make_run, make_plan, tmp_path):
    run = make_run(plan=make_plan(**DEEP))
    told = export_nnunet(load(run), tmp_path / "out", "Dataset007_Mice")
    written = {
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert written == {
        "README.md",
        "checkpoint.pth",
        "nnUNetPlans_fewvox.json",
        f"{MODEL}/plans.json",
        f"{MODEL}/dataset.json",
        f"{MODEL}/fold_0/checkpoint_final.pth",
    }
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "nnUNetv2_train 7 3d_fullres 0 -p nnUNetPlans_fewvox -pretrained_weights checkpoint.pth" in readme
    assert told
    assert all(line in readme for line in told)
    described = json.loads((tmp_path / "out" / MODEL / "dataset.json").read_text(encoding="utf-8"))
    assert described["labels"] == {"background": 0, "class_1": 1, "class_2": 2}
    assert described["file_ending"] == ".nii.gz"


def test_the_files_hold_tensors_and_plain_values_alone(make_run, make_plan, tmp_path):
    export_nnunet(load(make_run(plan=make_plan(**DEEP))), tmp_path / "out")
    for name in ("checkpoint.pth", f"{MODEL}/fold_0/checkpoint_final.pth"):
        assert "network_weights" in torch.load(tmp_path / "out" / name, weights_only=True)


@pytest.mark.parametrize("name", ["efficientnet_b0", "hrnet", "swin_unetr"])
def test_networks_that_nnunet_does_not_have_are_refused(make_run, make_plan, tmp_path, name):
    plan = make_plan(**DEEP)
    made = load(make_run(plan=plan, architecture=architecture_for(plan, name)))
    for export, out in ((export_nnunet, tmp_path / "out"), (export_nnssl, tmp_path / "out.pth")):
        with pytest.raises(UserError, match=r"unet, residual_unet.*--to onnx or --to safetensors"):
            export(made, out)
        assert not out.exists()
    export_safetensors(made, tmp_path / "plain")
    again = load(tmp_path / "plain" / checkpoint.WEIGHTS)
    assert again.info.architecture == made.info.architecture
    assert all(torch.equal(again.tensors[key], tensor) for key, tensor in made.tensors.items())


def test_a_pretrained_run_has_no_output_and_no_model(make_run, make_plan, tmp_path):
    run = make_run(plan=make_plan(**DEEP), trained=("encoder",), method="triplet")
    told = export_nnunet(load(run), tmp_path / "out")
    found = torch.load(tmp_path / "out" / "checkpoint.pth", weights_only=True)["network_weights"]
    assert not any("seg_layers" in name for name in found)
    assert not (tmp_path / "out" / MODEL).exists()
    assert told[0] == "The loss reached encoder; the rest of the network has its first, random weights."
    assert not any("half precision" in line for line in told)


def test_centred_outputs_give_the_same_probabilities(make_run, make_plan):
    loaded = load(make_run(plan=make_plan(**DEEP)))
    found = weights(loaded, with_output=True)
    features = torch.randn(1, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    theirs = F.conv3d(features, found["decoder.seg_layers.1.weight"], found["decoder.seg_layers.1.bias"])
    ours = loaded.network().output(features)
    assert theirs.mean(dim=1).abs().max() < 1e-6
    torch.testing.assert_close(theirs.softmax(dim=1), ours.softmax(dim=1))
    assert found["decoder.seg_layers.0.weight"].shape == (3, 4, 1, 1, 1)
    assert not found["decoder.seg_layers.0.weight"].any()


def test_the_plans_say_what_was_done_to_the_volumes(make_run, make_plan):
    window = Window(low=-100.0, high=300.0, mean=20.0, std=50.0)
    plan = make_plan(
        spacing=(4.0, 1.0, 1.0),
        orders=(0, 1, 1),
        channels=("ct", "pet"),
        normalisation=("ct", "none"),
        windows=(window, None),
        **DEEP,
    )
    said = plans(load(make_run(plan=plan)), "Dataset001_A")
    assert configuration(said)["normalization_schemes"] == ["CTNormalization", "NoNormalization"]
    assert said["foreground_intensity_properties_per_channel"] == {
        "0": {"mean": 20.0, "std": 50.0, "percentile_00_5": -100.0, "percentile_99_5": 300.0},
        "1": {},
    }
    assert configuration(said)["spacing"] == [4.0, 1.0, 1.0]
    assert configuration(said)["resampling_fn_data_kwargs"]["force_separate_z"] is None
    assert configuration(said)["resampling_fn_probabilities_kwargs"]["force_separate_z"] is False
    assert said["image_reader_writer"] == "NibabelIOWithReorient"


def test_without_a_voxel_size_nothing_is_resampled(make_run, make_plan):
    plan = make_plan(spacing=None, unit=None, orientation="stored", **DEEP)
    said = plans(load(make_run(plan=plan)), "Dataset001_A")
    assert said["image_reader_writer"] == "Tiff3DIO"
    assert {
        v for k, v in configuration(said).items() if k.startswith("resampling") and isinstance(v, str)
    } == {"no_resampling_hack"}


def test_what_nnunet_does_otherwise_is_told(make_plan):
    (border,) = differences_in_preparing(make_plan().preprocessing)
    assert "Add 1" in border
    (border, coarse) = differences_in_preparing(
        make_plan(orders=(0, 0, 1), normalisation=("none",)).preprocessing
    )
    assert "Add 1" not in border
    assert "coarse" in coarse
    assert len(differences_in_predicting(make_plan())) == 2
    assert len(differences_in_predicting(make_plan(spacing=None))) == 1
    assert any("odd" in line for line in differences_in_predicting(make_plan(patch=(5, 8, 8))))


def test_values_with_gaps_are_told(make_run, make_plan, tmp_path):
    plan = make_plan(labels=LabelTable(values=(0, 5, 255)), **DEEP)
    assert any("(0, 5, 255)" in line for line in export_nnunet(load(make_run(plan=plan)), tmp_path / "out"))


def test_a_tiff_needs_its_voxel_size_beside_it(make_run, make_plan, tmp_path):
    plan = make_plan(orientation="stored", unit="um", **DEEP)
    assert any("CASE.json" in line for line in export_nnunet(load(make_run(plan=plan)), tmp_path / "out"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"normalisation": ("percentile",)}, "the normalisation percentile"),
        ({"labels": LabelTable(kind="overlapping", values=(0, 1, 2))}, "2 classes that may overlap"),
        ({"strides": ()}, "a network without pooling"),
        ({"patch": (1, 4, 4), "strides": ((1, 2, 2), (1, 2, 2))}, "leave one voxel"),
    ],
)
def test_what_nnunet_cannot_say_is_refused_and_nothing_written(make_run, make_plan, tmp_path, fields, said):
    run = make_run(plan=make_plan(**(DEEP | fields)))
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        export_nnunet(load(run), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_no_data_set_and_an_existing_folder_are_refused(make_run, make_plan, tmp_path):
    loaded = load(make_run(plan=make_plan(**DEEP)))
    with pytest.raises(UserError, match="DatasetNNN_NAME"):
        export_nnunet(loaded, tmp_path / "out", "../Dataset1")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        export_nnunet(loaded, tmp_path / "out")


@pytest.fixture
def architectures():
    return pytest.importorskip(
        "dynamic_network_architectures.architectures.unet", reason="make test-neighbours"
    )


@pytest.mark.parametrize(
    ("name", "class_name"), [("unet", "PlainConvUNet"), ("residual_unet", "ResidualEncoderUNet")]
)
def test_nnunets_network_takes_every_tensor(architectures, make_run, make_plan, name, class_name):
    plan = make_plan(**DEEP)
    loaded = load(make_run(plan=plan, architecture=architecture_for(plan, name)))
    architecture = loaded.info.architecture
    said = configuration(plans(loaded, "Dataset001_A"))["architecture"]
    assert said["network_class_name"].endswith(f".{class_name}")
    network = getattr(architectures, class_name)(
        input_channels=1,
        num_classes=architecture.classes,
        **arguments(architecture)
        | {"conv_op": torch.nn.Conv3d, "norm_op": torch.nn.InstanceNorm3d, "nonlin": torch.nn.LeakyReLU},
    )
    network.load_state_dict(weights(loaded, with_output=True), strict=True)
    images = torch.randn(1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs, ours = network.eval()(images), loaded.network().eval()(images)
    torch.testing.assert_close(theirs.softmax(dim=1), ours.softmax(dim=1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("patch", [(1, 4, 4), (4, 6, 5), (10, 16, 16), (40, 56, 40)])
def test_windows_weigh_as_nnunets_do(patch):
    module = pytest.importorskip(
        "nnunetv2.inference.sliding_window_prediction", reason="make test-neighbours"
    )
    theirs = module.compute_gaussian(
        patch, sigma_scale=1 / 8, value_scaling_factor=10, device=torch.device("cpu")
    )
    assert torch.equal(gaussian(patch), theirs.float())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_nnunet_predicts_the_same_masks(make_info, make_plan, nifti_folder, tmp_path):
    module = pytest.importorskip("nnunetv2.inference.predict_from_raw_data", reason="make test-neighbours")
    info, run = make_info(make_plan(**DEEP)), tmp_path / "run"
    network = build(info.architecture, 0)
    # sure of itself, as a trained one is: nnU-Net's half precision is coarse in the corners of a volume
    network.output.weight.data *= 100
    checkpoint.save(run, network, info, {}, None)
    data = nifti_folder(tmp_path / "data", 3, shape=(7, 19, 12))
    batch_predict.predict(run, data, tmp_path / "ours", device="cpu")
    export_nnunet(load(run), tmp_path / "out")
    predictor = module.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(tmp_path / "out" / MODEL), use_folds=(0,))
    reader = predictor.plans_manager.image_reader_writer_class()
    for path in sorted((data / "images").iterdir()):
        image, properties = reader.read_images([str(path)])
        theirs = predictor.predict_single_npy_array(image, properties)
        ours = np.asarray(nib.load(tmp_path / "ours" / path.name).dataobj).T
        assert len(np.unique(ours)) > 1
        assert np.count_nonzero(theirs != ours) <= 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("spacing", "orders", "stored"),
    [
        ((2.0, 1.0, 1.0), (1, 1, 1), (2.0, 1.0, 1.0)),
        ((1.0, 0.8, 0.6), (1, 1, 1), (2.0, 1.0, 1.0)),
        ((4.0, 1.0, 1.0), (0, 1, 1), (8.0, 1.5, 1.2)),
    ],
)
def test_nnunet_prepares_volumes_alike(make_run, make_plan, nifti_folder, tmp_path, spacing, orders, stored):
    """Where no axis shrinks: there fewvox smooths and nnU-Net does not."""
    handler = pytest.importorskip(
        "nnunetv2.utilities.plans_handling.plans_handler", reason="make test-neighbours"
    )
    plan = make_plan(spacing=spacing, orders=orders, **DEEP)
    manager = handler.PlansManager(plans(load(make_run(plan=plan)), "Dataset001_A"))
    how = manager.get_configuration("3d_fullres")
    (image,) = (nifti_folder(tmp_path / "data", 1, spacing=stored) / "images").iterdir()
    found, _, _ = how.preprocessor_class(verbose=False).run_case([str(image)], None, manager, how, {})
    expected = preprocess(files.read_volume(image), plan.preprocessing, image)
    assert found.shape == expected.shape
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_nnunet_loads_the_pretrained_weights(architectures, make_run, make_plan, tmp_path):
    module = pytest.importorskip("nnunetv2.run.load_pretrained_weights", reason="make test-neighbours")
    run = make_run(plan=make_plan(**DEEP), trained=("encoder", "decoder"))
    export_nnunet(load(run), tmp_path / "out")
    built = pytest.importorskip("nnunetv2.utilities.get_network_from_plans").get_network_from_plans
    said = configuration(
        json.loads((tmp_path / "out" / "nnUNetPlans_fewvox.json").read_text(encoding="utf-8"))
    )
    network = built(*said["architecture"].values(), 1, 5, deep_supervision=True)
    module.load_pretrained_weights(network, str(tmp_path / "out" / "checkpoint.pth"))
    found = weights(load(run), with_output=False)
    state = network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in found.items())
    assert all("seg_layers" in name for name in state.keys() - found.keys())
