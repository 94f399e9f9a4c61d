"""Checkpoints: whole or absent, told apart, verified, and never executed."""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.data.labels import LabelTable
from fewvox.seg import checkpoint, checkpoint_reading
from fewvox.seg.checkpoint import CheckpointError
from fewvox.seg.digest import digest
from fewvox.seg.inputs import input_statistics
from fewvox.seg.networks.registry import build
from fewvox.seg.probe import probed
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

WEIGHTS = "weights.safetensors"
DUMPS = {"pickle": lambda value, file: pickle.dump(value, file, protocol=2), "torch": torch.save}


class Canary:
    """An object whose unpickling makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def save(tmp_path, make_info):
    """Saves checkpoints of one run; gives its folder."""

    def make(steps, score=None, state=None, seed=0, **more):
        info = make_info(steps=steps, scores={} if score is None else {"score": score})
        checkpoint.save(tmp_path / "run", build(info.architecture, seed), info, state or {}, score, **more)
        return tmp_path / "run"

    return make


def step_folders(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir() if path.is_dir())


def described(path):
    with safe_open(str(path), framework="pt") as opened:
        return json.loads(opened.metadata()["fewvox"])


def rewrite(path, tensors=None, description=None):
    """Writes a weights file again with other tensors or another description, and the hash that fits them."""
    tensors = load_file(path) if tensors is None else tensors
    text = json.dumps(described(path) if description is None else description)
    save_file(tensors, path, {"fewvox": text, "sha256": digest(text, tensors)})


def hash_state(folder):
    """Makes the recorded hash that of the training state as it is now."""
    hashed = hashlib.sha256((folder / "training.pt").read_bytes()).hexdigest()
    (folder / "training.pt.sha256").write_text(f"{hashed}  training.pt\n")


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """Changes a byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_weights_description_and_state_come_back(tmp_path, make_info, state_differences):
    info = make_info(scores={"score": 0.25, "dice/1": 0.5}, environment={"torch": "x"}, validated_on=("b",))
    network = build(info.architecture, 0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.5)
    network(torch.randn(1, 1, 4, 8, 8)).sum().backward()
    optimiser.step()
    state = {"optimiser": optimiser.state_dict(), "counters": {"step": 7, "skipped": 1}}
    checkpoint.save(tmp_path, network, info, state, 0.25)
    loaded = checkpoint.load(tmp_path)
    assert loaded.info == info
    again = loaded.network().state_dict()
    assert all(torch.equal(again[key], value) for key, value in network.state_dict().items())
    assert not state_differences(checkpoint.load_state(tmp_path), state)


def test_a_checkpoint_from_before_voxels_could_be_unannotated_is_read(save):
    file = save(7) / "checkpoints/step_000007" / WEIGHTS
    description = described(file)
    assert description["plan"]["labels"].pop("ignore") is None
    rewrite(file, description=description)
    found = checkpoint.load(file)
    assert found.info.plan.labels == LabelTable(values=(0, 1, 2))
    found.network()


@pytest.mark.parametrize("inside", ["", "checkpoints/step_000007", f"checkpoints/step_000007/{WEIGHTS}"])
def test_a_run_a_checkpoint_folder_and_a_file_are_read_alike(save, inside):
    assert checkpoint.load(save(7) / inside).info.steps == 7


def test_a_checkpoint_holds_no_place_of_its_making(save):
    run = save(7)
    assert str(run.parent).encode() not in (run / "checkpoints/step_000007" / WEIGHTS).read_bytes()


def test_best_and_the_last_two_are_kept_and_the_others_removed(save):
    for steps, score in [(1, 0.5), (2, 0.9), (3, 0.7), (4, None), (5, 0.8)]:
        run = save(steps, score, seed=steps)
    assert step_folders(run) == ["step_000002", "step_000004", "step_000005"]
    assert checkpoint.load(run).info.steps == 2
    assert checkpoint.load(run, "last").info.steps == 5
    run = save(6, 0.95)
    assert step_folders(run) == ["step_000005", "step_000006"]


def test_the_first_of_every_so_many_steps_is_kept_and_nothing_of_the_users_removed(save, tmp_path):
    mine = tmp_path / "run/checkpoints/step_000001_for_the_paper"
    mine.mkdir(parents=True)
    for steps in range(1, 15):
        save(2 * steps, keep_every=5)
    mine.rmdir()
    assert step_folders(tmp_path / "run") == [f"step_{steps:06d}" for steps in (6, 10, 16, 20, 26, 28)]


