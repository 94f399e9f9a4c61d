"""Pretraining, from the store to the run that a fine-tuning goes on from."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fewvox.data.augment.chain import AugmentConfig, preset
from fewvox.data.augment.intensity import Gamma
from fewvox.data.errors import UserError
from fewvox.data.plan import make_plan
from fewvox.data.prepare import prepare
from fewvox.data.scan import scan
from fewvox.data.settings import load_mapping, parse, plain, read_yaml, write_yaml
from fewvox.data.splits import Split
from fewvox.data.store import Store
from fewvox.seg import checkpoint
from fewvox.seg.engine.loop import TrainingError
from fewvox.seg.engine.optimisers import SHORT_TRAINING, OptimiserConfig
from fewvox.seg.engine.tracking import read_metrics
from fewvox.seg.finetune import FinetuneConfig, finetune
from fewvox.seg.networks.registry import NETWORKS, architecture_for, build
from fewvox.seg.run import RunError
from fewvox.seg.source import source_of
from fewvox.seg.training import planned
from fewvox.ssl.collapse import CollapseWatch
from fewvox.ssl.heads import feature_widths
from fewvox.ssl.methods.registry import METHODS, Registered, find_method
from fewvox.ssl.methods.triplet import TripletConfig
from fewvox.ssl.monitors import EmbeddingMeasures
from fewvox.ssl.pretrain import (
    Monitor,
    PretrainConfig,
    assemble,
    pretrain,
    resolved_config,
    scope_of,
    trained_method,
)
from fewvox.ssl.views import ViewConfig, ViewSampler

CASES, HELD_OUT = ("c00", "c01", "c02", "c03"), ("c08", "c09")
CONFIG = PretrainConfig(
    method="triplet", options={"hidden": 16, "dimension": 8}, steps=4, validate_every=4, checkpoint_every=2,
    patch=(8, 16, 8), width=4, batch=2, device="cpu", monitor_volumes=3
)  # fmt: skip
MAE = replace(CONFIG, method="mae", options={})
TUNING = FinetuneConfig(steps=1, patch=(8, 16, 8), width=4, batch=2, device="cpu", seed=1)


@pytest.fixture(scope="module")
def finished(tiny_store, tmp_path_factory):
    """A run of a few steps, and what the user was told."""
    told = []
    out = tmp_path_factory.mktemp("pretrain") / "run"
    made = pretrain(tiny_store, CASES, out, CONFIG, held_out=HELD_OUT, announce=told.append)
    return made, told


def sampler_of(store: Store, registered: Registered, cases=CASES) -> ViewSampler:
    """What a method of default settings is given."""
    spec = registered.method.views(registered.config())
    return ViewSampler(store, cases, (8, 16, 8), 2, spec, ViewConfig(), 0, 4)


def altered(store: Store, **fields) -> Store:
    """The same store with other facts of some cases, given as case={...}."""
    other = copy.copy(store)
    other.cases = {k: replace(c, **fields.get(k, {})) for k, c in store.cases.items()}
    return other


def test_a_run_that_version_1_began_is_refused_before_its_settings_are_compared(tiny_store, tmp_path):
    folder = tmp_path / "run/checkpoints/step_000003"
    folder.mkdir(parents=True)
    version_1 = Path(__file__).parents[1] / "seg/fixtures/version_1/weights.safetensors"
    shutil.copy(version_1, folder)
    (folder.parent / "index.json").write_text('{"last": "step_000003"}')
    (tmp_path / "run/config.yaml").write_text("steps: 3\n")
    with pytest.raises(UserError, match=r"a run of format version 1.*finetune --pretrained"):
        pretrain(tiny_store, CASES, tmp_path / "run", CONFIG, resume=True)


class Killed(Exception):
    """Ends a training as a kill would: nothing is saved."""


class KilledAt:
    """Observes a training until so many steps are done."""

    def __init__(self, step: int) -> None:
        self.last = step

    def step(self, done: int, steps: int, loss: float) -> None:
        if done == self.last:
            raise Killed

    def validated(self, done: int, scores: dict[str, float]) -> None: ...


def test_a_run_has_all_its_files(finished):
    made, told = finished
    names = {path.name for path in made.path.iterdir()}
    assert names == {
        "config.yaml", "plan.yaml", "split.json", "environment.json", "metrics.jsonl", "tensorboard",
        "checkpoints", "README.md", "collapse.json"
    }  # fmt: skip
    assert told[0] == "triplet on 4 volumes; its loss reaches encoder, decoder"
    assert told[1] == "0% of the views lies outside their volumes"
    assert told[2].startswith("estimate: ")
    assert set(made.scores) == {"spread", "effective_rank", "retrieval"}
    split = json.loads((made.path / "split.json").read_text())
    assert split == {"train": list(CASES), "validation": [], "test": list(HELD_OUT)}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_resolved_configuration_is_read_again_as_it_was(tiny_store, tmp_path, method):
    """Also where a method takes operations of the preset away."""
    config = replace(CONFIG, method=method, options={})
    resolved = resolved_config(config, planned(tiny_store.plan, config), find_method(method))
    write_yaml(tmp_path / "config.yaml", resolved, "")
    assert read_yaml(tmp_path / "config.yaml", PretrainConfig) == resolved
    assert resolved_config(resolved, planned(tiny_store.plan, config), find_method(method)) == resolved


def test_the_configuration_in_a_run_is_resolved_and_can_be_read_again(finished):
    values = load_mapping(finished[0].path / "config.yaml")
    assert values["optimizer"]["name"] == "adamw"
    assert (values["method"], values["seed"], values["device"]) == ("triplet", 0, "cpu")
    assert values["options"] == plain(TripletConfig(hidden=16, dimension=8))
    assert values["views"]["augment"]["spatial"]["flip_probability"] == 0
    assert values["views"]["boxes"]["global_boxes"]["output"] == [8, 16, 8]
    assert values["views"]["boxes"]["local_boxes"]["output"] == [8, 16, 8]
    again = parse(PretrainConfig, values, "config.yaml")
    assert plain(again) == values


@pytest.mark.parametrize("augment", ["weak", AugmentConfig(preset="weak", chain={"gamma": Gamma()})])
def test_what_a_run_says_of_its_augmentation_is_what_ran(tiny_store, tmp_path, monkeypatch, augment):
    ran, read = [], ViewSampler.read
    monkeypatch.setattr(
        ViewSampler, "read", lambda self, step: (ran.append(self.config), read(self, step))[1]
    )
    config = replace(CONFIG, steps=1, views=ViewConfig(augment=augment))
    made = pretrain(tiny_store, CASES, tmp_path / "run", config)
    assert read_yaml(made.path / "config.yaml", PretrainConfig).views == ran[0]
    assert list(ran[0].augment.chain) == ["brightness", "contrast", "gamma"]


def test_embeddings_are_watched_every_fifth_of_a_training_unless_told(tiny_store, tmp_path):
    config = replace(MAE, steps=10, validate_every=None, checkpoint_every=10)
    made = pretrain(tiny_store, CASES, tmp_path / "run", config)
    seen = [line["step"] for line in read_metrics(made.path) if "monitor/effective_rank" in line]
    assert seen == [1, 3, 5, 7, 9]


@pytest.mark.parametrize(
    ("config", "name", "lr"),
    [
        (CONFIG, "adamw", 1e-3),
        (MAE, "adamw", 3e-3),
        (replace(CONFIG, optimizer=OptimiserConfig(lr=5e-4)), "adamw", 5e-4),
        (replace(CONFIG, optimizer=OptimiserConfig(name="sgd")), "sgd", 1e-2),
        (replace(CONFIG, steps=SHORT_TRAINING), "sgd", 1e-2),
    ],
)
def test_a_method_s_own_learning_rate_is_for_adamw_unless_one_is_set(tiny_store, config, name, lr):
    plan = planned(tiny_store.plan, config)
    found = resolved_config(config, plan, find_method(config.method)).optimizer
    assert (found.name, found.lr) == (name, lr)


def test_the_checkpoint_tells_the_method_its_reach_and_exactly_its_volumes(finished, tiny_store):
    info = checkpoint.load(finished[0].path).info
    assert (info.method, info.steps, info.seed) == ("triplet", 4, 0)
    assert info.trained == ("encoder", "decoder")
    assert info.trained_on == tuple(tiny_store.cases[case].content_hash for case in CASES)
    assert (info.validated_on, info.inherited, info.labels_hash) == ((), (), None)
    assert info.scores == finished[0].scores
    assert info.plan.training.patch == (8, 16, 8)


def test_metrics_hold_a_line_for_each_step_and_the_measures(finished):
    lines = read_metrics(finished[0].path)
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 3]
    assert all({"loss", "lr", "gradient_norm", "active_triplets"} <= line.keys() for line in lines[:4])
    assert {k: v for k, v in lines[4].items() if k != "step"} == {
        f"monitor/{name}": value for name, value in finished[0].scores.items()
    }


def test_the_card_says_that_it_predicts_no_masks_and_names_no_file(finished):
    card = (finished[0].path / "README.md").read_text()
    assert "It predicts no masks: fine-tune it" in card
    assert "The loss reached: encoder, decoder." in card
    assert "4 training and 0 validation volumes" in card
    assert not any(case in card for case in (*CASES, *HELD_OUT))


def test_no_label_is_read_and_no_other_volume(tiny_store, tmp_path, monkeypatch):
    read = set()
    image = Store.image

    def note(self, case, level=0):
        read.add(case)
        return image(self, case, level)

    monkeypatch.setattr(Store, "image", note)
    monkeypatch.setattr(Store, "label", None)
    monkeypatch.setattr(Store, "foreground", None)
    pretrain(tiny_store, CASES, tmp_path / "run", CONFIG, held_out=HELD_OUT)
    assert read == set(CASES)


def test_volumes_without_any_label_are_enough(tmp_path, nifti_folder):
    scanned = scan(nifti_folder(tmp_path / "source", 2, labelled=0))
    store = prepare(scanned, make_plan(scanned.fingerprint, budget="cpu"), tmp_path / "store")
    assert store.plan.labels is None
    pretrain(store, tuple(store.cases), tmp_path / "run", MAE)
    assert "- Output: none." in (tmp_path / "run/README.md").read_text()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny_store, tmp_path, finished):
    configs = {"again": CONFIG, "other": replace(CONFIG, seed=1)}
    for index, (name, config) in enumerate(configs.items()):
        torch.manual_seed(index)
        pretrain(tiny_store, CASES, tmp_path / name, config, held_out=HELD_OUT)
    first, again, other = (
        checkpoint.load(path).tensors for path in (finished[0].path, tmp_path / "again", tmp_path / "other")
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["encoder.0.0.0.weight"], other["encoder.0.0.0.weight"])


@pytest.mark.parametrize("config", [CONFIG, MAE], ids=["triplet", "mae"])
def test_a_network_begins_as_a_fine_tuning_from_scratch_does(tiny_store, config):
    plan = planned(tiny_store.plan, config)
    registered = find_method(config.method)
    scope = scope_of(sampler_of(tiny_store, registered), plan, config)
    found = assemble(registered, config, scope).network.state_dict()
    expected = build(architecture_for(plan), config.seed).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    heads = [assemble(registered, replace(config, seed=seed), scope).head.state_dict() for seed in (0, 0, 1)]
    names = [name for name in heads[0] if name.endswith("weight") and heads[0][name].ndim > 1]
    assert names
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in names)
    assert not any(torch.equal(heads[0][name], heads[2][name]) for name in names)


def test_a_method_is_told_the_spacing_of_the_volumes(tiny_store):
    scope = scope_of(sampler_of(tiny_store, find_method("mae")), planned(tiny_store.plan, MAE), MAE)
    assert scope.spacing is not None
    assert scope.spacing == tiny_store.plan.preprocessing.spacing


def trained(store: Store, out: Path, method: str, network: str) -> checkpoint.Checkpoint:
    """What two steps with a method make of a network: every block of the parts that it trains is another."""
    config = replace(CONFIG, method=method, options={}, network=network, steps=2, monitor_volumes=2)
    made = checkpoint.load(pretrain(store, CASES, out, config).path)
    assert made.info.architecture == architecture_for(planned(store.plan, config), network)
    before, after = build(made.info.architecture, config.seed).state_dict(), made.network().state_dict()
    for block in feature_widths(made.info.architecture):
        moved = any(not torch.equal(before[n], after[n]) for n in before if n.startswith(f"{block}."))
        assert moved == (block.split(".")[0] in METHODS[method].method.trains)
    return made


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_what_it_says(tiny_store, tmp_path, method):
    trained(tiny_store, tmp_path / "run", method, "unet")


# one EfficientNet for all; a method on the whole network, and one on features of the encoder alone
@pytest.mark.parametrize("network", [n for n in NETWORKS if n[-1] not in "1234"])
@pytest.mark.parametrize("method", ["triplet", "rotation"])
def test_every_network_is_trained_for_a_fine_tuning_to_go_on_from(tiny_store, tmp_path, method, network):
    made = trained(tiny_store, tmp_path / "run", method, network)
    split = Split(train=("c00",), validation=(), test=())
    tuning = replace(TUNING, network=network)
    tuned = finetune(tiny_store, split, tmp_path / "tuned", tuning, pretrained=source_of(made))
    assert load_mapping(tuned.path / "config.yaml")["network"] == network
    assert checkpoint.load(tuned.path).info.architecture.name == network


def test_the_plain_network_is_trained_unless_told(finished):
    assert load_mapping(finished[0].path / "config.yaml")["network"] == "unet"
    with pytest.raises(UserError, match="residual_unet"):
        parse(PretrainConfig, {"method": "mae", "network": "resnet"}, "config.yaml")


def test_the_weights_were_trained_and_the_output_was_not(finished, tiny_store):
    found = checkpoint.load(finished[0].path).tensors
    before = build(architecture_for(planned(tiny_store.plan, CONFIG)), 0).state_dict()
    same = {name for name in found if torch.equal(found[name], before[name])}
    assert same == {"output.weight", "output.bias"}


def test_generators_outside_are_left_as_they_were(tiny_store, tmp_path):
    torch.manual_seed(5)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    pretrain(tiny_store, CASES, tmp_path / "run", CONFIG)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


@pytest.mark.parametrize("config", [CONFIG, MAE], ids=["triplet", "mae"])
def test_a_killed_run_continues_with_its_heads_as_if_it_had_not_been_killed(
    tiny_store, tmp_path, config, state_differences
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    pretrain(tiny_store, CASES, whole, config)
    with pytest.raises(Killed):
        pretrain(tiny_store, CASES, killed, config, observer=KilledAt(3))
    halfway = checkpoint.load_state(killed)["task"]
    assert halfway
    assert all(name.startswith("head.") for name in halfway)
    pretrain(tiny_store, CASES, killed, config, resume=True)
    states = [checkpoint.load_state(run) for run in (whole, killed)]
    for part in states:
        assert part["task"].keys() == halfway.keys()
    moved = [name for name, value in states[1]["task"].items() if not torch.equal(halfway[name], value)]
    assert moved
    assert not state_differences(*states)
    one, other = (checkpoint.load(run, "last").tensors for run in (whole, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert read_metrics(whole) == read_metrics(killed)


def test_a_head_is_kept_beside_the_weights_and_not_among_them(finished):
    assert not any("head" in name for name in checkpoint.load(finished[0].path).tensors)
    heads = checkpoint.load_state(finished[0].path)["task"]
    assert {tuple(tensor.shape) for tensor in heads.values()} >= {(16, 24), (8, 16)}


@pytest.mark.parametrize("method", ["triplet", "dino", "mae"])
def test_the_method_of_a_run_is_as_its_last_step_left_it(tiny_store, tmp_path, method):
    """Its embeddings measure what those of the training did; of `dino` they are the student's."""
    config = replace(CONFIG, method=method, options={})
    made = pretrain(tiny_store, CASES, tmp_path / "run", config)
    sampler, measured = sampler_of(tiny_store, find_method(method)), []
    sampler.config = read_yaml(made.path / "config.yaml", PretrainConfig).views
    for restored in trained_method(made.path, tiny_store, seed=5):
        watch = CollapseWatch(made.path, None)
        measured.append(Monitor(restored, sampler, config.monitor_volumes, watch)())
    assert measured[0] == pytest.approx(made.scores, rel=1e-5)
    assert measured[1] != pytest.approx(made.scores, rel=1e-2)


