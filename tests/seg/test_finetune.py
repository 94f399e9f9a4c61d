"""Training on labels, from the store to the finished run."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fewvox.data.augment.chain import AugmentConfig, preset
from fewvox.data.augment.intensity import Gamma
from fewvox.data.errors import UserError
from fewvox.data.loader import PatchConfig
from fewvox.data.plan import make_plan as plan_for
from fewvox.data.prepare import prepare
from fewvox.data.scan import scan
from fewvox.data.settings import load_mapping, read_yaml
from fewvox.data.splits import Split, split
from fewvox.data.store import Store
from fewvox.seg import checkpoint
from fewvox.seg.engine.optimisers import SHORT_TRAINING, OptimiserConfig, resolved
from fewvox.seg.engine.schedules import ScheduleConfig
from fewvox.seg.engine.tracking import read_metrics
from fewvox.seg.few_labels import steps_for
from fewvox.seg.finetune import (
    PRETRAINED_SCHEDULE,
    FinetuneConfig,
    PatchSampler,
    finetune,
    resolved_config,
)
from fewvox.seg.keeping import KeepConfig
from fewvox.seg.losses import LossConfig
from fewvox.seg.networks.registry import build
from fewvox.seg.run import RunError
from fewvox.seg.source import source_of
from fewvox.seg.training import flip_probability, planned
from fewvox.seg.validation import PatchValidator

TRAIN, VALIDATION, TEST = ("c00", "c01", "c02"), ("c03",), ("c04",)
SPLIT = Split(train=TRAIN, validation=(), test=TEST)
CONFIG = FinetuneConfig(steps=3, patch=(8, 16, 8), width=4, batch=2, device="cpu")


@pytest.fixture(scope="module")
def finished(tiny_store, tmp_path_factory):
    """A run of a few steps with validation, and what the user was told."""
    told = []
    made = finetune(
        tiny_store,
        Split(train=TRAIN, validation=VALIDATION, test=TEST),
        tmp_path_factory.mktemp("finetune") / "run",
        CONFIG,
        announce=told.append,
    )
    return made, told


def test_a_run_has_all_its_files(finished):
    made, told = finished
    names = {path.name for path in made.path.iterdir()}
    assert names == {
        "config.yaml", "plan.yaml", "split.json", "environment.json", "metrics.jsonl", "tensorboard",
        "checkpoints", "pictures", "postprocess.yaml", "README.md"
    }  # fmt: skip
    assert list((made.path / "tensorboard").iterdir())
    assert "estimate: " in told[0]
    assert "parameters" in told[0]
    assert set(made.scores) == {"score", "smoothed_score", "dice/1", "dice/2"}


def test_the_configuration_in_a_run_has_nothing_left_open(finished):
    text = (finished[0].path / "config.yaml").read_text()
    # no further checkpoint is to stay, weights are not averaged, nothing ends the training early, no
    # patches are looked at between validations, and whether memory is kept is tried at each start
    for unused in ("keep_every", "average", "early_stop", "validate_patches_every", "keep_memory"):
        text = text.replace(f"{unused}: null", "")
    assert "null" not in text
    assert "auto" not in text
    values = load_mapping(finished[0].path / "config.yaml")
    assert values["optimizer"]["name"] == "adamw"
    assert (values["patch"], values["width"], values["batch"]) == ([8, 16, 8], 4, 2)
    assert values["validate_every"] == 50
    assert read_yaml(finished[0].path / "config.yaml", FinetuneConfig).device == "cpu"


def test_what_the_result_is_chosen_by_is_told_before_and_after(tiny_store, finished, tmp_path):
    made, told = finished
    assert told[-1] == "chosen: best of validation on 1 case"
    assert "- Chosen: best of validation on 1 case.\n" in (made.path / "README.md").read_text()
    told = []
    last = finetune(tiny_store, SPLIT, tmp_path / "run", replace(CONFIG, steps=1), announce=told.append)
    assert told[-1] == "chosen: last weights after 1 steps, no validation: 3 labels are fewer than 8"
    assert told[-1].removeprefix("chosen: ") in (last.path / "README.md").read_text()
    for path, step in ((made.path, 3), (last.path, 1)):
        assert [picture.name for picture in (path / "pictures").iterdir()] == [f"step_{step}.png"]


def test_no_label_is_opened_that_the_run_was_not_given(tiny_store, tmp_path, monkeypatch):
    """Neither to train, validate or draw, nor to compare images with the pretraining's, nor for the card."""
    opened = set()
    for name in ("label", "foreground"):
        read = getattr(Store, name)
        monkeypatch.setattr(
            Store, name, lambda store, case, read=read: (opened.add(case), read(store, case))[1]
        )
    for labelled, fold in ((2, None), (2, (1, 2)), (8, None)):
        chosen = split(tiny_store.annotated, test=2, labelled=labelled, seed=0, fold=fold)
        every = 1 if chosen.validation else None
        config = replace(CONFIG, steps=2, validate_patches_every=every, deep_supervision=True)
        opened.clear()
        finetune(tiny_store, chosen, tmp_path / f"{labelled}{fold}", config)
        assert {*chosen.validation} < opened <= {*chosen.train, *chosen.validation}