def test_without_scores_the_last_is_the_best(save):
    save(1)
    assert checkpoint.load(save(2)).info.steps == 2


@pytest.mark.parametrize("name", ["model.pth", "model.pt", "model.pkl", WEIGHTS])
@pytest.mark.parametrize("protocol", DUMPS)
def test_a_pickle_is_refused_and_never_run(tmp_path, name, protocol):
    with (tmp_path / name).open("wb") as file:
        DUMPS[protocol]({"state": Canary(tmp_path / "ran")}, file)
    for given in (tmp_path / name, tmp_path) if name == WEIGHTS else (tmp_path / name,):
        with pytest.raises(CheckpointError, match=r"pickle.*refused"):
            checkpoint.load(given)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", DUMPS)
def test_a_pickle_as_training_state_is_refused_and_never_run(save, tmp_path, protocol):
    run = save(7)
    with (run / "checkpoints/step_000007/training.pt").open("wb") as file:
        DUMPS[protocol]({"optimiser": Canary(tmp_path / "ran")}, file)
    hash_state(run / "checkpoints/step_000007")
    with pytest.raises(CheckpointError, match=r"training\.pt: not readable"):
        checkpoint.load_state(run)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", DUMPS)
def test_the_canary_sings_when_it_is_unpickled(tmp_path, protocol):
    """Without this the tests above would pass with a dead canary."""
    with (tmp_path / "model.pt").open("wb") as file:
        DUMPS[protocol](Canary(tmp_path / "ran"), file)
    if protocol == "pickle":
        pickle.loads((tmp_path / "model.pt").read_bytes())
    else:
        torch.load(tmp_path / "model.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_weights_are_refused(save, share):
    path = save(7) / "checkpoints/step_000007" / WEIGHTS
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="not readable as safetensors"):
        checkpoint.load(path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_training_state_is_refused(save, share):
    run = save(7, state={"counters": {"step": 7}})
    path = run / "checkpoints/step_000007/training.pt"
    assert zipfile.is_zipfile(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"training.pt: damaged: its SHA-256"):
        checkpoint.load_state(run)
    hash_state(path.parent)
    with pytest.raises(CheckpointError, match=r"training.pt: not readable"):
        checkpoint.load_state(run)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "no fewvox description"),
        ({"format": "pt"}, "no fewvox description"),
        ({"fewvox": "not json"}, "not readable as JSON"),
        ({"fewvox": "[" * 200_000}, "not readable as JSON"),
        ({"fewvox": "[]"}, "CheckpointInfo|keys here"),
        ({"fewvox": '{"foo": 1}'}, "'architecture' is missing.*unknown key 'foo'"),
    ],
)
def test_safetensors_of_another_program_are_refused_with_what_was_found(tmp_path, metadata, message):
    save_file({"weight": torch.zeros(2)}, str(tmp_path / WEIGHTS), metadata)
    with pytest.raises(UserError, match=message):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("version", [3, 0, 1.0, "2", None, []])
