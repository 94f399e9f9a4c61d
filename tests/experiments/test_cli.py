"""The commands, as typed."""

import gzip
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fewvox.data.errors import UserError
from fewvox.data.settings import load_mapping
from fewvox.experiments import api

PROGRAM = Path(sys.executable).with_name("fewvox")


def fewvox(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=250,
        check=False,
    )


def words(run: subprocess.CompletedProcess[str]) -> str:
    """What was printed, lines joined as the terminal's width broke them."""
    return " ".join((run.stdout + run.stderr).split())


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> Path:
    """Six volumes of two bright blobs on noise, labelled 0, 1 and 5, 1 x 1 x 2 mm."""
    root = tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:12, :16, :16]
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for i in range(6):
        label = np.zeros((12, 16, 16), np.uint8)
        label[(z - 6) ** 2 + (y - 5) ** 2 + (x - 5 - i % 3) ** 2 < 9] = 1
        label[(z - 6) ** 2 + (y - 11) ** 2 + (x - 10) ** 2 < 9] = 5
        image = (rng.normal(0, 0.3, label.shape) + np.where(label == 1, 2, label)).astype(np.float32)
        for folder, array in (("images", image), ("labels", label)):
            nib.save(nib.Nifti1Image(array.T, np.diag((1, 1, 2, 1.0))), root / folder / f"case{i}.nii.gz")
    return root


def test_the_version_is_that_of_the_distribution():
    run = fewvox("--version")
    assert (run.returncode, run.stdout.strip()) == (0, f"fewvox {version('fewvox')}")


@pytest.mark.parametrize("command", ["scan", "prepare", "finetune", "predict", "evaluate", "demo"])
def test_every_command_explains_itself(command):
    run = fewvox(command, "--help")
    assert run.returncode == 0
    assert "Usage: fewvox" in run.stdout


def test_a_scan_names_every_bad_file_in_one_pass_and_writes_nothing(volumes, tmp_path):
    data = tmp_path / "data"
    for folder in ("images", "labels"):
        (data / folder).mkdir(parents=True)
        for file in (volumes / folder).iterdir():
            (data / folder / file.name).write_bytes(file.read_bytes())
    cut = data / "images" / "case0.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-2000])
    label = np.zeros((16, 16, 10), np.uint8)
    nib.save(nib.Nifti1Image(label, np.diag((1, 1, 2, 1.0))), data / "labels" / "case1.nii.gz")
    image = np.zeros((16, 16, 12), np.float32)
    image[3, 4, 5] = np.nan
    nib.save(nib.Nifti1Image(image, np.diag((1, 1, 2, 1.0))), data / "images" / "case2.nii.gz")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    run = fewvox("scan", data, cwd=tmp_path)

    assert run.returncode == 1
    told = words(run)
    assert "images/case0.nii.gz: it cannot be read" in told
    assert "labels/case1.nii.gz: shape (z, y, x) (10, 16, 16), but (12, 16, 16)" in told
    assert "images/case2.nii.gz: 1 of 3072 voxels are NaN" in told
    assert "errors to solve before `fewvox prepare`: 3" in told
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_good_data_set_scans_with_exit_status_0_and_json(volumes, tmp_path):
    run = fewvox("scan", volumes, "--json", tmp_path / "scan.json")
    assert run.returncode == 0
    found = json.loads((tmp_path / "scan.json").read_text())
    assert found["problems"] == []
    assert found["fingerprint"]["spacing"] == [2.0, 1.0, 1.0]
    assert found["fingerprint"]["label_values"] == [0, 1, 5]