def test_post_processing_is_that_of_the_weights_that_are_there(tiny_store, tmp_path, monkeypatch):
    """A training that goes on takes back what was chosen before, and is killed before it chooses anew."""
    split, out = Split(train=TRAIN, validation=VALIDATION, test=TEST), tmp_path / "run"
    config = replace(CONFIG, steps=1, pictures=False, deep_supervision=False)
    finetune(tiny_store, split, out, config)
    assert (out / "postprocess.yaml").exists()
    monkeypatch.setattr(
        "fewvox.seg.finetune.write_choice", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        finetune(tiny_store, split, out, replace(config, steps=2), extend=True)
    assert checkpoint.load(out, "last").info.steps == 2
    assert not (out / "postprocess.yaml").exists()


def test_scores_that_are_not_there_are_not_gone_by(tiny_store, tmp_path):
    config = replace(CONFIG, validate_patches_every=1)
    with pytest.raises(UserError, match=r"validate_patches_every=1.*no validation score"):
        finetune(tiny_store, Split(train=TRAIN, validation=(), test=()), tmp_path / "run", config)


def test_pictures_can_be_left_out(tiny_store, tmp_path):
    for name, validation in (("with", VALIDATION), ("without", ())):
        config = replace(CONFIG, steps=1, pictures=False)
        run = finetune(tiny_store, replace(SPLIT, validation=validation), tmp_path / name, config).path
        assert not (run / "pictures").exists()


def test_patches_are_looked_at_between_validations_and_choose_nothing(tiny_store, tmp_path, monkeypatch):
    # were they to choose, the first weights would be the best
    falling = iter((0.9, 0.8, 0.7))
    monkeypatch.setattr(PatchValidator, "__call__", lambda _: {"score": next(falling), "dice": 0.5})
    config = replace(CONFIG, steps=6, validate_every=6, validate_patches_every=2, checkpoint_every=2)
    made = finetune(tiny_store, replace(SPLIT, validation=VALIDATION), tmp_path / "run", config)
    lines = [line for line in read_metrics(made.path) if "patches/dice" in line]
    assert [(line["step"], line["patches/dice"]) for line in lines] == [(1, 0.5), (3, 0.5), (5, 0.5)]
    assert checkpoint.load(made.path, "best").info.steps == 6


def test_the_loss_is_the_one_that_was_chosen(tiny_store, tmp_path):
    config = replace(CONFIG, steps=1, loss=LossConfig(name="tversky_ce", weights=(2.0, 1.0)))
    (line,) = read_metrics(finetune(tiny_store, SPLIT, tmp_path / "run", config).path)
    assert line["loss"] == pytest.approx(2 * line["loss/tversky"] + line["loss/cross_entropy"])


@pytest.fixture
def deep_store(tiny_store):
    """The same store with a plan of three poolings, so that a level between the first and last has a head."""
    store = copy.copy(tiny_store)
    training = replace(store.plan.training, strides=((2, 2, 2),) * 3, patch=(8, 16, 8))
    store.plan = replace(store.plan, training=training)
    return store


def test_a_training_with_deep_supervision_is_continued_bit_for_bit(deep_store, tmp_path):
    config = replace(CONFIG, steps=4, checkpoint_every=1, deep_supervision=True)
    whole = finetune(deep_store, SPLIT, tmp_path / "whole", config).path
    with pytest.raises(Stopped):
        finetune(deep_store, SPLIT, tmp_path / "killed", config, observer=StopAt(2))
    killed = finetune(deep_store, SPLIT, tmp_path / "killed", config, resume=True).path
    expected, found = (checkpoint.load_training(path) for path in (whole, killed))
    assert all(torch.equal(found[0].tensors[name], tensor) for name, tensor in expected[0].tensors.items())
    assert all(torch.equal(found[1]["task"][name], tensor) for name, tensor in expected[1]["task"].items())
    assert set(expected[1]["task"]) == {"heads.heads.0.weight", "heads.heads.0.bias"}
    assert read_metrics(killed) == read_metrics(whole)
    # what predicts is the network alone, which began as it does without
    assert expected[0].tensors.keys() == build(expected[0].info.architecture).state_dict().keys()
    plain = finetune(deep_store, SPLIT, tmp_path / "plain", replace(config, steps=1, deep_supervision=False))
    first = read_metrics(plain.path)[0]
    assert read_metrics(whole)[0]["loss/dice"] == first["loss/dice"]
    assert read_metrics(whole)[0]["loss"] != first["loss"]


def test_the_checkpoint_knows_the_data_by_hash_alone(finished, tiny_store):
    path = finished[0].path
    info = checkpoint.load(path).info
    assert info.trained_on == tuple(tiny_store.cases[case].content_hash for case in TRAIN)
    assert info.validated_on == tuple(tiny_store.cases[case].content_hash for case in VALIDATION)
    assert (info.steps, info.seed, info.method) == (3, 0, "supervised")
    assert info.scores == finished[0].scores
    assert info.plan.training.patch == (8, 16, 8)
    weights = (path / "checkpoints/step_000003/weights.safetensors").read_bytes()
    for name in (*TRAIN, *VALIDATION):
        assert f'"{name}'.encode() not in weights
        assert name not in (path / "README.md").read_text()


def test_metrics_hold_a_line_for_each_step_and_the_validation(finished):
    lines = read_metrics(finished[0].path)
    assert [line["step"] for line in lines] == [0, 1, 2, 2]
    for line in lines[:3]:
        assert line["loss"] == pytest.approx(line["loss/dice"] + line["loss/cross_entropy"])
        assert line["lr"] > 0
    assert lines[3]["validation/score"] == finished[0].scores["score"]


def test_validation_and_test_cases_are_never_trained_on(tiny_store, tmp_path, monkeypatch):
    seen = set()
    batch = PatchSampler.batch

    def note(self, step):
        made = batch(self, step)
        seen.update(made.cases)
        return made

    monkeypatch.setattr(PatchSampler, "batch", note)
    finetune(tiny_store, replace(SPLIT, validation=VALIDATION), tmp_path / "run", CONFIG)
    assert seen == set(TRAIN)


def test_the_loss_decreases_and_the_classes_are_found(tiny_store, tmp_path):
    # a whole volume a patch: only beside the other can a ball be told to be the brighter
    # in so few steps, half of the seeds find but one of the two
    config = replace(CONFIG, steps=60, seed=2, patch=None, optimizer=OptimiserConfig(lr=0.02))
    made = finetune(tiny_store, replace(SPLIT, validation=VALIDATION), tmp_path / "run", config)
    losses = [line["loss"] for line in read_metrics(made.path) if "loss" in line]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) / 2
    assert made.scores["score"] > 0.8


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny_store, tmp_path):
    configs = {"a": CONFIG, "b": CONFIG, "other": replace(CONFIG, seed=1)}
    for index, (name, config) in enumerate(configs.items()):
        torch.manual_seed(index)
        finetune(tiny_store, SPLIT, tmp_path / name, replace(config, steps=2))
    a, b, other = (checkpoint.load(tmp_path / name).tensors for name in configs)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["output.weight"], other["output.weight"])


