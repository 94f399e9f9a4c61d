"""Rows F01 to F03 of the reliability table: volumes beyond memory, exact stitching, geometry."""

import itertools
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
import zarr
from fewvox.data.errors import UserError
from fewvox.data.formats.files import mask_suffix, open_volume, read_volume
from fewvox.data.labels import LabelTable
from fewvox.data.plan import Plan, Preprocessing, Training
from fewvox.seg import predict as predicting
from fewvox.seg.predict import Model, PredictConfig, Predictor
from fewvox.seg.sliding_window import stitch
from fewvox.seg.sums import HostSums
from fewvox.seg.tiles import Tiles
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


class Thresholds(nn.Module):
    """An identity labeller: class 1 where the image is above a threshold; a third class nowhere."""

    def __init__(self, threshold=0.0):
        super().__init__()
        self.threshold, self.weight = threshold, nn.Parameter(torch.ones(1))

    def forward(self, images):
        sure = 10 * (images - self.threshold)
        return torch.cat([-sure, sure, torch.full_like(sure, -1e3)], dim=1)


def predictor(threshold=0.0, patch=(8, 8, 8), orientation="stored", spacing=None, unit=None, **config):
    how = Preprocessing(
        unit=unit,
        spacing=spacing,
        orientation=orientation,
        channels=("channel0",),
        normalisation=("none",),
    )
    training = Training(patch=patch, strides=((2, 2, 2),), width=2)
    plan = Plan(preprocessing=how, labels=LabelTable(values=(0, 1, 2)), training=training)
    return Predictor(
        models=(Model(network=Thresholds(threshold), plan=plan),),  # type: ignore[arg-type]
        config=PredictConfig(**config),
    )


LIMITED = """
import resource, sys
from pathlib import Path
import psutil, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from test_prediction import predictor
from fewvox.data.formats import lazy
from fewvox.data.formats.files import open_volume
lazy.WHOLE_BYTES = 2**20
source, out = Path(sys.argv[2]), Path(sys.argv[3])
run = predictor(100, (32, 64, 64), overlap=0.0)
# threads, and what is compiled or loaded at first use, are no part of it
run.mask(open_volume(Path(sys.argv[4])), "small")
open_volume(source).array[:, :32]
limit = psutil.Process().memory_info().vms + 2**29
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
run.write_mask(open_volume(source), source, out)
"""


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_F01_a_volume_larger_than_memory_is_predicted_in_regions(tmp_path, suffix):
    """As a whole, its logits and probabilities are 800 MB; the process may take 512 MiB."""
    shape, source = (64, 720, 720), tmp_path / f"large{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(source, shape=shape, dtype=np.uint8, bigtiff=True, metadata={"axes": "ZYX"})
        voxels = tifffile.memmap(source)
    else:
        voxels = zarr.create_array(source, shape=shape, chunks=(32, 128, 128), dtype=np.uint8)
    voxels[20:50, 300:420, 100:700] = 200
    if isinstance(voxels, np.memmap):
        voxels.flush()
    small = tmp_path / "small.tif"
    tifffile.imwrite(small, np.zeros((32, 64, 64), np.uint8), metadata={"axes": "ZYX"})
    out = tmp_path / f"mask{mask_suffix(open_volume(source).source)}"
    command = [sys.executable, "-c", LIMITED, __file__.rpartition("/")[0], source, out, small]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    mask = read_volume(out).array[0]
    assert mask.shape == shape
    assert mask[20:50, 300:420, 100:700].all()
    assert mask.sum() == 30 * 120 * 600


def test_F01_what_cannot_be_done_is_refused_before_it_starts(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 40, 40), np.uint8), metadata={"axes": "ZYX"})
    refused = predictor(memory_gib=1e-4)
    monkeypatch.setattr(predicting, "swept", lambda *_: pytest.fail("it was started"))
    with pytest.raises(UserError, match=r"a.tif.*\(16, 40, 40\).* GiB or more.*0.0001 GiB.*--memory"):
        refused.write_mask(open_volume(tmp_path / "a.tif"), tmp_path / "a.tif", tmp_path / "m.tif")
    assert not (tmp_path / "m.tif").exists()


