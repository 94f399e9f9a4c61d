"""Rows F04 and F06 of the reliability table: masks are whole, and lie where their images do."""

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import tifffile
from fewvox.data.formats import tiff
from fewvox.data.formats.files import mask_suffix, read_volume, write_like
from fewvox.data.hashing import file_hash
from fewvox.experiments import api

SPACING = (2.0, 0.4, 0.3)
IMAGEJ = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
OME = {
    "axes": "ZYX",
    **{f"PhysicalSize{axis}": size for axis, size in zip("ZYX", SPACING, strict=True)},
    **{f"PhysicalSize{axis}Unit": "um" for axis in "ZYX"},
}
TAGS = {"resolution": (1 / 0.3, 1 / 0.4), "photometric": "minisblack"}

# killed when half of its third mask is on the disk; what stands in the masks is nothing to this
KILLED = """
import os, signal
import numpy as np
from fewvox.data.formats import files
from fewvox.experiments import cli
from fewvox.seg.predict import Predictor
once, count = files.FILES[0].write, 0

def write_mask(self, volume, where, out, *rest):
    files.write_like(out, np.zeros(volume.shape, np.uint8), volume.source)

def write(path, array, source):
    global count
    once(path, array, source)
    count += 1
    if count == 3:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

Predictor.write_mask = write_mask
object.__setattr__(files.FILES[0], "write", write)
cli.main()
"""


def images_like(kind, path, array):
    """Writes an image (Z, Y, X) as ImageJ, OME or RGB-tagged TIFF."""
    if kind == "imagej":
        tifffile.imwrite(path, array, imagej=True, metadata=IMAGEJ, **TAGS)
    elif kind == "ome":
        tifffile.imwrite(path, array, ome=True, metadata=OME, **TAGS)
    else:
        colours = np.repeat(array.astype(np.uint8)[..., None], 3, axis=-1)
        metadata = {**OME, "axes": "ZYXS"}
        tifffile.imwrite(path, colours, ome=True, photometric="rgb", metadata=metadata)
    return path


# F04


@pytest.mark.parametrize("count", [300, 70_000])
@pytest.mark.parametrize("kind", ["imagej", "ome", "rgb"])
def test_F04_objects_keep_their_numbers_and_the_place_of_their_image(tmp_path, kind, count):
    image = images_like(kind, tmp_path / "a.ome.tif", np.zeros((7, 100, 101), np.uint16))
    source = read_volume(image)
    numbers = np.zeros((7, 100, 101), np.min_scalar_type(count))
    numbers.ravel()[:count] = np.arange(1, count + 1)
    out = tmp_path / f"mask{mask_suffix(source.source)}"
    write_like(out, numbers, source.source)
    mask = read_volume(out)
    np.testing.assert_array_equal(mask.array[0], numbers)
    assert mask.array.dtype == numbers.dtype
    assert mask.unit == source.unit == "um"
    assert source.spacing == pytest.approx(SPACING)
    assert mask.spacing == pytest.approx(SPACING)
    with tifffile.TiffFile(out) as tif:
        assert tif.series[0].axes == "ZYX"


def test_F04_a_mask_of_a_tiff_is_numbered_and_calibrated_as_its_image(tmp_path, fewvox, save_tiff, train):
    rng = np.random.default_rng(0)
    for case in range(3):
        array = rng.normal(100, 20, (12, 16, 14)).astype(np.float32)
        save_tiff(tmp_path / f"data/images/c{case}.tif", array, (2.0, 1.0, 1.0), "um")
        save_tiff(
            tmp_path / f"data/labels/c{case}.tif", (array > 120).astype(np.uint8), (2.0, 1.0, 1.0), "um"
        )
    run = train(tmp_path)
    (tmp_path / "own.yaml").write_text("instances: {method: watershed}")
    status, told = fewvox(
        *("predict", tmp_path / "data", "--model", run, "--out", tmp_path / "masks"),
        *("--postprocess", tmp_path / "own.yaml"),
    )
    assert status == 0, told
    assert "own.yaml" in told
    mask = read_volume(tmp_path / "masks/c0.tif")
    assert (mask.spacing, mask.unit, mask.shape) == ((2.0, 1.0, 1.0), "um", (12, 16, 14))
    values = np.unique(mask.array).tolist()
    assert values == list(range(len(values)))