def test_an_existing_run_is_not_trained_over(tiny_store, finished):
    with pytest.raises(RunError, match="not empty"):
        finetune(tiny_store, SPLIT, finished[0].path, CONFIG)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 6}, "steps was 3, is 6"),
        ({"width": 8}, "width was 4, is 8"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"patches": PatchConfig(foreground_share=1.0)}, "patches was .*foreground_share"),
    ],
)
def test_a_run_is_not_continued_with_other_settings(tiny_store, finished, changes, message):
    split = Split(train=TRAIN, validation=VALIDATION, test=TEST)
    with pytest.raises(RunError, match=message):
        finetune(tiny_store, split, finished[0].path, replace(CONFIG, **changes), resume=True)


def test_a_run_is_not_continued_with_other_cases(tiny_store, finished):
    split = Split(train=VALIDATION, validation=TRAIN, test=TEST)
    with pytest.raises(RunError, match="the cases are others"):
        finetune(tiny_store, split, finished[0].path, CONFIG, resume=True)


def test_a_run_is_not_continued_on_changed_voxels(tiny_store, finished):
    """The cases keep their names and the plan its hash; only the voxels are others."""
    changed = copy.copy(tiny_store)
    changed.cases = {k: replace(c, content_hash="0" * 64) for k, c in tiny_store.cases.items()}
    split = Split(train=TRAIN, validation=VALIDATION, test=TEST)
    with pytest.raises(RunError, match="voxels of the training"):
        finetune(changed, split, finished[0].path, CONFIG, resume=True)


