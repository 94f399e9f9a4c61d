"""The rows I01 to I27 of the reliability table, through the commands: what people really bring."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import zarr
from fewvox.data.errors import UserError
from fewvox.data.formats.files import read_volume
from fewvox.data.settings import load_mapping
from fewvox.data.store import Store
from fewvox.experiments import api

SHAPE = (6, 10, 8)


def noise(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


def mask(*values: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A label map with a slice of each value."""
    label = np.zeros(shape, np.uint8)
    for z, value in enumerate(values):
        label[z, 2:6, 2:6] = value
    return label


@pytest.fixture
def cases(tmp_path, save_nifti):
    """Makes a data set of NIfTI volumes named a, b, ... with the given labels; gives its folder."""

    def make(*labels: np.ndarray | None, folder: str = "data") -> Path:
        for n, label in enumerate(labels):
            name = f"{'abcdefgh'[n]}.nii.gz"
            save_nifti(tmp_path / folder / "images" / name, noise(n))
            if label is not None:
                save_nifti(tmp_path / folder / "labels" / name, label)
        return tmp_path / folder

    return make


def found(problems) -> dict[str, str]:
    """What was found, by case."""
    return {p.case: p.found for p in problems}


# I01


def test_I01_shapes_that_differ_are_all_named_before_anything_is_written(tmp_path, fewvox, save_nifti):
    for n in range(6):
        depth = 30 if n > 3 else 32
        save_nifti(tmp_path / f"data/images/c{n}.nii.gz", noise(n, (32, 64, 64)))
        save_nifti(tmp_path / f"data/labels/c{n}.nii.gz", mask(1, shape=(depth, 64, 64)))
    for command in (["scan"], ["prepare", "--out", tmp_path / "store"]):
        status, told = fewvox(command[0], tmp_path / "data", *command[1:])
        assert status == 1
        for case in ("c4", "c5"):
            assert f"labels/{case}.nii.gz: shape (z, y, x) (30, 64, 64), but (32, 64, 64) in" in told
            assert f"images/{case}.nii.gz" in told
        assert "c3.nii.gz: shape" not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


# I02


@pytest.fixture
def moved(tmp_path, save_nifti) -> Path:
    """Three pairs whose labels have another spacing, another origin, another direction."""
    for n, affine in enumerate((np.diag((2, 2, 4, 1.0)), np.diag((1, 1, 2, 1.0)), np.diag((-1, 1, 2, 1.0)))):
        save_nifti(tmp_path / f"data/images/{'abc'[n]}.nii", noise(n))
        affine[0, 3] = 10.0 if n == 1 else 0.0
        label = nib.Nifti1Image(mask(1).T, affine)
        label.header.set_xyzt_units("mm")
        (tmp_path / "data/labels").mkdir(exist_ok=True)
        nib.save(label, tmp_path / f"data/labels/{'abc'[n]}.nii")
    return tmp_path / "data"


def test_I02_geometry_that_differs_is_an_error_with_both_values(moved):
    for problem, case, text in zip(
        api.scan(moved).errors,
        "abc",
        (
            "spacing (z, y, x) (4, 2, 2), but (2, 1, 1)",
            "origin (z, y, x) (0, 0, 10), but (0, 0, 0)",
            "origin",
        ),
        strict=True,
    ):
        assert problem.where == str(moved / f"labels/{case}.nii")
        assert problem.found.startswith(text)
        assert problem.found.endswith(f"in {moved}/images/{case}.nii")


def test_I02_what_is_accepted_is_recorded_in_store_and_run(moved, tmp_path):
    store = api.prepare(moved, tmp_path / "store", accept_geometry=True)
    for case in "abc":
        assert any(r.startswith(f"accepted: {moved}/labels/{case}.nii: ") for r in store.records)
    run = api.finetune(
        store.path, tmp_path / "run", set=("steps=1", "patch=[4,8,8]", "width=2", "device=cpu")
    )
    assert json.loads((run.path / "data.json").read_text()) == list(store.records)
    for case in "abc":
        np.testing.assert_array_equal(store.label(case)[:], mask(1))


# I03