def test_a_method_is_built_for_the_volumes_it_was_trained_on(tiny_store, finished):
    other = altered(tiny_store, c01={"content_hash": "another"})
    with pytest.raises(UserError, match="1 of the 4 volumes"):
        trained_method(finished[0].path, other)


def test_continuing_a_finished_run_gives_its_measures_again(tiny_store, finished):
    again = pretrain(tiny_store, CASES, finished[0].path, CONFIG, held_out=HELD_OUT, resume=True)
    assert again.scores == finished[0].scores


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"options": {"hidden": 16, "dimension": 8, "margin": 0.3}},
            "options was .*'margin': 0.2.* is .*0.3",
        ),
        ({"views": ViewConfig(augment=preset("weak"))}, "views was"),
        ({"steps": 5}, "steps was 4, is 5"),
        ({"method": "mae", "options": {}}, "method was 'triplet', is 'mae'"),
    ],
)
def test_a_run_is_not_continued_with_other_settings(tiny_store, finished, changes, message):
    with pytest.raises(RunError, match=message):
        pretrain(
            tiny_store, CASES, finished[0].path, replace(CONFIG, **changes), held_out=HELD_OUT, resume=True
        )


def test_a_run_is_not_continued_with_other_cases_or_voxels(tiny_store, finished):
    with pytest.raises(RunError, match="the cases are others"):
        pretrain(tiny_store, CASES, finished[0].path, CONFIG, resume=True)
    changed = altered(tiny_store, c00={"content_hash": "0" * 64})
    with pytest.raises(RunError, match="voxels of the training"):
        pretrain(changed, CASES, finished[0].path, CONFIG, held_out=HELD_OUT, resume=True)


