"""From files to files: pretrained weights arrive in another world, and one can see that they did."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.data.settings import parse
from fewvox.experiments import api
from fewvox.seg import checkpoint
from fewvox.seg.networks.registry import NETWORKS
from fewvox.seg.transfer_report import TransferReport

SHORT = ("steps=2", "batch=1", "width=4", "device=cpu")
# steps that move nothing: the weights of the run are those that arrived
STILL = (*SHORT, "optimizer.lr=1e-20")
DIFFERENT = "levels, features, kernels, strides or channels differ"


def report_of(run: Path) -> TransferReport:
    """The transfer report in a run, read back."""
    return parse(TransferReport, json.loads((run / "transfer.json").read_text(encoding="utf-8")), run)


def volume(index: int, shape: tuple[int, int, int], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise (Z, Y, X) with slabs of so many classes, each brighter than the one before, and the classes."""
    label = np.zeros(shape, np.uint8)
    for c, rows in enumerate(np.array_split(np.arange(shape[1]), classes + 1)):
        label[2:-2, rows, 2:-2] = c
    noise = np.random.default_rng(index).normal(50, 5, shape)
    return (label * 100.0 + noise).astype(np.float32), label


@pytest.fixture(scope="module")
def mri(tmp_path_factory, save_nifti) -> Path:
    """A store of two one-channel volumes of 1 mm with one class, whose network has three levels."""
    folder = tmp_path_factory.mktemp("mri")
    for index in range(2):
        image, label = volume(index, (28, 31, 28), 1)
        save_nifti(folder / f"data/images/{index}.nii.gz", image, (1.0, 1.0, 1.0))
        save_nifti(folder / f"data/labels/{index}.nii.gz", label, (1.0, 1.0, 1.0))
    return api.prepare(folder / "data", folder / "store", budget="cpu").path


@pytest.fixture(scope="module")
def microscopy(tmp_path_factory, save_tiff) -> Path:
    """A store of two two-channel volumes of 1 x 0.3 x 0.3 um with three classes; four levels."""
    folder, spacing = tmp_path_factory.mktemp("microscopy"), (1.0, 0.3, 0.3)
    for index in range(2):
        image, label = volume(10 + index, (12, 40, 40), 3)
        save_tiff(folder / f"data/images/{index}.tif", np.stack([image, image[::-1]]), spacing, "um")
        save_tiff(folder / f"data/labels/{index}.tif", label, spacing, "um")
    return api.prepare(folder / "data", folder / "store", budget="cpu").path


@pytest.fixture(scope="module")
def pretrained(mri, microscopy, tmp_path_factory) -> Callable[[str], Path]:
    """A run pretrained on the one or the other, each made once."""
    made: dict[str, Path] = {}
    ways = {"mri": (mri, ("patch=[40,56,40]",)), "microscopy": (microscopy, ())}

    def make(name: str) -> Path:
        if name not in made:
            store, own = ways[name]
            made[name] = api.pretrain(
                "mae", store, tmp_path_factory.mktemp(name) / "run", set=SHORT + own
            ).path
        return made[name]

    return make


def states(report: TransferReport) -> dict[str, tuple[str, str]]:
    """What became of each block, and why."""
    return {block.name: (block.state, block.detail) for block in report.blocks()}


def assert_arrived(run: Path, source: checkpoint.Checkpoint, report: TransferReport) -> None:
    """Every tensor of the run is in the report, and those that were loaded are the pretrained ones."""
    found = checkpoint.load(run).tensors
    assert sorted(t.name for t in report.tensors) == sorted(found)
    assert {t.name: t.parameters for t in report.tensors} == {n: t.numel() for n, t in found.items()}
    for t in report.tensors:
        if t.state == "loaded":
            # where a weight is 0, even such a step is one
            torch.testing.assert_close(found[t.name], source.tensors[t.source or ""], rtol=0, atol=1e-15)
    answering = {t.source for t in report.tensors if t.source}
    assert {*source.tensors} - answering - {*report.unused} == {"output.weight", "output.bias"}


def first_level(weights: checkpoint.Checkpoint, image: torch.Tensor) -> torch.Tensor:
    """What the finest level answers to an image (1, 1, Z, Y, X) that all of its channels show."""
    channels = weights.info.architecture.in_channels
    with torch.inference_mode():
        return weights.network().eval().encoder[0](image.expand(-1, channels, -1, -1, -1))


NEW = ("re-initialised", "the checkpoint has no level as coarse as this one")
NOT_TRAINED = ("re-initialised", "the checkpoint's loss did not reach it")
IMAGE = torch.rand(1, 1, 6, 8, 8, generator=torch.Generator().manual_seed(0))