def test_I03_gaps_become_classes_and_masks_have_the_values_of_the_labels(cases, tmp_path, train):
    data = cases(*[mask(2, 5)] * 4)
    (problem,) = api.scan(data).problems
    assert (problem.severity, problem.found) == ("corrected", "the values 0, 2, 5")
    with pytest.raises(UserError, match="numbered without gaps"):
        api.prepare(data, tmp_path / "refused", fix=False)
    run = train(tmp_path)
    made = api.predict(run, data / "images", tmp_path / "masks")
    assert len(made.written) == 4
    values = np.unique(read_volume(tmp_path / "masks/a.nii.gz").array)
    assert set(values.tolist()) <= {0, 2, 5}
    assert load_mapping(run / "plan.yaml")["labels"]["values"] == [0, 2, 5]


def test_I03_masks_of_0_and_255_are_two_classes(cases, tmp_path):
    store = api.prepare(cases(*[mask(255)] * 3), tmp_path / "store", budget="cpu")
    assert (store.plan.labels.values, store.plan.labels.classes) == ((0, 255), 2)
    np.testing.assert_array_equal(store.label("a")[:], mask(1))


def test_I03_one_mask_of_0_and_255_among_masks_of_0_and_1_is_told_and_mended(cases, tmp_path):
    data = cases(mask(1), mask(255), mask(1))
    assert found(api.scan(data).problems) == {"b": "a mask of 0 and 255"}
    store = api.prepare(data, tmp_path / "store", budget="cpu")
    assert store.plan.labels.values == (0, 1)
    assert store.cases["b"].corrections == ("a mask of 0 and 255",)


def test_I03_a_value_in_one_case_of_five_is_told_with_file_and_count(cases):
    data = cases(mask(1), mask(1), mask(1, 7), mask(1), mask(1))
    warning = api.scan(data).warnings[0]
    assert (warning.case, warning.found) == ("c", "the label value 7 (16 voxels) in no other case")
    (error,) = api.scan(data, classes=2, fix=False).errors
    assert "3 values where two classes are expected" in error.found


def test_I03_one_hot_labels_in_another_format_than_the_images_become_numbers(cases, tmp_path):
    data = cases(None, None)
    (data / "labels").mkdir()
    for name in "ab":
        one_hot = np.stack([mask(1, 2) == value for value in range(3)]).astype(np.uint8)
        path = data / f"labels/{name}.ome.tif"
        tifffile.imwrite(path, one_hot, ome=True, photometric="minisblack", metadata={"axes": "CZYX"})
    assert all("one of them set in each voxel (one-hot)" in p.found for p in api.scan(data).problems)
    store = api.prepare(data, tmp_path / "store", budget="cpu")
    np.testing.assert_array_equal(store.label("b")[:], mask(1, 2))


# I05


@pytest.mark.parametrize("colours", [3, 4])
def test_I05_colours_are_channels_and_never_slices(tmp_path, colours):
    array = np.random.default_rng(0).integers(0, 255, (5, 12, 14, colours)).astype(np.uint8)
    (tmp_path / "data").mkdir()
    tifffile.imwrite(tmp_path / "data/a.tif", array, photometric="rgb", extrasamples=[2] * (colours - 3))
    (case,) = api.scan(tmp_path / "data").fingerprint.cases
    assert case.shape == (5, 12, 14)
    assert case.channels == ("red", "green", "blue", "alpha")[:colours]


@pytest.mark.parametrize("colours", [3, 4])
def test_I05_a_mask_in_colours_is_an_error(tmp_path, save_tiff, colours):
    save_tiff(tmp_path / "data/images/a.tif", noise())
    (tmp_path / "data/labels").mkdir()
    coloured = np.repeat(mask(255)[..., None], colours, axis=-1)
    tifffile.imwrite(
        tmp_path / "data/labels/a.tif", coloured, photometric="rgb", extrasamples=[2] * (colours - 3)
    )
    (error,) = api.scan(tmp_path / "data").errors
    assert "a label in colours (red, green, blue" in error.found
    assert "numbers instead of colours" in error.remedy


def test_I05_pictures_of_another_format_are_told_with_the_formats_there_are(tmp_path, fewvox):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/slice_000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    status, told = fewvox("scan", tmp_path / "data")
    assert status == 1
    assert "no volume found (not read: 1 x .png). Volumes are .nii.gz, .nii, .ome.tiff" in told


# I06