def test_an_existing_run_is_not_trained_over(tiny_store, finished):
    with pytest.raises(RunError, match="not empty"):
        pretrain(tiny_store, CASES, finished[0].path, CONFIG)


def test_fine_tuning_takes_encoder_and_decoder_and_a_fresh_output(tiny_store, finished, tmp_path):
    weights = source_of(checkpoint.load(finished[0].path))
    split = Split(train=("c04", "c05"), validation=(), test=HELD_OUT)
    told = []
    made = finetune(tiny_store, split, tmp_path / "tuned", TUNING, pretrained=weights, announce=told.append)
    report = json.loads((made.path / "transfer.json").read_text())
    assert report["source"] == "triplet, 4 steps"
    loaded = {tensor["name"] for tensor in report["tensors"] if tensor["state"] == "loaded"}
    assert loaded == {name for name in weights.tensors if not name.startswith("output.")}
    assert told[0].startswith("weights from triplet, 4 steps\n  encoder")
    tuned = checkpoint.load(made.path)
    scratch = build(tuned.info.architecture, TUNING.seed).state_dict()
    for name, source in (("encoder.2.0.0.weight", weights.tensors), ("output.weight", scratch)):
        assert (tuned.tensors[name] - source[name]).abs().max() < 0.02
    # of another seed than the pretraining, whose own fresh output is another
    assert (tuned.tensors["output.weight"] - weights.tensors["output.weight"]).abs().max() > 0.05
    assert set(tuned.info.inherited) == {tiny_store.cases[case].content_hash for case in CASES}