def test_a_checkpoint_of_an_unknown_version_is_refused(save, version):
    path = save(7) / "checkpoints/step_000007" / WEIGHTS
    rewrite(path, description={**described(path), "version": version})
    with pytest.raises(UserError, match=r"has format version .*reads the versions 1, 2"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("output.bias"), r"Missing key.*output\.bias"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "Unexpected key.*more"),
        (lambda tensors: tensors.update({"output.bias": torch.zeros(5)}), r"size mismatch.*output\.bias"),
    ],
)
def test_weights_of_another_architecture_are_not_half_loaded(save, change, message):
    path = save(7) / "checkpoints/step_000007" / WEIGHTS
    tensors = load_file(path)
    change(tensors)
    rewrite(path, tensors)
    with pytest.raises(CheckpointError, match=f"not those of the network it describes.*{message}"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": [2, 200_000]}, r"features.*less than or equal to 4096"),
        ({"features": [1] * 3000, "kernels": [[3, 3, 3]] * 3000}, "at most 12 items"),
        ({"kernels": [[3, 3, 3], [3, 3, 3001]]}, "kernels.*less than or equal to 32"),
        ({"features": [2, 4096]}, "not those of the network"),
    ],
)
def test_a_network_that_is_not_in_the_file_is_not_built(save, change, message):
    path = save(7) / "checkpoints/step_000007" / WEIGHTS
    description = described(path)
    description["architecture"]["topology"] |= change
    rewrite(path, description=description)
    with pytest.raises(UserError, match=message):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d["probe"].update(shape=[1, 4096, 4096, 4096]),
            r"a probe of shape \(1, 4096, 4096, 4096\)",
        ),
        (lambda d: d["probe"].update(shape=[1, 5, 5, 5]), r"a probe of shape .* has \(1, 4, 4, 4\)"),
        (lambda d: d["probe"]["blocks"]["output"]["values"].pop(), "at least 16 items"),
        (lambda d: d["inputs"]["channels"][0]["quantiles"].pop(), "at least 7 items"),
        (lambda d: d["inputs"].update(channels=[]), "inputs of 0 channels"),
        (lambda d: d["inputs"]["responses"].pop(), "that 1 features answered"),
        (lambda d: None, None),
    ],
)
def test_what_it_tells_of_another_network_is_refused(tmp_path, make_info, change, message):
    info = make_info()
    network = build(info.architecture, 0)
    info = replace(
        info, probe=probed(network, 1), inputs=input_statistics(network, torch.rand(2, 1, 4, 8, 8))
    )
    checkpoint.save(tmp_path / "run", network, info, {}, None)
    path = tmp_path / "run/checkpoints/step_000007" / WEIGHTS
    description = described(path)
    change(description)
    rewrite(path, description=description)
    if message is None:
        assert checkpoint.load(path).info == info
        return
    with pytest.raises(UserError, match=message):
        checkpoint.load(path)


def test_a_probe_too_large_to_be_computed_is_refused(tmp_path, make_info, monkeypatch):
    info = make_info()
    network = build(info.architecture, 0)
    monkeypatch.setattr(checkpoint_reading, "_LARGEST_PROBE", 10)
    with pytest.raises(CheckpointError, match="a probe is small"):
        checkpoint.save(tmp_path, network, replace(info, probe=probed(network, 1)), {}, None)


@pytest.mark.parametrize("left", ["file", "folder"])
def test_a_path_without_a_checkpoint_is_told(tmp_path, left):
    path = tmp_path / "run"
    if left == "folder":
        path.mkdir()
    message = "no checkpoint in it" if left == "folder" else "no such file or folder"
    with pytest.raises(CheckpointError, match=f"run: {message}"):
        checkpoint.load(path)


def test_a_save_that_fails_leaves_the_checkpoints_as_they_were(save, make_info, monkeypatch):
    run = save(1, 0.5)

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        save(2, 0.9)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["index.json", "step_000001"]
    assert checkpoint.load(run).info.steps == 1


def test_what_a_killed_save_left_does_no_harm(save, make_info):
    run = save(1, 0.5)
    index = (run / "checkpoints/index.json").read_bytes()
    save(2, 0.9, seed=2)
    # as if killed before the index was replaced: step 2 is there, but nobody points to it
    (run / "checkpoints/index.json").write_bytes(index)
    gone = 2**22 + 1  # beyond the largest process number
    (run / f"checkpoints/.partial-{gone}-abcdef.step_000009").mkdir()
    (run / f"checkpoints/.partial-{gone}-abcdef.index.json").touch()
    assert checkpoint.load(run).info.steps == 1
    assert checkpoint.load(run, "last").info.steps == 1

    save(2, 0.7, seed=3)
    names = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert names == ["index.json", "step_000001", "step_000002"]
    expected = build(make_info().architecture, 3).state_dict()
    assert torch.equal(checkpoint.load(run).tensors["output.weight"], expected["output.weight"])


def test_an_old_checkpoint_goes_only_after_the_index_points_to_the_new(save, monkeypatch):
    save(1)
    run = save(2)

    remove = shutil.rmtree

    def fail(path, **options):
        if path.name == "step_000001":
            assert checkpoint.load(run, "last").info.steps == 3
            raise KeyboardInterrupt
        remove(path, **options)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", fail)
    with pytest.raises(KeyboardInterrupt):
        save(3)
    assert step_folders(run) == ["step_000001", "step_000002", "step_000003"]