@settings(max_examples=60)
@given(
    shape=st.tuples(*[st.integers(1, 13)] * 3),
    patch=st.tuples(*[st.integers(1, 7)] * 3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
    batch=st.integers(1, 4),
)
def test_F02_stitching_is_exact(shape, patch, overlap, batch):
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    found = stitch(lambda windows: windows, image, patch, overlap=overlap, batch=batch)
    torch.testing.assert_close(found, image, rtol=0, atol=1e-5)
    flat = stitch(lambda w: torch.full_like(w, 0.7), image, patch, overlap=overlap, batch=batch)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.7), rtol=0, atol=1e-6)


@pytest.mark.parametrize("patch", [(1, 1, 1), (5, 7, 6), (96, 96, 96)])
def test_F02_every_voxel_is_weighed(patch):
    tiles = Tiles(shape=patch, patch=patch)
    sums = HostSums(tiles, tiles.starts[1])
    sums.add(torch.ones((1, *patch)), 0, 0, 0)
    assert sums.means(slice(0, patch[0])).eq(1).all()


def _block(shape=(12, 10, 8)):
    """A block without any symmetry, (x, y, z)."""
    mask = np.zeros(shape, dtype=bool)
    mask[2:9, 1:5, 1:4] = True
    mask[2:4, 1:8, 1:3] = True
    mask[7:9, 2:4, 1:7] = True
    return mask


ORIENTATIONS = [
    np.eye(3)[list(axes)] * np.array(signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
OBLIQUE = np.linalg.qr(np.array([[1.0, 0.3, -0.2], [-0.25, 1.0, 0.35], [0.1, -0.4, 1.0]]))[0]
SPACING = (1.5, 1.0, 2.0)


def _written(path, values, directions, spacing):
    if path.name.endswith(".nii.gz"):
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = directions * spacing, (-7, 11, 3.5)
        image = nib.Nifti1Image(values, affine)
        image.set_qform(affine, 1)
        image.set_sform(affine, 2)
        image.header.set_xyzt_units("mm")
        nib.save(image, path)
        return path
    image = sitk.GetImageFromArray(values.T)
    image.SetSpacing(spacing)
    image.SetOrigin((-7, 11, 3.5))
    image.SetDirection(directions.ravel())
    sitk.WriteImage(image, path)
    return path


def _values_and_geometry(path):
    if path.name.endswith(".nii.gz"):
        image = nib.load(path)
        header = image.header  # type: ignore[attr-defined]
        told = [header[name].tolist() for name in ("pixdim", "qform_code", "sform_code", "xyzt_units")]
        return np.asarray(image.dataobj), [*told, image.affine.tolist()]  # type: ignore[attr-defined]
    image = sitk.ReadImage(path)
    told = [image.GetSpacing(), image.GetOrigin(), image.GetDirection()]
    return sitk.GetArrayFromImage(image).T, [np.asarray(one).tolist() for one in told]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_F03_a_mask_has_the_geometry_of_its_volume_in_every_orientation(tmp_path, suffix):
    mask = _block()
    for n, directions in enumerate([*ORIENTATIONS, OBLIQUE, -OBLIQUE]):
        source = _written(
            tmp_path / f"{n}{suffix}", np.where(mask, 90, 30).astype(np.int16), directions, SPACING
        )
        made = tmp_path / f"{n}_mask{suffix}"
        predictor(60, orientation="RAS").write_mask(open_volume(source), source, made)
        (_, expected), (found, geometry) = _values_and_geometry(source), _values_and_geometry(made)
        np.testing.assert_array_equal(found, mask, err_msg=str(directions))
        assert geometry == expected


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize(
    "directions", [np.eye(3), ORIENTATIONS[13], OBLIQUE], ids=["ras", "turned", "oblique"]
)
def test_F03_a_mask_made_at_another_spacing_comes_back(tmp_path, suffix, directions):
    mask = np.kron(_block(), np.ones((3, 3, 3), dtype=bool))
    values = np.where(mask, 90, 30).astype(np.int16)
    source = _written(tmp_path / f"a{suffix}", values, directions, SPACING)
    unit = open_volume(source).unit
    run = predictor(60, orientation="RAS", spacing=(1.1, 1.7, 0.9), unit=unit)
    run.write_mask(open_volume(source), source, made := tmp_path / f"m{suffix}")
    found, geometry = _values_and_geometry(made)
    assert geometry == _values_and_geometry(source)[1]
    dice = 2 * (mask & (found == 1)).sum() / (mask.sum() + (found == 1).sum())
    assert dice > 0.95