@pytest.fixture
def two_channels(tmp_path, save_nifti):
    """An nnU-Net data set of three cases with the channels T1 and T2."""
    folder = tmp_path / "data"
    for n in range(3):
        for c in range(2):
            save_nifti(folder / f"imagesTr/k{n}_000{c}.nii.gz", noise(2 * n + c, (12, 16, 14)))
        save_nifti(folder / f"labelsTr/k{n}.nii.gz", mask(1, shape=(12, 16, 14)))
    described = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "spot": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def test_I06_a_missing_channel_is_found_by_the_scan(two_channels, fewvox):
    (two_channels / "imagesTr/k1_0001.nii.gz").unlink()
    status, told = fewvox("scan", two_channels)
    assert status == 1
    assert "k1" in told
    assert "T2" in told


def test_I06_a_case_of_one_channel_among_others_of_two_is_found_by_the_scan(tmp_path, save_tiff):
    for n in range(3):
        save_tiff(tmp_path / f"{n}.tif", noise(n, (1 if n == 1 else 2, *SHAPE)))
    (error,) = api.scan(tmp_path).errors
    assert (error.case, error.found) == ("1", "1 channels (channel0)")


def test_I06_a_prediction_without_the_channels_of_the_model_stops_before_it(two_channels, tmp_path, train):
    run = train(tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(two_channels / "imagesTr/k0_0000.nii.gz", alone / "k0.nii.gz")
    made = api.predict(run, alone, tmp_path / "one")
    assert made.written == ()
    (problem,) = made.problems
    assert "1 channels" in problem.found
    assert "2 (T1, T2)" in problem.rule

    swapped = tmp_path / "swapped"
    shutil.copytree(two_channels, swapped)
    described = json.loads((swapped / "dataset.json").read_text())
    described["channel_names"] = {"0": "T2", "1": "T1"}
    (swapped / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"channels T2, T1.*expects T1, T2"):
        api.predict(run, swapped, tmp_path / "two")

    (two_channels / "imagesTr/k2_0001.nii.gz").unlink()
    with pytest.raises(UserError, match=r"k2"):
        api.predict(run, two_channels / "imagesTr", tmp_path / "three")


# I07


def test_I07_a_fourth_axis_is_for_the_user_to_name(tmp_path):
    array = np.random.default_rng(0).normal(size=(48, 48, 24, 5)).astype(np.float32)
    (tmp_path / "data").mkdir()
    nib.save(nib.Nifti1Image(array, np.diag((1, 1, 3, 1.0))), tmp_path / "data/a.nii.gz")
    (error,) = api.scan(tmp_path / "data").errors
    assert "5" in error.found
    assert "--time" in error.remedy
    assert "--axes" in error.remedy
    (channels,) = api.scan(tmp_path / "data", axes="XYZC").fingerprint.cases
    assert (channels.shape, len(channels.channels), channels.spacing) == ((24, 48, 48), 5, (3.0, 1.0, 1.0))
    (moment,) = api.scan(tmp_path / "data", axes="XYZT", time=2).fingerprint.cases
    assert (moment.shape, len(moment.channels), moment.spacing) == ((24, 48, 48), 1, (3.0, 1.0, 1.0))
    assert moment.intensities[0].mean == pytest.approx(array[..., 2].mean(), rel=1e-4)


def test_I07_singleton_axes_are_dropped_in_image_and_label(tmp_path, save_nifti):
    array = np.random.default_rng(0).normal(size=(48, 48, 24, 1, 3)).astype(np.float32)
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    nib.save(nib.Nifti1Image(array, np.diag((1, 1, 2, 1.0))), tmp_path / "data/images/a.nii.gz")
    label = mask(1, shape=(24, 48, 48)).T[..., None]
    nib.save(nib.Nifti1Image(label, np.diag((1, 1, 2, 1.0))), tmp_path / "data/labels/a.nii.gz")
    told = api.scan(tmp_path / "data", axes="XYZTC")
    (case,) = told.fingerprint.cases
    assert (case.shape, len(case.channels), case.spacing) == ((24, 48, 48), 3, (2.0, 1.0, 1.0))
    assert case.label_voxels == {0: 24 * 48 * 48 - 16, 1: 16}


def test_I07_a_list_axis_of_a_nrrd_is_for_the_user_to_name(tmp_path, save_nifti):
    layers = sitk.GetImageFromArray(np.stack([mask(1), mask(0, 1)], axis=-1), isVector=True)
    (tmp_path / "data/labels").mkdir(parents=True)
    (tmp_path / "data/images").mkdir(parents=True)
    sitk.WriteImage(sitk.GetImageFromArray(noise()), str(tmp_path / "data/images/a.nrrd"))
    sitk.WriteImage(layers, str(tmp_path / "data/labels/a.seg.nrrd"))
    listed = (tmp_path / "data/labels/a.seg.nrrd").read_bytes().replace(b"kinds: vector", b"kinds: list")
    (tmp_path / "data/labels/a.seg.nrrd").write_bytes(listed)
    (error,) = api.scan(tmp_path / "data").errors
    assert "a.seg.nrrd" in error.where
    overlapping = api.scan(tmp_path / "data", label_kind="overlapping")
    assert overlapping.errors == ()
    (case,) = overlapping.fingerprint.cases
    assert (case.shape, case.label_channels) == (SHAPE, 2)


# I08


def test_I08_four_ways_to_store_an_array_are_one_volume(tmp_path):
    zcyx = np.arange(9 * 2 * 64 * 80, dtype=np.uint16).reshape(9, 2, 64, 80)
    sizes = {"PhysicalSizeZ": 2.0, "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.5}
    folders = {name: tmp_path / name for name in ("imagej", "zcyx", "czyx", "declared")}
    for folder in folders.values():
        folder.mkdir()
    imagej = {"axes": "ZCYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(folders["imagej"] / "a.tif", zcyx, imagej=True, resolution=(2, 2), metadata=imagej)
    for name, stored, axes in (
        ("zcyx", zcyx, "ZCYX"),
        ("czyx", zcyx.swapaxes(0, 1), "CZYX"),
        ("declared", zcyx, "CZYX"),
    ):
        told = {"axes": axes, **sizes}
        path = folders[name] / "a.ome.tif"
        tifffile.imwrite(path, stored, ome=True, photometric="minisblack", metadata=told)
    facts = {
        name: api.scan(folder, axes="ZCYX" if name == "declared" else None).fingerprint.cases[0]
        for name, folder in folders.items()
    }
    assert len({case.content_hash for case in facts.values()}) == 1
    assert {(case.shape, case.spacing, case.unit) for case in facts.values()} == {
        ((9, 64, 80), (2.0, 0.5, 0.5), "um")
    }
    store = api.prepare(folders["declared"], tmp_path / "store", axes="ZCYX")
    assert any("ZCYX" in note for note in store.cases["a"].notes)


# I10


def unscaled(kind: str, path: Path) -> None:
    array = noise().astype(np.uint16)
    path.mkdir()
    if kind == "imagej":
        tifffile.imwrite(
            path / "u.tif", array, imagej=True, resolution=(2, 2), metadata={"axes": "ZYX", "unit": "um"}
        )
    elif kind == "plain":
        tifffile.imwrite(path / "u.tif", array, photometric="minisblack")
    else:
        np.save(path / "u.npy", array)


@pytest.mark.parametrize("kind", ["imagej", "plain", "npy"])
def test_I10_an_unknown_spacing_is_called_so_and_does_not_mix(tmp_path, fewvox, save_tiff, kind):
    unscaled(kind, tmp_path / "data")
    status, told = fewvox("scan", tmp_path / "data")
    assert status == 0
    assert "unknown" in told
    assert api.scan(tmp_path / "data").fingerprint.spacing is None
    save_tiff(tmp_path / "data/known.tif", noise(1), (2.0, 1.0, 1.0), "um")
    status, told = fewvox("prepare", tmp_path / "data", "--out", tmp_path / "store")
    assert status == 1
    assert "known and unknown spacings do not mix" in told
    given = ("--spacing", "2,0.5,0.5", "--unit", "um")
    status, told = fewvox("prepare", tmp_path / "data", "--out", tmp_path / "store", *given)
    assert status == 0
    stored = Store.open(tmp_path / "store").cases
    assert (stored["u"].source_spacing, stored["u"].source_unit) == ((2.0, 0.5, 0.5), "um")
    assert stored["known"].source_spacing == (2.0, 1.0, 1.0)


# I11


def phantoms(folder: Path, save_nifti) -> None:
    """One size of voxel, 2 x 0.5 x 0.5 um, told in five ways."""
    save_nifti(folder / "mm.nii", noise(0), (0.002, 0.0005, 0.0005), "mm")
    save_nifti(folder / "micron.nii", noise(1), (2.0, 0.5, 0.5), "micron")
    nanometres = {f"PhysicalSize{a}": size for a, size in (("Z", 2000.0), ("Y", 500.0), ("X", 500.0))}
    units = {f"PhysicalSize{a}Unit": "nm" for a in "ZYX"}
    tifffile.imwrite(folder / "nm.ome.tif", noise(2), metadata={"axes": "ZYX", **nanometres, **units})
    group = zarr.open_group(str(folder / "micrometer.ome.zarr"), mode="w", zarr_format=2)
    group.create_array("0", data=noise(3), chunks=SHAPE)
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    scale = [{"type": "scale", "scale": [2.0, 0.5, 0.5]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]
    for name, listed in (("zyx", [2, 0.5, 0.5]), ("xyz", [0.5, 0.5, 2])):
        tifffile.imwrite(folder / f"{name}.tif", noise(ord(name[0])), photometric="minisblack")
        sidecar = {"spacing": listed, "axes": name, "unit": "um"}
        (folder / f"{name}.json").write_text(json.dumps(sidecar))


def test_I11_units_and_orders_meet_in_one_spacing(tmp_path, save_nifti):
    phantoms(tmp_path, save_nifti)
    told = api.scan(tmp_path)
    assert told.errors == ()
    assert len(told.fingerprint.cases) == 6
    unit = told.fingerprint.unit
    factor = {"um": 1.0, "mm": 1e-3, "nm": 1e3}[unit]
    assert told.fingerprint.spacing == pytest.approx((2 * factor, 0.5 * factor, 0.5 * factor), rel=1e-5)
    for case in told.fingerprint.cases:
        assert case.spacing_in("um") == pytest.approx((2.0, 0.5, 0.5), rel=1e-5)


def test_I11_a_spacing_far_off_is_told_by_the_name_of_its_case(tmp_path, save_nifti):
    phantoms(tmp_path, save_nifti)
    save_nifti(tmp_path / "odd.nii", noise(9), (2.0, 0.5, 0.5), "mm")
    (error,) = api.scan(tmp_path).errors
    assert (error.case, error.found) == ("odd", "spacing (2, 0.5, 0.5) mm")


# I12


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_I12_what_is_not_finite_is_refused_or_replaced_on_record(tmp_path, save_nifti, value):
    array = noise().astype(np.float64)
    array[1, 2, 3] = value
    save_nifti(tmp_path / "data/a.nii", array)
    save_nifti(tmp_path / "data/b.nii", noise(1))
    (error,) = api.scan(tmp_path / "data").errors
    assert error.where.endswith("a.nii")
    assert error.found.startswith("1 of 480 voxels are NaN, infinite or beyond float32")
    with pytest.raises(UserError, match="1 of 480"):
        api.prepare(tmp_path / "data", tmp_path / "store")
    store = api.prepare(tmp_path / "data", tmp_path / "store", replace_nonfinite=0.0)
    assert np.isfinite(store.image("a")[:]).all()
    assert any("a.nii: 1 voxels are NaN, infinite" in record for record in store.records)


# I13


@pytest.mark.parametrize("value", [0, 100])
def test_I13_a_constant_volume_is_flagged_and_stays_finite(tmp_path, save_nifti, value):
    save_nifti(tmp_path / "data/a.nii", np.full(SHAPE, value, np.float32))
    save_nifti(tmp_path / "data/b.nii", noise(1))
    assert found(api.scan(tmp_path / "data").warnings)["a"] == f"every voxel of a channel is {value}"
    for scheme in ("zscore", "percentile", "none"):
        store = api.prepare(tmp_path / "data", tmp_path / scheme, normalisation=[scheme])
        assert store.image("a")[:].shape == (1, *SHAPE)
        assert np.isfinite(store.image("a")[:]).all()


def test_I13_one_bright_voxel_stays_finite(tmp_path, save_nifti):
    array = np.zeros(SHAPE, np.float32)
    array[2, 3, 4] = 1000
    save_nifti(tmp_path / "data/a.nii", array)
    for scheme in ("zscore", "percentile"):
        stored = api.prepare(tmp_path / "data", tmp_path / scheme, normalisation=[scheme]).image("a")[:]
        assert np.isfinite(stored).all()
        assert np.argmax(stored) == np.argmax(array)


# I14


def test_I14_volumes_smaller_than_the_patch_go_all_the_way(tmp_path, save_nifti, capsys):
    shapes = {"small": (5, 7, 9), "slice": (1, 128, 128), "odd": (17, 33, 65)}
    for n, (name, shape) in enumerate(shapes.items()):
        label = np.zeros(shape, np.uint8)
        label[:, 2:5, 2:5] = 1
        save_nifti(tmp_path / f"data/images/{name}.nii", noise(n, shape))
        save_nifti(tmp_path / f"data/labels/{name}.nii", label)
    assert api.scan(tmp_path / "data").errors == ()
    store = api.prepare(tmp_path / "data", tmp_path / "store", budget="cpu")
    few = ("steps=5", "patch=[32,64,64]", "width=1", "batch=1", "device=cpu")
    seldom = ("validate_every=5", "monitor_volumes=2")
    pretrained = api.pretrain("mae", store.path, tmp_path / "pre", set=(*few, *seldom))
    told = " ".join(capsys.readouterr().out.split())
    assert re.search(r"warning: \d+% of the views lies outside .* of odd, slice, small: set a smaller", told)
    run = api.finetune(store.path, tmp_path / "run", set=few, pretrained=pretrained.path)
    made = api.predict(run.path, tmp_path / "data", tmp_path / "masks")
    assert made.problems == ()
    for name, shape in shapes.items():
        assert read_volume(tmp_path / f"masks/{name}.nii.gz").shape == shape


# I15


def test_I15_damaged_files_are_all_named_in_one_pass(tmp_path, save_nifti, fewvox):
    for n, name in enumerate(("cut", "good", "empty")):
        save_nifti(tmp_path / f"data/{name}.nii.gz", noise(n, (12, 20, 20)))
    save_nifti(tmp_path / "data/renamed.nii", noise(4)).rename(tmp_path / "data/renamed.nii.gz")
    cut = tmp_path / "data/cut.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-2048])
    (tmp_path / "data/empty.nii.gz").write_bytes(b"")
    status, told = fewvox("scan", tmp_path / "data")
    assert status == 1
    assert "data/cut.nii.gz: it cannot be read" in told
    assert "data/empty.nii.gz: the file is empty" in told
    assert "data/renamed.nii.gz: the name says gzip-compressed NIfTI (.nii.gz), the content is NIfTI" in told
    assert "errors to solve before `fewvox prepare`: 3" in told


# I17


def write_series(folder: Path, array: np.ndarray, series: str, names: list[str]) -> None:
    """A CT series of slices 2 mm apart in files of the given names."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, pixels in enumerate(array):
        image = sitk.GetImageFromArray(pixels[None])[:, :, 0]
        for tag, value in {
            "0008|0060": "CT",
            "0008|0018": f"{series}.{n}",
            "0020|000e": series,
            "0020|0032": f"0\\0\\{2 * n}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(folder / names[n]))
        writer.Execute(image)


CT = np.random.default_rng(0).integers(-1000, 2000, (12, 10, 8)).astype(np.int16)
SORTED = [f"IM{n:02}.dcm" for n in range(12)]


def test_I17_a_missing_slice_is_told_with_its_place(tmp_path):
    write_series(tmp_path / "data/ct", CT, "1.2.3", SORTED)
    (tmp_path / "data/ct/IM07.dcm").unlink()
    (error,) = api.scan(tmp_path / "data").errors
    assert "between 12 mm (IM06.dcm) and 16 mm (IM08.dcm)" in error.found


def test_I17_two_series_in_a_folder_are_listed(tmp_path):
    write_series(tmp_path / "data/ct", CT, "1.2.3", SORTED)
    write_series(tmp_path / "data/ct", CT[:4], "1.2.4", [f"XX{n}.dcm" for n in range(4)])
    (error,) = api.scan(tmp_path / "data").errors
    assert "1.2.3" in error.found
    assert "12 slices" in error.found
    assert "1.2.4" in error.found
    assert "4 slices" in error.found


def test_I17_the_order_is_that_of_the_positions(tmp_path):
    names = [f"{n:03}" for n in np.random.default_rng(1).permutation(12)]
    write_series(tmp_path / "sorted/ct", CT, "1.2.3", SORTED)
    write_series(tmp_path / "random/ct", CT, "1.2.3", names)
    first, second = (api.scan(tmp_path / name).fingerprint.cases[0] for name in ("sorted", "random"))
    assert first.content_hash == second.content_hash
    assert (first.shape, first.spacing) == (second.shape, second.spacing) == ((12, 10, 8), (2.0, 1.0, 1.0))


# I19


@pytest.mark.parametrize(("dtype", "value"), [("uint16", 65535), ("int16", -32768), ("uint8", 255)])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_I19_the_ends_of_integer_types_survive(tmp_path, dtype, value, byteorder):
    array = np.zeros(SHAPE, np.dtype(dtype).newbyteorder(byteorder))
    array[1, 2, 3] = value
    (tmp_path / "data").mkdir()
    tifffile.imwrite(tmp_path / "data/a.tif", array, byteorder=byteorder, photometric="minisblack")
    nib.save(nib.Nifti1Image(array.T, np.eye(4)), tmp_path / "data/b.nii")
    for case in ("a.tif", "b.nii"):
        (facts,) = api.scan(tmp_path / "data" / case).fingerprint.cases
        assert {facts.intensities[0].lowest, facts.intensities[0].highest} == {0.0, float(value)}
    store = api.prepare(tmp_path / "data/a.tif", tmp_path / "store", normalisation=["none"])
    np.testing.assert_array_equal(store.image("a")[0], array.astype(np.float32))


@pytest.mark.parametrize(
    ("slope", "intercept", "scale"), [(0.5, 3.0, (0.5, 3.0)), (0.0, 0.0, (1, 0)), (np.nan, np.nan, (1, 0))]
)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_I19_scaling_is_that_of_the_header(tmp_path, slope, intercept, scale, byteorder):
    array = np.arange(480, dtype=f"{byteorder}i2").reshape(SHAPE) - 100
    image = nib.Nifti1Image(array.T, np.eye(4), nib.Nifti1Header(endianness=byteorder))
    image.header.set_data_dtype(f"{byteorder}i2")
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/a.nii"
    nib.save(image, path)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, intercept], f"{byteorder}f4").tobytes()
    path.write_bytes(content)
    stored = api.prepare(tmp_path / "data", tmp_path / "store", normalisation=["none"]).image("a")[0]
    np.testing.assert_allclose(stored, array.astype(np.float64) * scale[0] + scale[1], rtol=1e-6)


# I21


def test_I21_pairs_are_made_by_name_and_what_fits_none_is_listed(tmp_path, save_tiff):
    data = tmp_path / "my_seg_0000"
    for n, name in enumerate(("Case01", "x_0000b", "zeta", "alpha")):
        save_tiff(data / f"images/{name}.tif", noise(n))
    for value, name in enumerate(("case01", "zeta", "alpha"), start=1):
        save_tiff(data / f"labels/{name}.tif", mask(*range(1, value + 1)))
    for hidden in ("images/.DS_Store", "images/._zeta.tif", "labels/._alpha.tif"):
        (data / hidden).write_bytes(b"\0\5\x16\7")
    told = api.scan(data)
    (error,) = told.errors
    assert "no image is called 'case01' (did you mean 'Case01'?)" in error.found
    labels = {case.id: case.label_voxels for case in told.fingerprint.cases}
    assert list(labels) == ["Case01", "alpha", "x_0000b", "zeta"]
    assert labels["Case01"] is labels["x_0000b"] is None
    assert set(labels["zeta"]) == {0, 1, 2}
    assert set(labels["alpha"]) == {0, 1, 2, 3}


# I24


def test_I24_one_empty_mask_is_shown_and_training_runs(tmp_path, nifti_folder, save_nifti, train):
    data = nifti_folder(tmp_path / "data", 6)
    save_nifti(data / "labels/c03.nii.gz", np.zeros((12, 16, 14), np.uint8))
    assert found(api.scan(data).warnings) == {"c03": "an empty label"}
    assert (train(tmp_path) / "checkpoints").is_dir()


def test_I24_masks_that_are_all_empty_stop_before_training(cases, tmp_path):
    data = cases(*[mask()] * 6)
    with pytest.raises(UserError, match="all 6 labels are empty"):
        api.prepare(data, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_I24_one_voxel_of_foreground_survives_or_is_reported_lost(tmp_path, save_nifti, capsys):
    one = np.zeros((12, 12, 12), np.uint8)
    one[5, 5, 5] = 1
    for n, (name, spacing) in enumerate((("fine", 0.3), ("usual", 1.0), ("other", 1.0))):
        save_nifti(tmp_path / f"data/images/{name}.nii", noise(n, (12, 12, 12)), (spacing,) * 3)
        save_nifti(tmp_path / f"data/labels/{name}.nii", one, (spacing,) * 3)
    store = api.prepare(tmp_path / "data", tmp_path / "store", budget="cpu")
    for case in store.annotated:
        assert (case.foreground_voxels == {1: 1}) != (case.lost_classes == (1,))
    assert store.cases["usual"].foreground_voxels == {1: 1}
    if store.cases["fine"].lost_classes:
        assert "fine: classes (1,) are too small" in " ".join(capsys.readouterr().out.split())


# I25


@pytest.mark.parametrize("method", ["triplet", "mae"])
def test_I25_a_batch_of_more_volumes_than_there_are_is_refused_and_nothing_trained(
    tmp_path, nifti_folder, method
):
    data = nifti_folder(tmp_path / "data", 3)
    store = api.prepare(data, tmp_path / "store", budget="cpu")
    with pytest.raises(UserError, match=r"3 volumes to pretrain on.*smaller batch"):
        api.pretrain(method, store.path, tmp_path / "run", set=("steps=2", "batch=8", "device=cpu"))
    assert not (tmp_path / "run").exists()


def test_I25_triplet_with_one_volume_is_refused(tmp_path, nifti_folder):
    store = api.prepare(nifti_folder(tmp_path / "data", 1), tmp_path / "store", budget="cpu")
    with pytest.raises(UserError, match="compares at least 2 volumes"):
        api.pretrain("triplet", store.path, tmp_path / "run", set=("steps=2", "batch=1", "device=cpu"))
    assert not (tmp_path / "run").exists()


def test_I25_fine_tuning_fills_a_batch_from_fewer_cases_and_makes_every_step(tmp_path, nifti_folder):
    store = api.prepare(nifti_folder(tmp_path / "data", 3), tmp_path / "store", budget="cpu")
    small = ("steps=2", "batch=8", "patch=[8,16,8]", "width=4", "device=cpu")
    run = api.finetune(store.path, tmp_path / "run", set=small)
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) >= 2


@pytest.mark.parametrize("command", ["finetune", "pretrain"])
def test_I25_a_training_of_no_steps_is_refused(tmp_path, tiny_store, command):
    call = {
        "finetune": lambda: api.finetune(tiny_store.path, tmp_path / "run", set=("steps=0",)),
        "pretrain": lambda: api.pretrain("mae", tiny_store.path, tmp_path / "run", set=("steps=0",)),
    }
    with pytest.raises(UserError, match="steps"):
        call[command]()
    assert not (tmp_path / "run").exists()


# I27

TURNS = {"RAS": "RAS", "LPS": "LPS", "ASR": "ASR"}


def save_turned(path: Path, image: nib.Nifti1Image, codes: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes)
    )
    nib.save(image.as_reoriented(turn), path)


def test_I27_masks_of_one_phantom_in_three_orientations_agree_in_the_world(tmp_path, train):
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid(*map(np.arange, (14, 16, 12)), indexing="ij"), axis=-1)
    for n, codes in enumerate(TURNS):
        label = (np.linalg.norm(places - (4 + n, 6, 5), axis=-1) < 4).astype(np.uint8)
        image = (label * 100 + rng.normal(50, 5, label.shape)).astype(np.float32)
        for kind, array in (("images", image), ("labels", label)):
            volume = nib.Nifti1Image(array, np.diag((1, 1, 2, 1.0)))
            save_turned(tmp_path / f"data/{kind}/{codes}.nii.gz", volume, codes)
            if n == 0 and kind == "images":
                for turned in TURNS:
                    save_turned(tmp_path / f"phantom/{turned}.nii.gz", volume, turned)
    assert api.scan(tmp_path / "data").problems == ()
    run = train(tmp_path, steps=30)
    assert api.predict(run, tmp_path / "phantom", tmp_path / "masks").problems == ()
    masks = []
    for codes in TURNS:
        written = nib.load(tmp_path / f"masks/{codes}.nii.gz")
        assert "".join(nib.aff2axcodes(written.affine)) == codes
        masks.append(np.asarray(nib.as_closest_canonical(written).dataobj))
    assert 0 < np.count_nonzero(masks[0]) < masks[0].size
    for other in masks[1:]:
        both = np.count_nonzero(other.astype(bool) & masks[0].astype(bool))
        assert 2 * both / (np.count_nonzero(other) + np.count_nonzero(masks[0])) > 0.99