def test_from_volumes_to_scores(volumes, tmp_path):
    store, run, masks = tmp_path / "store", tmp_path / "run", tmp_path / "masks"
    prepared = fewvox("prepare", volumes, "--out", store, "--budget", "cpu")
    assert prepared.returncode == 0, words(prepared)
    assert "MiB memory, up to 1 MiB disk" in prepared.stdout
    trained = fewvox(
        "finetune", "--store", store, "--out", run, "--labelled", 3, "--test", 2, "--set", "steps=60",
        "--set", "width=8", "--set", "validate_every=30", "--set", "checkpoint_every=30",
    )  # fmt: skip
    assert trained.returncode == 0, words(trained)
    assert "estimate:" in trained.stdout
    assert "3 training, 0 validation, 2 test cases" in words(trained)
    predicted = fewvox("predict", volumes, "--model", run, "--cases", run / "split.json", "--out", masks)
    assert predicted.returncode == 0, words(predicted)
    split = json.loads((run / "split.json").read_text())
    assert sorted(p.name for p in masks.glob("*.nii.gz")) == [f"{case}.nii.gz" for case in split["test"]]
    source = nib.nifti1.load(volumes / "images" / f"{split['test'][0]}.nii.gz")
    mask = nib.nifti1.load(masks / f"{split['test'][0]}.nii.gz")
    np.testing.assert_array_equal(mask.affine, source.affine)
    assert mask.shape == source.shape
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 5}
    scored = fewvox("evaluate", masks, volumes, "--json", tmp_path / "scores.json")
    assert scored.returncode == 0, words(scored)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert {s["role"] for s in scores["scores"]} == {"unseen"}
    assert scores["mean_dice"] > 0.5
    assert f"mean Dice {scores['mean_dice']:.4f}" in scored.stdout


def test_a_mistake_is_told_in_words_with_exit_status_1(volumes, tmp_path):
    run = fewvox("finetune", "--store", volumes, "--out", tmp_path / "run")
    assert run.returncode == 1
    assert "Run `fewvox prepare DATA" in words(run)
    assert "Traceback" not in run.stderr


def test_prepare_lists_every_problem_and_leaves_nothing(volumes, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a", "b"):
        (data / f"{name}.nii.gz").write_bytes(gzip.compress(b"no volume"))
    run = fewvox("prepare", data, "--out", tmp_path / "store")
    assert run.returncode == 1
    assert "a.nii.gz" in words(run)
    assert "b.nii.gz" in words(run)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_a_spacing_needs_its_unit(volumes):
    run = fewvox("scan", volumes, "--spacing", "1,1,1")
    assert run.returncode == 1
    assert "--unit um" in words(run)


def test_the_seed_of_a_configuration_holds_until_another_is_given(volumes, tmp_path):
    store = api.prepare(volumes, tmp_path / "store", budget="cpu")
    (tmp_path / "c.yaml").write_text("seed: 5\nsteps: 1\nwidth: 2\n")
    for given, kept in ((None, 5), (2, 2)):
        run = api.finetune(store.path, tmp_path / f"run{kept}", config=tmp_path / "c.yaml", seed=given)
        assert load_mapping(run.path / "config.yaml")["seed"] == kept


def test_a_list_of_cases_and_their_number_do_not_mix(volumes, tmp_path):
    store = api.prepare(volumes, tmp_path / "store", budget="cpu")
    with pytest.raises(UserError, match="Leave one of the two out"):
        api.finetune(store.path, tmp_path / "run", cases=tmp_path / "split.json", labelled=2)


def test_an_existing_store_is_noticed_before_anything_is_read(volumes, tmp_path, monkeypatch):
    monkeypatch.setattr(api, "scan", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(UserError, match="A store is never written over"):
        api.prepare(volumes, tmp_path)


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (float("nan"), 1.0, 1.0)])
def test_an_impossible_spacing_is_refused(volumes, spacing):
    with pytest.raises(UserError, match="three lengths above 0"):
        api.scan(volumes, spacing=spacing, unit="mm")


def test_a_path_that_cannot_be_written_is_told_on_stderr(volumes, tmp_path):
    run = fewvox("scan", volumes, "--json", tmp_path / "gone" / "scan.json")
    assert run.returncode == 1
    assert "No such file or directory" in run.stderr
    assert "Traceback" not in run.stderr