def test_from_mri_to_microscopy_everything_that_can_arrive_does(pretrained, microscopy, tmp_path):
    source = checkpoint.load(pretrained("mri"))
    given = {"pretrained": pretrained("mri"), "set": STILL}
    with pytest.raises(UserError, match=r"(?s)1 x 1 x 1 mm there, 1 x 0\.3 x 0\.3 um.*--accept-mismatch"):
        api.finetune(microscopy, tmp_path / "run", **given)
    run = api.finetune(microscopy, tmp_path / "run", **given, accept_mismatch=True).path
    found, report = checkpoint.load(run), report_of(run)
    there, here = source.info.architecture, found.info.architecture
    assert source.info.plan.training.patch == (40, 56, 40)
    assert (there.in_channels, there.classes, there.topology.strides) == (1, 2, ((2, 2, 2),) * 2)
    assert (here.in_channels, here.classes) == (2, 4)
    assert here.topology.strides == ((1, 2, 2), (2, 2, 2), (1, 2, 2))
    assert states(report) == {
        "encoder.0": ("adapted", "image channels: each the mean of the 1 there, times 1/2"),
        "encoder.1": ("loaded", ""),
        "encoder.2": ("loaded", ""),
        "encoder.3": NEW,
        "decoder.0": NEW,
        "decoder.1": ("loaded", ""),
        "decoder.2": ("adapted", "stride 2 -> 1 along z: averaged"),
        "output": NOT_TRAINED,
    }
    assert report.share("encoder") == pytest.approx(0.248, abs=1e-3)
    assert report.share("decoder") == pytest.approx(0.252, abs=1e-3)
    assert report.notes[0].startswith("levels aligned finest with finest: 1 x 0.3 x 0.3 um here")
    assert report.notes[1] == "pooling differs: level 1 by (1, 2, 2) here and (2, 2, 2) there"
    assert (report.accepted, [m.what for m in report.mismatches]) == (True, ["spacing", "orientation"])
    assert [w.split(":")[0] for w in report.warnings] == [
        "only 24.8% of the encoder's parameters are the checkpoint's",
        "only 25.2% of the decoder's parameters are the checkpoint's",
        "patch",
    ]
    assert report.guard is not None
    assert report.guard.warnings[0].startswith("grey values of channel 0 are others than in pretraining")
    assert report.proof is not None
    assert report.proof.left_out == dict.fromkeys(states(report), DIFFERENT)
    assert_arrived(run, source, report)
    torch.testing.assert_close(first_level(found, IMAGE), first_level(source, IMAGE), atol=1e-5, rtol=1e-5)


def test_from_microscopy_to_mri_everything_that_can_arrive_does(pretrained, mri, tmp_path):
    source = checkpoint.load(pretrained("microscopy"))
    given = {"pretrained": pretrained("microscopy"), "accept_mismatch": True, "set": STILL}
    run = api.finetune(mri, tmp_path / "run", **given).path
    found, report = checkpoint.load(run), report_of(run)
    assert states(report) == {
        "encoder.0": ("adapted", "image channels: each the mean of the 2 there, times 2"),
        "encoder.1": ("loaded", ""),
        "encoder.2": ("loaded", ""),
        "decoder.0": ("loaded", ""),
        "decoder.1": ("adapted", "stride 1 -> 2 along z: repeated"),
        "output": NOT_TRAINED,
    }
    assert [report.share(part) for part in ("encoder", "decoder", "output")] == [1, 1, 0]
    assert {name[:9] for name in report.unused} == {"encoder.3", "decoder.0"}
    assert [m.what for m in report.mismatches] == ["spacing", "orientation"]
    assert [w.split(":")[0] for w in report.warnings] == ["patch"]
    assert report.proof is not None
    assert report.proof.left_out == dict.fromkeys(states(report), DIFFERENT)
    assert_arrived(run, source, report)
    torch.testing.assert_close(first_level(found, IMAGE), first_level(source, IMAGE), atol=1e-5, rtol=1e-5)


# one EfficientNet for all
@pytest.mark.parametrize("name", [n for n in NETWORKS if n[-1] not in "1234"])
def test_the_same_volumes_prove_that_every_block_arrived(tiny_store, tmp_path, name):
    small = ("steps=1", "batch=2", "patch=[8,16,8]", "width=4", "device=cpu")
    before = api.pretrain("mae", tiny_store.path, tmp_path / "mae", set=(*small, f"network={name}")).path
    # what is fine-tuned, and what is shown beforehand, is the network of the weights
    shown = api.transfer(before, tiny_store.path, set=small)
    run = api.finetune(tiny_store.path, tmp_path / "run", pretrained=before, set=small).path
    report = report_of(run)
    assert checkpoint.load(run).info.architecture.name == name
    assert replace(shown, guard=None) == replace(report, guard=None)
    assert report.proof is not None
    blocks = [block.name for block in report.blocks()]
    assert {block.split(".")[0] for block in blocks} == {"encoder", "decoder", "output"}
    assert list(report.proof.deviations) == [block for block in blocks if block != "output"]
    assert max(report.proof.deviations.values()) < 1e-5
    assert report.proof.left_out == {"output": "output begins at random"}
    assert any(line.startswith("  the network gives what the checkpoint stored: ") for line in report.lines())