def test_a_run_is_not_continued_on_another_data_set(tmp_path, save_nifti, nifti_folder, finished):
    folder = nifti_folder(tmp_path / "source", 5, spacing=(1.0, 1.0, 1.0))
    scanned = scan(folder)
    other = prepare(scanned, plan_for(scanned.fingerprint, budget="cpu"), tmp_path / "store")
    split = Split(train=TRAIN, validation=VALIDATION, test=TEST)
    with pytest.raises(RunError, match="preprocessing or labels of the store"):
        finetune(other, split, finished[0].path, CONFIG, resume=True)


def test_pretrained_weights_are_taken_and_the_transfer_is_told_and_kept(tiny_store, finished, tmp_path):
    told = []
    finetune(
        tiny_store,
        SPLIT,
        tmp_path / "run",
        replace(CONFIG, steps=1, seed=1),
        pretrained=source_of(checkpoint.load(finished[0].path)),
        announce=told.append,
    )
    report = json.loads((tmp_path / "run/transfer.json").read_text())
    assert report["source"] == "supervised, 3 steps"
    assert {tensor["state"] for tensor in report["tensors"]} == {"loaded"}
    assert told[0].startswith("weights from supervised, 3 steps\n  encoder")
    before = checkpoint.load(finished[0].path).tensors["output.weight"]
    after = checkpoint.load(tmp_path / "run").tensors["output.weight"]
    scratch = finetune(tiny_store, SPLIT, tmp_path / "scratch", replace(CONFIG, steps=1, seed=1))
    fresh = checkpoint.load(scratch.path).tensors["output.weight"]
    # one step at the peak rate moves a weight by about 3e-3
    assert (after - before).abs().max() < 0.02 < (fresh - before).abs().max()