@pytest.mark.parametrize("kind", ["imagej", "ome", "rgb"])
def test_F04_beyond_4_gb_a_mask_is_a_bigtiff(tmp_path, monkeypatch, kind):
    source = read_volume(images_like(kind, tmp_path / "a.ome.tif", np.zeros((3, 8, 9), np.uint16))).source
    monkeypatch.setattr(tiff, "_CLASSIC_BYTES", 100)
    numbers = np.arange(3 * 8 * 9, dtype=np.uint8).reshape(3, 8, 9)
    write_like(tmp_path / "mask.tif", numbers, source)
    with tifffile.TiffFile(tmp_path / "mask.tif") as tif:
        assert tif.is_bigtiff
    np.testing.assert_array_equal(read_volume(tmp_path / "mask.tif").array[0], numbers)


# F06


@pytest.fixture
def ten(tmp_path, nifti_folder):
    """Ten volumes, of which the fourth is cut off."""
    folder = nifti_folder(tmp_path / "ten", 10, labelled=0) / "images"
    cut = folder / "c03.nii.gz"
    cut.write_bytes(cut.read_bytes()[:300])
    return folder


def listed(folder):
    return json.loads((folder / "predictions.json").read_text())["cases"].keys()


def whole_masks(folder):
    """Hashes of the masks by case; each is read to its last byte."""
    found = sorted(folder.glob("c*.nii.gz"))
    for path in found:
        assert np.asarray(nib.load(path).dataobj).shape == (14, 16, 12)  # type: ignore[attr-defined]
    return {path.name[:3]: file_hash(path) for path in found}


def test_F06_eight_masks_are_written_two_cases_told_and_a_rerun_makes_the_missing(
    tmp_path, ten, tiny_run, fewvox, nifti_folder, monkeypatch
):
    once = api.batch_predict.Predictor.write_mask

    def raise_at_7(self, volume, where, out, *rest):
        if out.name == "c06.nii.gz":
            raise OSError("no space left on device")
        once(self, volume, where, out, *rest)

    out = tmp_path / "masks"
    monkeypatch.setattr(api.batch_predict.Predictor, "write_mask", raise_at_7)
    status, told = fewvox("predict", ten, "--model", tiny_run, "--out", out)
    assert status == 1
    assert told.count("error") == 2, told
    for part in ("8 masks written", "c03.nii.gz", "c06.nii.gz", "no space left on device"):
        assert part in told, told
    before = whole_masks(out)
    assert len(before) == 8
    assert before.keys() == listed(out)
    monkeypatch.undo()

    nifti_folder(tmp_path / "ten", 10, labelled=0)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    made = api.predict(tiny_run, ten, out)
    assert made.written == ("c03", "c06")
    assert made.problems == ()
    assert {
        path.name for path in out.glob("*.nii.gz") if times.get(path.name) != path.stat().st_mtime_ns
    } == {
        "c03.nii.gz",
        "c06.nii.gz",
    }
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_F06_a_kill_while_a_mask_is_written_leaves_no_half_mask(tmp_path, ten, tiny_run):
    out = tmp_path / "masks"
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, "predict", ten, "--model", tiny_run, "--out", out],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == -9, ended.stderr.decode()
    before = whole_masks(out)
    assert sorted(before) == sorted(listed(out)) == ["c00", "c01"]
    made = api.predict(tiny_run, ten, out)
    assert (made.kept, [p.case for p in made.problems]) == (("c00", "c01"), ["c03"])
    after = whole_masks(out)
    assert len(after) == 9
    assert {case: after[case] for case in before} == before
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
