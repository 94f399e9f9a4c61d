"""Predicting a folder: bad volumes are told, good ones made once, and by one model."""

import json

import nibabel as nib
import numpy as np
import pytest
from fewvox.data.dataset import DatasetError
from fewvox.data.errors import UserError
from fewvox.data.formats.files import read_volume
from fewvox.data.hashing import content_hash
from fewvox.seg import batch_predict
from fewvox.seg.batch_predict import MANIFEST, masks_in, predict, read_manifest

IDS = ("a", "b", "c", "deep/d", "e")


@pytest.fixture
def images(tmp_path, save_nifti):
    """Five volumes, of which `c` is cut off."""
    rng = np.random.default_rng(0)
    for case in IDS:
        save_nifti(tmp_path / f"data/{case}.nii.gz", rng.normal(100, 20, (9, 8, 5)).astype(np.float32))
    broken = tmp_path / "data/c.nii.gz"
    broken.write_bytes(broken.read_bytes()[:200])
    return tmp_path / "data"


def masks(folder):
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}


def test_one_corrupt_file_among_five_leaves_four_masks_and_one_problem(tmp_path, images, make_run):
    calls = []
    made = predict(make_run(), images, tmp_path / "out", progress=lambda *n: calls.append(n))
    assert made.written == ("a", "b", "deep/d", "e")
    assert made.kept == ()
    assert [(p.case, p.severity) for p in made.problems] == [("c", "error")]
    assert "c.nii.gz" in str(made.problems[0])
    assert set(masks(tmp_path / "out")) == {f"{case}.nii.gz" for case in made.written}
    assert calls == [(n, 5) for n in range(1, 6)]
    assert not [p for p in (tmp_path / "out").rglob("*") if p.name.startswith(".")]