def test_pretrained_weights_of_another_width_are_taken_with_a_warning(tiny_store, finished, tmp_path):
    told = []
    finetune(
        tiny_store,
        SPLIT,
        tmp_path / "run",
        replace(CONFIG, steps=1, width=6),
        pretrained=source_of(checkpoint.load(finished[0].path)),
        announce=told.append,
    )
    assert "warning: more features here than in the checkpoint in encoder.0-" in told[0]


@pytest.mark.parametrize(
    ("train", "message"), [(("zzz",), "zzz: no such case"), (("c03",), "c03: it has no label")]
)
def test_training_cases_must_be_labelled_cases_of_the_store(
    tmp_path, nifti_folder, tiny_store, train, message
):
    scanned = scan(nifti_folder(tmp_path / "source", 4, labelled=2))
    store = prepare(scanned, plan_for(scanned.fingerprint, budget="cpu"), tmp_path / "store")
    with pytest.raises(UserError, match=message):
        finetune(store, Split(train=train, validation=(), test=()), tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists()


def test_training_labels_without_foreground_are_refused(tmp_path, nifti_folder, save_nifti):
    folder = nifti_folder(tmp_path / "source", 3)
    save_nifti(folder / "labels/c00.nii.gz", np.zeros((12, 16, 14), np.uint8))
    scanned = scan(folder)
    store = prepare(scanned, plan_for(scanned.fingerprint, budget="cpu"), tmp_path / "store")
    with pytest.raises(UserError, match="no training label has any foreground"):
        finetune(store, Split(train=("c00",), validation=(), test=()), tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists()


def test_a_patch_that_does_not_fit_the_strides_is_refused(tiny_store):
    with pytest.raises(UserError, match=r"multiple of \(\d, \d, \d\)"):
        planned(tiny_store.plan, replace(CONFIG, patch=(8, 15, 8)))


def test_patch_width_and_batch_are_the_plan_s_unless_chosen(tiny_store):
    own = tiny_store.plan
    assert planned(own, FinetuneConfig()) == own
    chosen = planned(own, CONFIG)
    assert (chosen.training.patch, chosen.training.width, chosen.training.batch) == ((8, 16, 8), 4, 2)
    assert chosen.training.strides == own.training.strides
    assert chosen.store_hash == own.store_hash


@pytest.mark.parametrize(
    ("orientation", "steps", "expected"),
    [
        ("RAS", SHORT_TRAINING - 1, 0.0),
        ("RAS", SHORT_TRAINING, 0.5),
        ("stored", 100, 0.5),
    ],
)
def test_flips_are_for_volumes_without_orientation_and_for_long_trainings(
    make_plan, orientation, steps, expected
):
    plan = make_plan(orientation=orientation)
    assert flip_probability(plan, steps) == expected
    spatial = resolved_config(FinetuneConfig(steps=steps), plan, 4).patches.augment.spatial
    assert spatial is not None
    assert spatial.flip_probability == expected


def test_flips_that_the_user_chose_stay(make_plan):
    chosen = PatchConfig(augment=preset("nnunet", spatial={"flip_probability": 0.25}))
    found = resolved_config(FinetuneConfig(patches=chosen), make_plan(), 4).patches.augment.spatial
    assert found is not None
    assert found.flip_probability == 0.25


@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what happens without a GPU")
def test_a_gpu_that_is_not_there_is_told(tiny_store, tmp_path):
    with pytest.raises(UserError, match="torch sees no GPU"):
        finetune(tiny_store, SPLIT, tmp_path / "run", replace(CONFIG, device="cuda"))


def test_settings_built_in_python_are_checked_as_a_file_is(tiny_store, tmp_path):
    with pytest.raises(UserError, match="'steps' is 0"):
        finetune(tiny_store, SPLIT, tmp_path / "run", replace(CONFIG, steps=0))


@pytest.mark.parametrize(
    ("augment", "names"),
    [
        ("weak", ["brightness", "contrast", "gamma"]),
        (
            AugmentConfig(preset="weak", chain={"gamma": Gamma(probability=1)}),
            ["brightness", "contrast", "gamma"],
        ),
        (AugmentConfig(chain={"gamma": Gamma()}), ["gamma"]),
    ],
)
def test_what_a_run_says_of_its_augmentation_is_what_ran(tiny_store, tmp_path, monkeypatch, augment, names):
    ran, batch = [], PatchSampler.batch
    monkeypatch.setattr(
        PatchSampler, "batch", lambda self, step: (ran.append(self.config), batch(self, step))[1]
    )
    config = replace(CONFIG, steps=1, patches=PatchConfig(augment=augment))
    made = finetune(tiny_store, SPLIT, tmp_path / "run", config)
    assert read_yaml(made.path / "config.yaml", FinetuneConfig).patches == ran[0]
    assert list(ran[0].augment.chain) == names


def test_a_run_is_not_continued_on_changed_labels(tiny_store, finished):
    changed = copy.copy(tiny_store)
    changed.cases = {k: replace(c, label_hash="0" * 64) for k, c in tiny_store.cases.items()}
    split = Split(train=TRAIN, validation=VALIDATION, test=TEST)
    with pytest.raises(RunError, match="labels of the training"):
        finetune(changed, split, finished[0].path, CONFIG, resume=True)


def test_continuing_a_finished_run_gives_its_scores_again(tiny_store, finished):
    split = Split(train=TRAIN, validation=VALIDATION, test=TEST)
    assert finetune(tiny_store, split, finished[0].path, CONFIG, resume=True).scores == finished[0].scores


def test_weights_that_do_not_fit_leave_no_run_behind(tiny_store, finished, tmp_path):
    found = source_of(checkpoint.load(finished[0].path))
    renamed = replace(found, tensors={f"module.{name}": t for name, t in found.tensors.items()})
    with pytest.raises(UserError, match="too little of it fits"):
        finetune(tiny_store, SPLIT, tmp_path / "run", CONFIG, pretrained=renamed)
    assert not (tmp_path / "run").exists()


def test_a_pretrained_run_is_not_continued_without_its_weights(tiny_store, finished, tmp_path):
    """Before its first checkpoint it would have become a training from scratch in silence."""
    weights = source_of(checkpoint.load(finished[0].path))
    finetune(tiny_store, SPLIT, tmp_path / "run", CONFIG, pretrained=weights)
    with pytest.raises(RunError, match="pretrained weights are others, or were left out"):
        finetune(tiny_store, SPLIT, tmp_path / "run", CONFIG, resume=True)
    finetune(tiny_store, SPLIT, tmp_path / "run", CONFIG, pretrained=weights, resume=True)


def test_what_the_pretrained_weights_saw_is_never_a_test_case(tiny_store, finished, tmp_path):
    weights = source_of(checkpoint.load(finished[0].path))
    leak = Split(train=TEST, validation=(), test=TRAIN)
    with pytest.raises(UserError, match="trained on 3 of the test cases"):
        finetune(tiny_store, leak, tmp_path / "leak", CONFIG, pretrained=weights)
    made = finetune(tiny_store, SPLIT, tmp_path / "run", CONFIG, pretrained=weights)
    seen = {tiny_store.cases[case].content_hash for case in (*TRAIN, *VALIDATION)}
    assert set(checkpoint.load(made.path).info.inherited) == seen


def test_what_is_not_known_of_weights_stays_unknown_over_generations(tiny_store, finished, tmp_path):
    foreign = replace(source_of(checkpoint.load(finished[0].path)), seen=None, seen_all=False)
    weights, told = foreign, []
    for name, case in (("a", "c00"), ("b", "c01")):
        split = Split(train=(case,), validation=(), test=())
        made = finetune(tiny_store, split, tmp_path / name, CONFIG, pretrained=weights, announce=told.append)
        weights = source_of(checkpoint.load(made.path))
        assert not weights.seen_all
    assert set(weights.seen or ()) == {tiny_store.cases[case].content_hash for case in ("c00", "c01")}
    assert "\n".join(told).count("do not tell all that they were trained on") == 2
    leak = Split(train=("c02",), validation=(), test=("c00",))
    with pytest.raises(UserError, match="trained on 1 of the test cases"):
        finetune(tiny_store, leak, tmp_path / "leak", CONFIG, pretrained=weights)


def test_a_run_of_one_case_is_compared_with_its_data_set_as_the_data_set_was_measured(tiny_store, tmp_path):
    split = Split(train=("c00",), validation=(), test=TEST)
    made = finetune(tiny_store, split, tmp_path / "a", CONFIG)
    weights = source_of(checkpoint.load(made.path))
    finetune(tiny_store, split, tmp_path / "b", replace(CONFIG, steps=1), pretrained=weights)
    figures = json.loads((tmp_path / "b/transfer.json").read_text())["guard"]["figures"]
    assert figures["channel 0: distance of grey values"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"load": "encoder"}, "load: no pretrained weights"),
        ({"expected_share": 0.5}, "expected_share: no pretrained"),
        ({"accept_mismatch": True}, "accept_mismatch: no pretrained"),
        ({"accept_mismatch": True, "keep": KeepConfig(l2sp=1)}, "accept_mismatch, keep: no pretrained"),
    ],
)
def test_what_is_said_of_weights_that_are_not_given_is_refused(make_plan, changes, named):
    config = replace(CONFIG, **changes)
    with pytest.raises(UserError, match=named):
        resolved_config(config, make_plan(), 4)
    resolved_config(config, make_plan(), 4, pretrained=True)


