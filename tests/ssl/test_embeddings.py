"""Embeddings of volumes by a trained network, and their principal components."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fewvox.data.errors import UserError
from fewvox.seg import checkpoint
from fewvox.seg.checkpoint import Checkpoint, CheckpointInfo
from fewvox.seg.networks.registry import architecture_for, build
from fewvox.seg.training import TrainingConfig, planned
from fewvox.seg.transfer import TransferError
from fewvox.ssl.embeddings import embed, principal_components, silhouette
from fewvox.ssl.heads import pool
from fewvox.ssl.monitors import measure
from fewvox.ssl.pretrain import PretrainConfig, pretrain, trained_method
from fewvox.ssl.views import ViewSampler
from sklearn.metrics import silhouette_score

# both decoder levels, of 8 and 4 features: mean and deviation of each
SIZE = 24


@pytest.fixture(scope="module")
def model(tiny_store, tmp_path_factory) -> Checkpoint:
    """A checkpoint of an untrained network."""
    plan = planned(tiny_store.plan, TrainingConfig(patch=(8, 16, 8), width=4))
    info = CheckpointInfo(
        architecture=architecture_for(plan), plan=plan, method="mae", trained=("encoder", "decoder"),
        steps=1, seed=0, trained_on=(), validated_on=()
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("model")
    checkpoint.save(folder, build(info.architecture, 0), info, {}, None)
    return checkpoint.load(folder)


def test_every_view_of_every_volume_is_embedded(model, tiny_store):
    told = []
    found = embed(
        model, tiny_store, ("c01", "c00"), views=3, device="cpu", progress=lambda *done: told.append(done)
    )
    assert found.cases == ("c01",) * 3 + ("c00",) * 3
    assert found.values.shape == (6, SIZE)
    assert found.components.shape == (6, 2)
    assert found.measures == measure(found.values, list(found.cases))
    assert found.silhouette == silhouette(found.values, found.cases)
    assert told == [(1, 2), (2, 2)]


def test_embeddings_are_pooled_features_of_the_network_without_any_head(model, tiny_store, monkeypatch):
    shown = []
    views = ViewSampler.views

    def note(self, *asked):
        made = views(self, *asked)
        shown.append(made.views[0])
        return made

    monkeypatch.setattr(ViewSampler, "views", note)
    found = embed(model, tiny_store, ("c00", "c01"), views=2, device="cpu")
    network = model.network().eval()
    with torch.inference_mode():
        expected = torch.cat([pool(network.decode(network.encode(image))) for image in shown])
    assert [image.shape for image in shown] == [(1, 1, 8, 16, 8)] * 4
    torch.testing.assert_close(found.values, expected)


@pytest.fixture(scope="module")
def run(tiny_store, tmp_path_factory):
    """A short pretraining on seven volumes, of a method with a head."""
    config = PretrainConfig(
        method="triplet", options={"hidden": 16, "dimension": 8}, steps=3, patch=(8, 16, 8), width=4, batch=2,
        device="cpu", workers=0, keep_memory=False, monitor_volumes=2
    )  # fmt: skip
    cases = [f"c{n:02}" for n in range(7)]
    return pretrain(tiny_store, cases, tmp_path_factory.mktemp("head") / "run", config).path


@pytest.mark.parametrize("moment", [0.0, 1.0])
def test_a_method_embeds_by_its_head_what_a_moment_of_its_training_shows(
    run, tiny_store, monkeypatch, moment
):
    shown, asked = [], []
    views = ViewSampler.views

    def note(self, cases, seed, progress):
        made = views(self, cases, seed, progress)
        shown.append(made.views[0])
        asked.append(progress)
        return made

    monkeypatch.setattr(ViewSampler, "views", note)
    found = embed(
        checkpoint.load(run), tiny_store, ("c00", "c09"), views=2, device="cpu", beside_random=True,
        head_of=run, moment=moment, seed=3
    )  # fmt: skip
    for embeddings, method in zip((found, found.random), trained_method(run, tiny_store, 3), strict=True):
        assert embeddings is not None
        assert embeddings.values.shape == (4, 8)
        with torch.no_grad():
            torch.testing.assert_close(embeddings.values, method.eval().embed(torch.cat(shown)))
    assert asked == [moment] * 4


def test_what_is_no_pretraining_has_no_head(model, tiny_store, tmp_path):
    checkpoint.save(tmp_path, model.network(), replace(model.info, method="supervised"), {}, None)
    with pytest.raises(UserError, match="supervised"):
        embed(model, tiny_store, device="cpu", head_of=tmp_path)


def test_embeddings_depend_on_the_seed_alone(model, tiny_store):
    torch.manual_seed(0)
    one = embed(model, tiny_store, volumes=2, views=2, device="cpu")
    torch.manual_seed(1)
    again = embed(model, tiny_store, volumes=2, views=2, device="cpu")
    other = embed(model, tiny_store, volumes=2, views=2, device="cpu", seed=1000)
    assert torch.equal(one.values, again.values)
    assert torch.equal(one.components, again.components)
    assert not torch.isclose(one.values, other.values).all(dim=1).any()
    # nor is a view shown twice
    assert len({tuple(value) for value in one.values.tolist()}) == 4


def test_random_weights_are_shown_the_same_views(model, tiny_store):
    """The model is one itself, drawn by seed 0."""
    found = embed(model, tiny_store, volumes=2, views=2, device="cpu", beside_random=True)
    assert found.random is not None
    assert torch.equal(found.random.values, found.values)
    other = embed(model, tiny_store, volumes=2, views=2, device="cpu", seed=1, beside_random=True)
    assert other.random is not None
    assert other.random.cases == other.cases
    assert not torch.isclose(other.random.values, other.values).all(dim=1).any()
    assert other.random.silhouette == silhouette(other.random.values, other.cases)
    assert embed(model, tiny_store, volumes=2, views=2, device="cpu").random is None


@pytest.mark.parametrize(
    ("volumes", "chosen"),
    [(2, ["c00", "c05"]), (3, ["c00", "c03", "c06"]), (50, [f"c{i:02}" for i in range(10)])],
)
def test_of_more_volumes_some_are_taken_evenly(model, tiny_store, volumes, chosen):
    assert list(embed(model, tiny_store, volumes=volumes, views=1, device="cpu").cases) == chosen


def test_another_preprocessing_is_refused(model, tiny_store):
    theirs = replace(model.info.plan.preprocessing, spacing=(3.0, 1.0, 1.0))
    other = replace(model, info=replace(model.info, plan=replace(model.info.plan, preprocessing=theirs)))
    with pytest.raises(TransferError, match="spacing"):
        embed(other, tiny_store, device="cpu")


def test_components_are_those_of_a_singular_value_decomposition():
    values = np.random.default_rng(0).normal(size=(20, 5)) * [1, 5, 2, 1, 3] + 7
    found, explained = principal_components(torch.from_numpy(values).float())
    centred = values - values.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    expected = u[:, :2] * s[:2]
    signs = np.sign((found.numpy() * expected).sum(axis=0))
    np.testing.assert_allclose(found.numpy() * signs, expected, atol=1e-4)
    assert explained == pytest.approx(tuple(s[:2] ** 2 / (s**2).sum()), rel=1e-4)


def test_components_of_a_line_are_its_places():
    places = torch.tensor([0.0, 1.0, 3.0, 4.0])
    found, explained = principal_components(places[:, None] * torch.tensor([[3.0, 4.0]]))
    assert sorted(abs(found[:, 0]).tolist()) == pytest.approx([5, 5, 10, 10])
    np.testing.assert_allclose(found[:, 1], 0, atol=1e-5)
    assert explained == pytest.approx((1, 0))


def test_collapsed_embeddings_have_components_of_nothing():
    """The very case that is watched for was a division by zero."""
    found, explained = principal_components(torch.ones(5, 3))
    assert (found == 0).all()
    assert found.shape == (5, 2)
    assert explained == (0, 0)


def test_a_single_view_in_all_has_no_components(model, tiny_store):
    with pytest.raises(UserError, match="two views at least"):
        embed(model, tiny_store, ("c00",), views=1, device="cpu")


def test_a_silhouette_is_that_of_plain_loops():
    """For each view (b - a) / max(a, b) of its mean distances: a within its volume, b to another."""
    owners = ["a"] * 3 + ["b"] * 2 + ["c"] * 2
    values = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for i, own in enumerate(owners):
        means = {
            name: [
                float((values[i] - values[j]).norm()) for j, o in enumerate(owners) if o == name and j != i
            ]
            for name in "abc"
        }
        means = {name: sum(d) / len(d) for name, d in means.items()}
        near, other = means.pop(own), min(means.values())
        found.append((other - near) / max(near, other))
    assert silhouette(values, owners) == pytest.approx(sum(found) / 7)


def test_a_silhouette_does_not_fall_with_the_number_of_volumes():
    """Clusters drawn alike: of 5 as told by their silhouettes, of 60 the nearest other one is nearer."""
    rng = np.random.default_rng(0)
    owners = [f"v{k:02}" for k in range(60) for _ in range(4)]
    values = torch.from_numpy(rng.normal(size=(60, 1, 4)) + 0.5 * rng.normal(size=(60, 4, 4))).flatten(0, 1)
    few = [silhouette_score(values[k : k + 20].numpy(), owners[k : k + 20]) for k in range(0, 240, 20)]
    found = silhouette(values, owners)
    assert found == pytest.approx(np.mean(few), abs=0.05)
    assert found == silhouette(values, owners)
    assert found is not None
    assert found > silhouette_score(values.numpy(), owners) + 0.2


def test_volumes_of_a_single_view_are_left_out_of_a_silhouette():
    values = torch.randn(10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alone = silhouette(values[:4], ["a", "a", "b", "b"])
    assert alone is not None
    assert silhouette(values, ["a", "a", "b", "b", *"cdefgh"]) == alone


@pytest.mark.parametrize("owners", [["a", "a", "a"], ["a", "b", "c"], ["a", "a", "b"]])
def test_views_of_one_volume_or_one_view_of_each_have_no_silhouette(owners):
    assert silhouette(torch.eye(3), owners) is None
