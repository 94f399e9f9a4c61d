"""The commands, as typed."""

import gzip
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fewvox.data.errors import UserError
from fewvox.data.settings import load_mapping
from fewvox.data.splits import split
from fewvox.experiments import api, cli
from fewvox.seg.engine.launch import Launch
from fewvox.seg.networks.registry import NETWORKS
from fewvox.ssl.methods.registry import METHODS

PROGRAM = Path(sys.executable).with_name("fewvox")


def fewvox(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
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


@pytest.mark.parametrize(
    "command",
    [
        *("scan", "prepare", "finetune", "pretrain", "embed", "compare", "methods", "networks", "transfer"),
        *("predict", "evaluate", "export", "demo"),
    ],
)
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
    assert [(p["severity"], p["found"]) for p in found["problems"]] == [("corrected", "the values 0, 1, 5")]
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
    predicted = fewvox(
        "predict", volumes, "--model", run, "--cases", run / "split.json", "--out", masks, "--probabilities"
    )
    assert predicted.returncode == 0, words(predicted)
    split = json.loads((run / "split.json").read_text())
    names = sorted(f"{case}{end}.nii.gz" for case in split["test"] for end in ("", "_probabilities"))
    assert sorted(p.name for p in masks.glob("*.nii.gz")) == names
    source = nib.nifti1.load(volumes / "images" / f"{split['test'][0]}.nii.gz")
    mask = nib.nifti1.load(masks / f"{split['test'][0]}.nii.gz")
    np.testing.assert_array_equal(mask.affine, source.affine)
    assert mask.shape == source.shape
    maps = nib.nifti1.load(masks / f"{split['test'][0]}_probabilities.nii.gz")
    assert (maps.shape, maps.get_data_dtype()) == ((*source.shape, 3), np.float32)
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
    with pytest.raises(UserError, match="What is there is never written over"):
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


SMALL = ["steps=2", "batch=2", "patch=[8,16,8]", "width=4", "device=cpu"]
SET = [part for setting in SMALL for part in ("--set", setting)]


@pytest.fixture
def typed(monkeypatch, capsys):
    """Runs a command in this very process: its exit status, and what it printed, in one line."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["fewvox", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        shown = capsys.readouterr()
        return int(end.value.code or 0), " ".join((shown.out + shown.err).split())

    return run


@pytest.fixture(scope="module")
def pretrained(tiny_store, tmp_path_factory) -> Path:
    """A pretraining that held out three cases."""
    out = tmp_path_factory.mktemp("pretrained") / "run"
    return api.pretrain("mae", tiny_store.path, out, test=3, set=SMALL).path


def test_the_methods_are_listed_with_what_they_do_and_where_they_are_from(typed):
    status, told = typed("methods")
    assert status == 0
    for name in METHODS:
        method = METHODS[name]
        assert f"{name} {method.summary} {', '.join(method.method.trains)}" in told
        assert method.method.source in told


def test_what_keeps_to_the_contract_is_told_check_by_check(typed):
    status, told = typed("check-plugin", "noise")
    assert status == 0
    assert "augmentation │ same seed same result │ ok" in told
    status, told = typed("check-plugin", "nosuch")
    assert status == 1
    assert "no method, network or augmentation of that name. There are methods: " in told


def test_several_processes_train_and_do_nothing_else(typed, monkeypatch):
    monkeypatch.setattr(cli, "launched", lambda: Launch(processes=2))
    status, told = typed("methods")
    assert status == 1
    assert told == (
        "error 2 processes: fewvox methods. Several processes do one of these: pretrain, finetune. "
        "Run it without torchrun."
    )


def test_the_networks_are_listed_with_where_they_are_from(typed):
    status, told = typed("networks")
    assert status == 0
    for name in NETWORKS:
        assert f"{name} {NETWORKS[name].summary}" in told
    assert "arXiv:2404.09556" in told


def test_what_nobody_annotated_and_the_kind_of_label_are_told_on_the_line(typed, tmp_path, save_nifti):
    right = np.zeros((4, 5, 6), np.uint8)
    right[1:3, 1:4, 1:4] = 1
    label = np.where(np.arange(4)[:, None, None] < 2, right, 9)
    save_nifti(tmp_path / "masks/a.nii.gz", np.roll(right, 1, axis=0) + right)
    save_nifti(tmp_path / "labels/a.nii.gz", label.astype(np.uint8))
    for kind in ("classes", "instances", "overlapping"):
        told = typed(
            "evaluate", tmp_path / "masks", tmp_path / "labels", "--ignore-value", 9, "--label-kind", kind,
            "--json", tmp_path / "scores.json",
        )  # fmt: skip
        assert told[0] == 0, told
        assert json.loads((tmp_path / "scores.json").read_text())["scores"][0]["dice"] == 1


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_a_threshold_that_is_no_probability_is_refused(typed, tmp_path, threshold):
    status, told = typed(
        "predict", "--model", tmp_path, tmp_path, "--out", tmp_path / "out", "--threshold", threshold
    )
    assert status == 2
    assert re.search("--threshold.* should be (greater|less) than or equal", told)


def test_an_unknown_method_is_answered_with_the_known_ones(typed, tiny_store, tmp_path):
    status, told = typed("pretrain", "nosuch", "--store", tiny_store.path, "--out", tmp_path / "run")
    assert status == 1
    assert f"There are: {', '.join(sorted(METHODS))}" in told
    assert not (tmp_path / "run").exists()


def test_a_wrong_option_of_a_method_is_told_and_leaves_nothing(typed, tiny_store, tmp_path):
    place = ("--store", tiny_store.path, "--out", tmp_path / "run")
    status, told = typed("pretrain", "mae", *place, *SET, "--set", "options.margin=1")
    assert (status, "unknown key 'margin'" in told) == (1, True)
    assert not (tmp_path / "run").exists()


def test_a_pretraining_on_labelled_cases_warns_and_is_continued_only_with_resume(typed, tiny_store, tmp_path):
    command = ("pretrain", "mae", "--store", tiny_store.path, "--out", tmp_path / "run", *SET)
    status, told = typed(*command)
    assert status == 0
    assert "10 volumes, 0 test cases left out" in told
    assert "10 of them have labels, which are not read" in told
    assert "hold some out with --test or --cases" in told
    status, told = typed(*command)
    assert (status, "Continue it with --resume" in told) == (1, True)
    status, told = typed(*command, "--resume")
    assert (status, f"run: {tmp_path / 'run'}" in told) == (0, True)
    status, told = typed(*command, "--set", "steps=3", "--resume")
    assert (status, "steps was 2, is 3" in told) == (1, True)


def test_a_pretraining_leaves_out_what_fine_tuning_will_test_on(pretrained, tiny_store):
    lists = json.loads((pretrained / "split.json").read_text())
    assert tuple(lists["test"]) == split(tiny_store.annotated, test=3, labelled=2, seed=9).test
    assert len(lists["train"]) == 7
    assert not {*lists["train"]} & {*lists["test"]}


def test_a_pretraining_leaves_out_the_test_cases_of_a_file(typed, pretrained, tiny_store, tmp_path):
    command = ("pretrain", "mae", "--store", tiny_store.path, "--out", tmp_path / "run", *SET)
    cases = ("--cases", pretrained / "split.json")
    status, told = typed(*command, *cases, "--test", 2)
    assert (status, "Leave one of the two out" in told) == (1, True)
    status, told = typed(*command, *cases)
    assert status == 0
    assert "7 volumes, 3 test cases left out" in told
    assert "hold some out" not in told
    assert (tmp_path / "run/split.json").read_text() == (pretrained / "split.json").read_text()


def test_embeddings_are_written_once(typed, pretrained, tiny_store, tmp_path):
    command = ("embed", "--model", pretrained, "--store", tiny_store.path, "--out", tmp_path / "seen")
    status, told = typed(*command, "--volumes", 4, "--views", 2)
    assert status == 0
    assert f"picture: {tmp_path / 'seen/pca.png'}" in told
    assert "effective rank" in told
    files = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "seen").iterdir()}
    assert set(files) == {"embeddings.npz", "embeddings.csv", "measures.json", "pca.png", "pca_random.png"}
    with np.load(tmp_path / "seen/embeddings.npz", allow_pickle=False) as arrays:
        assert len(set(arrays["cases"])) == 4
        assert len(arrays["values"]) == 8
    status, told = typed(*command)
    assert (status, "exists already" in told) == (1, True)
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "seen").iterdir()} == files


def test_a_head_embeds_where_there_is_the_run(typed, pretrained, tiny_store, tmp_path):
    """`mae` has no embedding of its own: its pooled features are those of the network."""
    place = ("--store", tiny_store.path, "--volumes", 4, "--views", 2, "--out")
    for out, more in (("pooled", ()), ("head", ("--head",)), ("early", ("--moment", 0))):
        assert typed("embed", "--model", pretrained, *place, tmp_path / out, *more)[0] == 0
    pooled, head, early = (
        np.load(tmp_path / out / "embeddings.npz")["values"] for out in ("pooled", "head", "early")
    )
    np.testing.assert_allclose(head, pooled, rtol=1e-5)
    assert not np.isclose(early, pooled).all(axis=1).any()
    weights = next((pretrained / "checkpoints").glob("*/weights.safetensors"))
    status, told = typed("embed", "--model", weights, *place, tmp_path / "none", "--head")
    assert (status, "config.yaml" in told) == (1, True)
    assert not (tmp_path / "none").exists()


def test_what_is_no_model_cannot_embed(typed, tiny_store, tmp_path):
    place = ("--store", tiny_store.path, "--out", tmp_path / "seen")
    status, told = typed("embed", "--model", tmp_path, *place)
    assert (status, "no checkpoint in it" in told) == (1, True)
    assert list(tmp_path.iterdir()) == []
    assert typed("embed", "--model", tmp_path, *place, "--volumes", 1)[0] == 2


def test_a_comparison_that_is_not_there_is_told_with_those_there_are(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, told = typed("compare", "missing.yaml")
    assert status == 1
    assert "missing.yaml: no such file" in told
    assert "demo, frozen_hippocampus" in told
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_with_a_failed_run_exits_1_with_its_report_until_it_is_mended(
    typed, volumes, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    masks = tmp_path / "mine"
    values = {
        "name": "two",
        "data": str(volumes),
        "budget": "cpu",
        "test": 2,
        "label_counts": [1],
        "seeds": [0],
        "arms": {"scratch": {}, "mine": {"predictions": str(masks)}},
        "width": 4,
        "finetune": {"steps": 2, "batch": 1, "patch": [8, 16, 16], "device": "cpu"},
        "pictures": 0,
    }
    (tmp_path / "two.yaml").write_text(json.dumps(values))
    status, told = typed("compare", "two.yaml")
    assert status == 1
    assert "1 runs failed; the report says why" in told
    report = tmp_path / "two-comparison/report.html"
    assert f"report: {report}" in told
    assert "no such file or folder" in report.read_text(encoding="utf-8")
    shutil.copytree(volumes / "labels", masks)
    status, told = typed("compare", "two.yaml", "--out", "two-comparison")
    assert status == 0
    assert "scratch, 1 labels, seed 0: done before" in told
    assert "failed" not in told


def test_the_demo_does_not_write_over_a_folder(typed, tmp_path):
    status, told = typed("demo", "--fast", "--out", tmp_path)
    assert (status, "The demo makes a new folder" in told) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_not_made_among_the_images(volumes):
    before = sorted(volumes.rglob("*"))
    with pytest.raises(UserError, match="a folder among the images"):
        api.prepare(volumes, volumes / "images" / "store")
    assert sorted(volumes.rglob("*")) == before