def test_fine_tuning_takes_the_single_blocks_that_were_reached(tiny_store, tmp_path):
    config = replace(CONFIG, options=CONFIG.options | {"blocks": ["decoder.0"]})
    made = pretrain(tiny_store, CASES, tmp_path / "run", config)
    weights = source_of(checkpoint.load(made.path))
    assert weights.trained == ("encoder", "decoder.0")
    split = Split(train=("c04",), validation=(), test=())
    tuned = finetune(tiny_store, split, tmp_path / "tuned", TUNING, pretrained=weights)
    report = json.loads((tuned.path / "transfer.json").read_text())
    loaded = {".".join(t["name"].split(".")[:2]) for t in report["tensors"] if t["state"] == "loaded"}
    assert loaded == {"encoder.0", "encoder.1", "encoder.2", "decoder.0"}


def test_what_was_pretrained_on_is_never_a_test_case(tiny_store, finished, tmp_path):
    leak = Split(train=("c04",), validation=(), test=("c00", "c08"))
    with pytest.raises(UserError, match=r"trained on 1 of the test cases \(c00\)"):
        finetune(
            tiny_store,
            leak,
            tmp_path / "run",
            TUNING,
            pretrained=source_of(checkpoint.load(finished[0].path)),
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("facts", "shared"), [({"content_hash": "f" * 64}, "voxels"), ({"subject": "one"}, "a subject")]
)
def test_a_copy_and_another_volume_of_a_held_out_subject_are_refused(tiny_store, tmp_path, facts, shared):
    twins = altered(tiny_store, c02=facts, c09=facts)
    with pytest.raises(UserError, match=f"c02: it shares {shared} with a case that is held out"):
        pretrain(twins, CASES, tmp_path / "run", CONFIG, held_out=HELD_OUT)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("cases", "held_out", "changes", "message"),
    [
        (CASES, CASES[:1], {}, "c00: it shares voxels"),
        (("c00", "gone"), (), {}, "gone: no such case"),
        (CASES, ("gone",), {}, "gone: no such case"),
        (CASES, (), {"batch": 1}, "batch 1: too few volumes at a time for triplet"),
        (CASES[:1], (), {}, "batch 2: 1 volumes"),
        (CASES, (), {"options": {"temperature": 1.0}}, "options: unknown key 'temperature'"),
        (CASES, (), {"options": {"margin": -1}}, "'margin' is -1"),
        (CASES, (), {"options": {"blocks": ["decoder.7"]}}, "decoder.7.*The network has: encoder"),
        (CASES, (), {"method": "mae", "options": {"block": [8, 16, 8]}}, "is a single block"),
        (CASES, (), {"method": "tripplet"}, "tripplet: .*There are: .*mae, .*triplet"),
        (CASES, (), {"steps": 0}, "'steps' is 0"),
        (CASES, (), {"monitor_volumes": 1}, "'monitor_volumes' is 1"),
    ],
)
def test_what_cannot_be_trained_is_told_and_leaves_no_run_behind(
    tiny_store, tmp_path, cases, held_out, changes, message
):
    with pytest.raises(UserError, match=f"(?s){message}"):
        pretrain(tiny_store, cases, tmp_path / "run", replace(CONFIG, **changes), held_out=held_out)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def monitor(tiny_store, tmp_path):
    """A monitor of a fresh triplet method, for so many volumes."""

    def make(volumes: int, cases=CASES) -> Monitor:
        registered, plan = find_method("triplet"), planned(tiny_store.plan, CONFIG)
        sampler = sampler_of(tiny_store, registered, cases)
        method = assemble(registered, CONFIG, scope_of(sampler, plan, CONFIG))
        (tmp_path / "metrics.jsonl").touch()
        return Monitor(method, sampler, volumes, CollapseWatch(tmp_path, method.resting_loss()))

    return make