@pytest.mark.parametrize(
    "error", [OSError("No space left"), RuntimeError("writing failed"), SafetensorError("I/O error")]
)
def test_a_save_without_space_is_told_and_leaves_the_checkpoint_before(save, monkeypatch, error):
    run = save(1, 0.5)

    def fail(*args):
        raise error

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(
        CheckpointError, match=rf"cannot be written \({error}\).*MiB free on the disk.*takes up to"
    ):
        save(2, 0.9)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["index.json", "step_000001"]


# verified


@hypothesis.settings(max_examples=150)
@hypothesis.given(share=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_no_changed_byte_of_the_weights_file_passes(share, change, tmp_path_factory, version_2):
    content = bytearray(version_2)
    content[int(share * len(content))] ^= change
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    path.write_bytes(bytes(content))
    with pytest.raises(UserError):
        checkpoint.load(path)


@pytest.fixture(scope="module")
def version_2(tmp_path_factory):
    """The bytes of a small weights file."""
    folder = tmp_path_factory.mktemp("version_2")
    info = checkpoint.load(Path(__file__).parent / "fixtures/version_1" / WEIGHTS).info
    checkpoint.save(folder, build(info.architecture, 0), info, {}, None)
    return next(folder.rglob(WEIGHTS)).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_the_digest_knows_names_types_shapes_values_and_description(dtype):
    a, b = torch.ones(2, 3).to(dtype), torch.zeros(2, 3).to(dtype)
    one = torch.ones(()).to(dtype)
    first = digest("x", {"a": a, "b": b, "one": one})
    assert digest("x", {"one": one, "b": b.clone(), "a": a.T.contiguous().T}) == first
    others = [
        digest("y", {"a": a, "b": b, "one": one}),
        digest("x", {"a": b, "b": a, "one": one}),
        digest("x", {"a": a.reshape(3, 2), "b": b, "one": one}),
        digest("x", {"a": a, "b": b.to(torch.int8), "one": one}),
        digest("x", {"a": a, "b": b, "one": one[None]}),
        digest("x", {"a": a, "b": b}),
    ]
    assert len({first, *others}) == 7


def test_swapped_names_are_detected(save):
    path = save(7) / "checkpoints/step_000007" / WEIGHTS
    tensors = load_file(path)
    a, b = "encoder.0.0.1.weight", "encoder.0.1.1.weight"
    tensors[a], tensors[b] = tensors[b], tensors[a] + 1
    with safe_open(str(path), framework="pt") as opened:
        metadata = opened.metadata()
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match="damaged: its SHA-256"):
        checkpoint.load(path)
    del metadata["sha256"]
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match="no SHA-256"):
        checkpoint.load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_read_nor_written(save, make_info, value):
    run = save(7)
    path = run / "checkpoints/step_000007" / WEIGHTS
    tensors = load_file(path)
    tensors["output.bias"][1] = value
    rewrite(path, tensors)
    with pytest.raises(CheckpointError, match=r"1 of the 3 values of output\.bias are not finite"):
        checkpoint.load(path)
    network = build(make_info().architecture, 0)
    network.load_state_dict(tensors)
    with pytest.raises(CheckpointError, match=r"step_000008: 1 of the 3 values of output\.bias"):
        checkpoint.save(run, network, make_info(steps=8), {}, None)
    assert step_folders(run) == ["step_000007"]


@pytest.mark.parametrize("file", [WEIGHTS, "training.pt"])
def test_what_is_written_wrong_never_becomes_a_checkpoint(save, monkeypatch, file):
    """A disk that drops bytes and says nothing."""
    run, written = save(1), Path.write_bytes

    def save_and_flip(tensors, path, metadata):
        save_file(tensors, path, metadata)
        flip(Path(path))

    def write_and_flip(path, content):
        written(path, content)
        monkeypatch.undo()
        flip(path)

    if file == WEIGHTS:
        monkeypatch.setattr(checkpoint, "save_file", save_and_flip)
    else:
        monkeypatch.setattr(Path, "write_bytes", write_and_flip)
    with pytest.raises(CheckpointError, match=rf"{file}: damaged"):
        save(2)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["index.json", "step_000001"]


def test_the_hash_beside_the_state_is_what_sha256sum_checks(save):
    folder = save(7) / "checkpoints/step_000007"
    subprocess.run(["sha256sum", "--check", "--quiet", "training.pt.sha256"], cwd=folder, check=True)


# falling back