def test_i06_channels_that_are_not_the_models_stop_a_prediction(tmp_path, make_run):
    told = {"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz"}
    (tmp_path / "data/imagesTr").mkdir(parents=True)
    (tmp_path / "data/dataset.json").write_text(json.dumps(told))
    for n in (0, 1):
        (tmp_path / f"data/imagesTr/a_000{n}.nii.gz").touch()
    with pytest.raises(DatasetError, match="channels T1, T2"):
        predict(make_run(), tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pretraining_writes_no_masks(tmp_path, images, make_run):
    """Its store may know label values, but its output is as random as it was made."""
    run = make_run(method="mae", trained=("encoder", "decoder"))
    with pytest.raises(UserError, match="output was never trained"):
        predict(run, images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_rerun_makes_only_what_is_missing(tmp_path, images, make_run, save_nifti):
    run, out = make_run(), tmp_path / "out"
    predict(run, images, out)
    before = masks(out)
    (out / "b.nii.gz").unlink()
    save_nifti(images / "c.nii.gz", np.random.default_rng(1).normal(size=(9, 8, 5)))
    again = predict(run, images, out)
    assert (again.written, again.kept, again.problems) == (("b", "c"), ("a", "deep/d", "e"), ())
    after = masks(out)
    assert {name for name in after if before.get(name) != after[name]} == {"b.nii.gz", "c.nii.gz"}


def test_a_changed_image_is_predicted_again(tmp_path, images, make_run, save_nifti):
    run, out = make_run(), tmp_path / "out"
    predict(run, images, out)
    save_nifti(images / "a.nii.gz", np.random.default_rng(1).normal(size=(7, 8, 5)))
    assert predict(run, images, out).written == ("a",)
    assert nib.load(out / "a.nii.gz").shape == (5, 8, 7)  # type: ignore[attr-defined]


def test_a_prediction_that_was_killed_is_completed(tmp_path, images, make_run, monkeypatch):
    run, out, once = make_run(), tmp_path / "out", batch_predict._predict_case

    def die_at_b(task, case, *rest, **asked):
        if case.id == "b":
            raise KeyboardInterrupt
        return once(task, case, *rest, **asked)

    monkeypatch.setattr(batch_predict, "_predict_case", die_at_b)
    with pytest.raises(KeyboardInterrupt):
        predict(run, images, out)
    monkeypatch.undo()
    again = predict(run, images, out)
    assert (again.written, again.kept) == (("b", "deep/d", "e"), ("a",))


def test_a_prediction_killed_in_its_first_case_is_completed(tmp_path, images, make_run, monkeypatch):
    run, out = make_run(), tmp_path / "out"

    def die(*args):
        raise KeyboardInterrupt

    # asked for when the mask is written and not yet in the manifest
    monkeypatch.setattr(batch_predict, "content_hash", die)
    with pytest.raises(KeyboardInterrupt):
        predict(run, images, out)
    monkeypatch.undo()
    assert set(masks(out)) == {"a.nii.gz"}
    assert len(predict(run, images, out).problems) == 1


def test_another_model_does_not_write_into_the_same_folder(tmp_path, images, make_run):
    predict(make_run(), images, tmp_path / "out")
    before = masks(tmp_path / "out")
    with pytest.raises(UserError, match="masks of another model"):
        predict(make_run("other", seed=1), images, tmp_path / "out")
    assert masks(tmp_path / "out") == before


def test_a_folder_of_other_files_is_not_written_to(tmp_path, images, make_run):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        predict(make_run(), images, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_the_manifest_tells_what_each_case_was_to_the_model(tmp_path, images, make_run):
    hashes = {case: content_hash(read_volume(images / f"{case}.nii.gz").array) for case in "ab"}
    run = make_run(trained_on=(hashes["a"],), validated_on=(hashes["b"],))
    predict(run, images, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    roles = {case: made.role for case, made in manifest.cases.items()}
    assert roles == {"a": "training", "b": "validation", "deep/d": "unseen", "e": "unseen"}
    assert manifest.cases["deep/d"].file == "deep/d.nii.gz"
    assert manifest.labels.values == (0, 1, 2)
    assert "data" not in (tmp_path / "out" / MANIFEST).read_text()


def test_a_training_volume_is_known_under_another_name_and_format(tmp_path, images, make_run):
    hashed = content_hash(read_volume(images / "a.nii.gz").array)
    (tmp_path / "other").mkdir()
    nib.save(nib.load(images / "a.nii.gz"), tmp_path / "other/renamed.nii")
    predict(make_run(trained_on=(hashed,)), tmp_path / "other", tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert manifest.cases["renamed"].role == "training"


def test_only_the_chosen_cases_are_predicted(tmp_path, images, make_run):
    assert predict(make_run(), images, tmp_path / "out", only=["e", "a"]).written == ("a", "e")


def test_an_unknown_id_is_refused_before_anything_is_written(tmp_path, images, make_run):
    with pytest.raises(DatasetError, match="1 of the listed cases are not there: zzz"):
        predict(make_run(), images, tmp_path / "out", only=["a", "zzz"])
    assert not (tmp_path / "out").exists()


def test_nan_voxels_are_a_problem_and_not_a_mask(tmp_path, save_nifti, make_run):
    array = np.random.default_rng(0).normal(size=(9, 8, 5)).astype(np.float32)
    array[3, 3, 3] = np.nan
    save_nifti(tmp_path / "data/a.nii.gz", array)
    made = predict(make_run(), tmp_path / "data", tmp_path / "out")
    assert made.written == ()
    assert "1 of 360 voxels are NaN" in made.problems[0].found


def test_a_model_without_labels_is_refused(tmp_path, images, make_run, make_plan):
    run = make_run(plan=make_plan(labels=None), trained=("encoder", "decoder"))
    with pytest.raises(UserError, match="output was never trained"):
        predict(run, images, tmp_path / "out")


def test_masks_are_the_same_whichever_cases_came_before(tmp_path, images, make_run):
    run = make_run()
    predict(run, images, tmp_path / "all")
    predict(run, images, tmp_path / "one", only=["e"])
    found = [np.asarray(nib.load(tmp_path / f / "e.nii.gz").dataobj) for f in ("all", "one")]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(found[0], found[1])
    assert json.loads((tmp_path / "one" / MANIFEST).read_text())["cases"].keys() == {"e"}


def test_a_mask_that_cannot_be_written_does_not_stop_the_others(tmp_path, images, make_run, monkeypatch):
    once = batch_predict.Predictor.write_mask

    def fail_at_b(self, volume, where, out, maps, finish):
        if out.name == "b.nii.gz":
            raise OSError("no space left on device")
        once(self, volume, where, out, maps, finish)

    monkeypatch.setattr(batch_predict.Predictor, "write_mask", fail_at_b)
    made = predict(make_run(), images, tmp_path / "out")
    assert made.written == ("a", "deep/d", "e")
    assert [p.case for p in made.problems] == ["b", "c"]
    assert "no space left on device" in str(made.problems[0])


def test_masks_are_not_written_among_the_images(tmp_path, images, make_run):
    with pytest.raises(UserError, match="a folder among the images"):
        predict(make_run(), images, images / "masks")
    assert not (images / "masks").exists()


def test_a_damaged_manifest_is_told_by_name(tmp_path, images, make_run):
    run, out = make_run(), tmp_path / "out"
    predict(run, images, out)
    (out / MANIFEST).write_text((out / MANIFEST).read_text()[:40])
    with pytest.raises(UserError, match=r"predictions\.json: not readable as JSON"):
        predict(run, images, out)


def maps_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*_probabilities*"))


def test_probabilities_are_written_beside_the_masks_and_recorded(tmp_path, images, make_run):
    run, out = make_run(), tmp_path / "out"
    predict(run, images, out, only=["a", "deep/d"], probabilities=True)
    assert maps_of(out) == ["a_probabilities.nii.gz", "deep/d_probabilities.nii.gz"]
    manifest = read_manifest(out)
    assert manifest is not None
    assert {case: made.probabilities for case, made in manifest.cases.items()} == {
        "a": "a_probabilities.nii.gz",
        "deep/d": "deep/d_probabilities.nii.gz",
    }
    assert sorted(masks_in(out)) == ["a", "deep/d"]
    found = np.asarray(nib.load(out / "a_probabilities.nii.gz").dataobj)  # type: ignore[attr-defined]
    chosen = np.asarray(nib.load(out / "a.nii.gz").dataobj)  # type: ignore[attr-defined]
    assert (found.dtype, found.shape) == (np.float32, (5, 8, 9, 3))
    np.testing.assert_array_equal(found.argmax(axis=-1), chosen)


def test_masks_without_the_probabilities_that_are_asked_for_are_made_again(tmp_path, images, make_run):
    run, out = make_run(), tmp_path / "out"
    predict(run, images, out, only=["a", "b"])
    assert maps_of(out) == []
    assert predict(run, images, out, only=["a"], probabilities=True).written == ("a",)
    assert predict(run, images, out, only=["a", "b"]).kept == ("a", "b")
    (out / "a_probabilities.nii.gz").unlink()
    assert predict(run, images, out, only=["a"]).kept == ("a",)
    assert predict(run, images, out, only=["a"], probabilities=True).written == ("a",)


def test_probabilities_never_stay_behind_from_another_image(tmp_path, images, make_run, save_nifti):
    run, out = make_run(), tmp_path / "out"
    predict(run, images, out, only=["a"], probabilities=True)
    save_nifti(images / "a.nii.gz", np.random.default_rng(1).normal(size=(7, 8, 5)))
    predict(run, images, out, only=["a"])
    assert nib.load(out / "a_probabilities.nii.gz").shape == (5, 8, 7, 3)  # type: ignore[attr-defined]


def test_probabilities_that_a_killed_prediction_left_are_no_masks(tmp_path, images, make_run, monkeypatch):
    run, out = make_run(), tmp_path / "out"

    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(batch_predict, "content_hash", die)
    with pytest.raises(KeyboardInterrupt):
        predict(run, images, out, probabilities=True)
    assert maps_of(out) == ["a_probabilities.nii.gz"]
    assert sorted(masks_in(out)) == ["a"]


@pytest.mark.parametrize("before", [False, True])
def test_volumes_named_like_probabilities_of_others_are_refused(
    tmp_path, images, make_run, save_nifti, before
):
    run, out = make_run(), tmp_path / "out"
    save_nifti(images / "a_probabilities.nii.gz", np.random.default_rng(1).normal(size=(7, 8, 5)))
    if before:
        predict(run, images, out, only=["a_probabilities"])
        assert sorted(masks_in(out)) == ["a_probabilities"]
    with pytest.raises(DatasetError, match="another volume is called 'a_probabilities'"):
        predict(run, images, out, only=["a"] if before else None, probabilities=True)
    assert predict(run, images, out, only=["a", "a_probabilities"]).problems == ()
    assert sorted(masks_in(out)) == ["a", "a_probabilities"]


def test_volumes_named_so_of_another_program_are_masks(tmp_path, save_nifti):
    save_nifti(tmp_path / "a.nii.gz", np.zeros((3, 3, 3), np.uint8))
    save_nifti(tmp_path / "a_probabilities.nii.gz", np.zeros((3, 3, 3), np.uint8))
    assert sorted(masks_in(tmp_path)) == ["a", "a_probabilities"]


def test_no_volume_is_unseen_by_weights_that_do_not_tell_what_they_saw(tmp_path, images, make_run):
    hashes = {case: content_hash(read_volume(images / f"{case}.nii.gz").array) for case in "ab"}
    run = make_run(trained_on=(hashes["a"],), inherited=(hashes["b"],), inherited_all=False)
    predict(run, images, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    roles = {case: made.role for case, made in manifest.cases.items()}
    assert roles == {"a": "training", "b": "pretraining", "deep/d": "unknown", "e": "unknown"}