def test_every_look_of_the_monitor_sees_the_same_views(monitor, monkeypatch):
    made, shown = monitor(3), []
    embed = made.method.embed
    monkeypatch.setattr(made.method, "embed", lambda view: (shown.append(view), embed(view))[1])
    assert made() == made()
    assert made.cases == ("c00", "c01", "c02")
    # two views each of three volumes, one at a time, all different
    assert len(shown) == 12
    assert all(torch.equal(one, other) for one, other in zip(shown[:6], shown[6:], strict=True))
    assert len({view.numpy().tobytes() for view in shown[:6]}) == 6


def test_a_monitor_changes_nothing_of_what_is_trained(monitor):
    made = monitor(3)
    before = {name: tensor.clone() for name, tensor in made.method.state_dict().items()}
    made()
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.method.state_dict().items())
    assert all(p.grad is None for p in made.method.parameters())


def test_a_monitor_measures_each_volume_in_two_views(monitor, monkeypatch):
    measured = []

    def note(embeddings, volumes):
        measured.append((embeddings.shape, sorted(volumes)))
        return EmbeddingMeasures(spread=1, effective_rank=2, retrieval=0.5, chance=0.1)

    monkeypatch.setattr("fewvox.ssl.pretrain.measure", note)
    assert monitor(12)() == {"spread": 1, "effective_rank": 2, "retrieval": 0.5}
    assert measured == [((8, 8), sorted(CASES * 2))]


def test_embeddings_that_are_not_finite_end_the_training_with_a_word(monitor):
    """Singular values of NaN were an error of torch's own."""
    made = monitor(3)
    torch.nn.init.constant_(made.method.head.layers[-1].bias, torch.nan)
    with pytest.raises(TrainingError, match="some are not finite"):
        made()


def test_a_case_that_is_listed_twice_is_refused(tiny_store, tmp_path):
    with pytest.raises(UserError, match="listed twice"):
        pretrain(tiny_store, ("c00", "c01", "c00"), tmp_path / "run", MAE)
    assert not (tmp_path / "run").exists()