@pytest.mark.parametrize(
    "changes", [{"schedule": ScheduleConfig(name="frozen")}, {"keep": KeepConfig(distillation=1)}]
)
def test_noise_is_neither_frozen_nor_a_teacher(tiny_store, finished, tmp_path, changes):
    config = replace(CONFIG, load="decoder", **changes)
    weights = source_of(checkpoint.load(finished[0].path))
    with pytest.raises(UserError, match=r"encoder\.0-\d did not arrive whole"):
        finetune(tiny_store, SPLIT, tmp_path / "run", config, pretrained=weights)
    assert not (tmp_path / "run").exists()


def test_from_scratch_an_encoder_can_be_frozen(tiny_store, tmp_path):
    config = replace(CONFIG, steps=1, schedule=ScheduleConfig(name="frozen"))
    assert finetune(tiny_store, SPLIT, tmp_path / "run", config).path.is_dir()


@pytest.mark.parametrize(
    ("split", "found"),
    [
        (Split(train=("c00",), validation=(), test=("gone",)), "gone: no such case"),
        (Split(train=("c00", "c00"), validation=(), test=()), "c00: it is listed twice"),
        (Split(train=("c00",), validation=("c00",), test=()), "c00: it is listed twice"),
    ],
)
def test_a_split_is_checked_against_the_store(tiny_store, tmp_path, split, found):
    with pytest.raises(UserError, match=found):
        finetune(tiny_store, split, tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists()


def test_a_subject_on_two_sides_of_a_split_is_refused(tiny_store, tmp_path):
    twins = copy.copy(tiny_store)
    twins.cases = {
        k: replace(c, subject="same") if k in ("c00", "c04") else c for k, c in tiny_store.cases.items()
    }
    with pytest.raises(UserError, match="subject same: it has cases on two sides"):
        finetune(twins, SPLIT, tmp_path / "run", CONFIG)


def test_a_width_beyond_the_plans_cap_lifts_the_cap(tiny_store):
    training = planned(tiny_store.plan, replace(CONFIG, width=400)).training
    assert (training.width, training.max_width) == (400, 400)


def test_a_patch_edited_in_the_plan_is_checked_too(tiny_store):
    plan = replace(tiny_store.plan, training=replace(tiny_store.plan.training, patch=(7, 13, 9)))
    with pytest.raises(UserError, match="Each axis is a multiple of"):
        planned(plan, replace(CONFIG, patch=None))


@pytest.mark.parametrize("labels", [1, 4, 64])
@pytest.mark.parametrize("pretrained", [True, False])
def test_what_is_not_set_follows_from_the_number_of_labels(tiny_store, labels, pretrained):
    open_ = replace(CONFIG, steps=None)
    found = resolved_config(open_, planned(tiny_store.plan, open_), labels, pretrained=pretrained)
    steps = found.steps
    assert steps == steps_for(labels)
    assert isinstance(steps, int)
    peak = resolved(OptimiserConfig(), steps).lr
    assert peak is not None
    assert found.optimizer.lr == peak
    assert found.schedule.name == (PRETRAINED_SCHEDULE if pretrained else "standard")
    own = 0.1 if pretrained else max(0.05, min(0.2, 25 / steps))
    assert found.schedule.warmup_share == pytest.approx(own)


def test_fewer_labels_are_trained_on_shorter_and_warmed_up_longer(tiny_store):
    open_ = replace(CONFIG, steps=None, optimizer=OptimiserConfig(name="sgd"))
    one, many = (resolved_config(open_, planned(tiny_store.plan, open_), n) for n in (1, 64))
    assert (one.steps, many.steps) == (250, 2000)
    assert (one.schedule.warmup_share or 0) > (many.schedule.warmup_share or 0)


def test_what_is_set_stands_whatever_the_number_of_labels(tiny_store):
    own = replace(
        CONFIG,
        steps=77,
        optimizer=OptimiserConfig(name="sgd", lr=0.3),
        schedule=ScheduleConfig(name="valley", warmup_share=0.01),
    )
    for labels in (1, 64):
        found = resolved_config(own, planned(tiny_store.plan, own), labels, pretrained=True)
        assert (found.steps, found.optimizer.lr) == (77, 0.3)
        assert (found.schedule.name, found.schedule.warmup_share) == ("valley", 0.01)


@pytest.mark.parametrize("keep", [KeepConfig(l2sp=0.1), KeepConfig(distillation=1.0)])
def test_nothing_is_kept_near_weights_that_are_not_there(tiny_store, tmp_path, keep):
    with pytest.raises(UserError, match="keep: no pretrained weights"):
        finetune(tiny_store, SPLIT, tmp_path / "run", replace(CONFIG, keep=keep))
    assert not (tmp_path / "run").exists()


class Stopped(Exception):
    """Ends a training as a kill would: nothing is saved."""


class StopAt:
    """Observes a training until so many steps are done."""

    def __init__(self, last: int) -> None:
        self.last = last

    def step(self, done: int, steps: int, loss: float) -> None:
        if done == self.last:
            raise Stopped

    def validated(self, done: int, scores: dict[str, float]) -> None: ...


@pytest.mark.parametrize("schedule", ["sawtooth", "progressive"])
def test_a_scheduled_training_that_keeps_near_its_start_is_continued_bit_for_bit(
    tiny_store, finished, tmp_path, schedule
):
    config = replace(
        CONFIG,
        steps=6,
        seed=1,
        checkpoint_every=1,
        schedule=ScheduleConfig(name=schedule, decoder_share=0.5, unfreeze_share=0.7),
        keep=KeepConfig(l2sp=0.1, distillation=1.0),
    )
    given = {"pretrained": source_of(checkpoint.load(finished[0].path))}
    whole = finetune(tiny_store, SPLIT, tmp_path / "whole", config, **given).path
    killed = tmp_path / "killed"
    # while the encoder, or what is far from the output, is frozen; and after
    for last, resume in ((2, False), (5, True)):
        with pytest.raises(Stopped):
            finetune(tiny_store, SPLIT, killed, config, **given, resume=resume, observer=StopAt(last))
    finetune(tiny_store, SPLIT, killed, config, **given, resume=True)
    expected, found = checkpoint.load(whole, "last"), checkpoint.load(killed, "last")
    assert found.info == expected.info
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items())
    lines = read_metrics(whole)
    assert read_metrics(killed) == lines
    assert {"loss/l2sp", "loss/distillation"} <= lines[-1].keys()