DAMAGES = {
    "truncated weights": lambda folder: truncate(folder / WEIGHTS),
    "flipped weights": lambda folder: flip(folder / WEIGHTS),
    "missing weights": lambda folder: (folder / WEIGHTS).unlink(),
    "missing folder": lambda folder: shutil.rmtree(folder),
}
STATE_DAMAGES = {
    "flipped state": lambda folder: flip(folder / "training.pt"),
    "missing state": lambda folder: (folder / "training.pt").unlink(),
    "missing hash": lambda folder: (folder / "training.pt.sha256").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_last_one_falls_back_to_the_one_before_saying_so(save, damage, caplog):
    save(1, state={"step": 1})
    run = save(2, state={"step": 2})
    DAMAGES[damage](run / "checkpoints/step_000002")
    for read in (checkpoint.load, lambda run: checkpoint.load(run, "last"), checkpoint.load_training):
        found = read(run)[0] if read is checkpoint.load_training else read(run)
        assert found.info.steps == 1
        assert len(found.notes) == 1
        for told in (found.notes[0], caplog.text):
            assert "step_000001 is taken in place of a newer checkpoint" in told
            assert "step_000002" in told
        caplog.clear()
    assert checkpoint.load_state(run) == {"step": 1}


@pytest.mark.parametrize("damage", STATE_DAMAGES)
def test_weights_and_state_are_of_one_step(save, damage, caplog):
    save(1, state={"step": 1})
    run = save(2, state={"step": 2})
    STATE_DAMAGES[damage](run / "checkpoints/step_000002")
    found, state = checkpoint.load_training(run)
    assert (found.info.steps, state) == (1, {"step": 1})
    assert "step_000001 is taken in place of a newer checkpoint" in caplog.text
    # nobody needs the state to predict
    assert checkpoint.load(run, "last").info.steps == 2


def test_a_damaged_best_one_is_an_error_that_names_the_whole_ones(save):
    for steps, score in [(1, 0.9), (2, 0.5), (3, 0.4)]:
        run = save(steps, score)
    flip(run / "checkpoints/step_000001" / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"step_000001.*damaged.*step_000002, .*step_000003\)"):
        checkpoint.load(run)
    assert checkpoint.load(run, "last").notes == ()


def test_when_none_is_whole_each_is_told_with_its_reason(save):
    save(1)
    run = save(2)
    flip(run / "checkpoints/step_000001" / WEIGHTS)
    shutil.rmtree(run / "checkpoints/step_000002")
    for read in (checkpoint.load, checkpoint.load_training):
        with pytest.raises(CheckpointError, match="no checkpoint in it is whole") as told:
            read(run)
        assert "step_000002/weights.safetensors: not readable" in str(told.value)
        assert "step_000001/weights.safetensors: damaged" in str(told.value)


@pytest.mark.parametrize(
    "index",
    [None, "", "{}", "[]", '{"last": "step_0', '{"last": "../../x"}', '{"last": "step_000003", "best": 1}'],
)
def test_an_index_is_found_again_from_the_checkpoints(save, index, caplog):
    for steps, score in [(1, 0.9), (2, 0.5), (3, None)]:
        run = save(steps, score)
    path = run / "checkpoints/index.json"
    before = json.loads(path.read_text())
    path.unlink() if index is None else path.write_text(index)
    assert checkpoint.read_index(run) == before
    assert "step_000003 is the last and step_000001 the best" in caplog.text
    assert checkpoint.load(run).info.steps == 1
    flip(run / "checkpoints/step_000003" / WEIGHTS)
    assert checkpoint.read_index(run)["last"] == "step_000002"


def test_a_lost_index_over_damaged_checkpoints_does_not_look_like_a_new_run(save):
    run = save(1)
    flip(run / "checkpoints/step_000001" / WEIGHTS)
    (run / "checkpoints/index.json").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read_index(run)


def test_a_damaged_one_is_replaced_when_its_step_is_reached_again(save):
    save(1, 0.5, state={"step": 1})
    run = save(2, 0.9, state={"step": 2}, seed=2)
    expected = checkpoint.load(run).tensors
    flip(run / "checkpoints/step_000002" / WEIGHTS)
    assert checkpoint.load_training(run)[0].info.steps == 1
    run = save(2, 0.8, state={"step": 2}, seed=2)
    found = checkpoint.load(run)
    assert found.notes == ()
    assert found.info.steps == 2
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.items())
    # the score is that of the new one, though it is lower
    assert checkpoint.read_index(run) == {"last": "step_000002", "best": "step_000002", "best_score": 0.8}
