"""A linear layer on frozen features: fitted on the labelled cases alone, scored on others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fewvox.data.errors import UserError
from fewvox.data.labels import IGNORED, LabelTable
from fewvox.seg.networks.registry import architecture_for, build
from fewvox.ssl.heads import feature_widths, read_features
from fewvox.ssl.probes import (
    DenseProbe,
    ProbeConfig,
    _features_at,
    _regression,
    _voxels,
    part_blocks,
    probe,
)

CONFIG = ProbeConfig(voxels=200)
TABLE = LabelTable(values=(0, 5, 9))


@pytest.fixture(scope="module")
def plan(tiny_store):
    return replace(tiny_store.plan, training=replace(tiny_store.plan.training, width=4))


@pytest.fixture
def network(plan):
    return build(architecture_for(plan), 0)


def test_a_probe_tells_the_classes_of_volumes_it_was_not_fitted_on(tiny_store, plan, network):
    """Blobs of another grey value: features of any network tell them, but not by chance."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = probe(
        network, architecture_for(plan), plan, tiny_store, ["c00", "c01"], ["c08", "c09"], config=CONFIG
    )
    assert set(found.per_class) == {1, 2}
    assert set(found.per_case) == {"c08", "c09"}
    assert found.dice == pytest.approx(np.mean(list(found.per_class.values())))
    assert found.dice == pytest.approx(np.mean(list(found.per_case.values())))
    assert found.dice > 0.7
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_labels_that_say_nothing_of_the_image_are_not_learned(tiny_store, plan, network, monkeypatch):
    """What is scored is a prediction and not the labels themselves."""
    label = type(tiny_store).label

    def mixed(self, case):
        labels = label(self, case)[:]
        rng = np.random.default_rng(int(case[1:]))
        return rng.permutation(labels.ravel()).reshape(labels.shape)

    monkeypatch.setattr(type(tiny_store), "label", mixed)
    found = probe(network, architecture_for(plan), plan, tiny_store, ["c00"], ["c08"], config=CONFIG)
    assert found.dice < 0.3


def test_only_the_cases_it_is_given_are_read(tiny_store, plan, network, monkeypatch):
    read = []
    image = type(tiny_store).image
    monkeypatch.setattr(
        type(tiny_store),
        "image",
        lambda self, case, level=0: (read.append(case), image(self, case, level))[1],
    )
    probe(network, architecture_for(plan), plan, tiny_store, ["c00"], ["c08"], part="encoder", config=CONFIG)
    assert set(read) == {"c00", "c08"}


def test_the_same_seed_gives_the_same_probe(tiny_store, plan, network):
    found = [
        probe(
            network, architecture_for(plan), plan, tiny_store, ["c00"], ["c08"], config=CONFIG, seed=seed
        ).dice
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1] != found[2]


def test_the_layer_is_linear_in_the_features_above_a_voxel(plan, network):
    architecture = architecture_for(plan)
    blocks = part_blocks(architecture, "network")
    frozen = DenseProbe(network, blocks, architecture, 3)
    width = sum(feature_widths(architecture)[name] for name in blocks)
    weight = torch.randn(3, width, generator=torch.Generator().manual_seed(0))
    bias = torch.tensor([0.1, 0.2, 0.3])
    frozen.set(weight, bias)
    images = torch.randn(2, 1, *plan.training.patch, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = read_features(network.eval(), images, blocks)
        columns = torch.cat(
            [F.interpolate(f, images.shape[2:], mode="trilinear", align_corners=False) for f in features],
            dim=1,
        )
        expected = torch.einsum("kf,bfzyx->bkzyx", weight, columns) + bias.view(1, 3, 1, 1, 1)
        torch.testing.assert_close(frozen(images), expected, atol=1e-4, rtol=1e-4)


def test_features_of_voxels_are_those_of_the_window_they_are_most_central_in(plan, network):
    architecture = architecture_for(plan)
    frozen = DenseProbe(network, ("encoder.0",), architecture, 2).eval()
    z, y, x = plan.training.patch
    image = torch.randn(1, z, y, x + 4, generator=torch.Generator().manual_seed(0))
    places = np.array([[0, 0, 0], [1, 2, 3], [z - 1, y - 1, x + 3]])
    with torch.no_grad():
        found = _features_at(frozen, image, places, plan)
        left = frozen.features(image[None, ..., :x])[0][0].numpy()
        right = frozen.features(image[None, ..., 4:])[0][0].numpy()
    np.testing.assert_allclose(found[0], left[:, 0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(found[1], left[:, 1, 2, 3], atol=1e-5)
    np.testing.assert_allclose(found[2], right[:, z - 1, y - 1, x - 1], atol=1e-5)


def test_a_volume_smaller_than_the_window_is_padded(plan, network):
    frozen = DenseProbe(network, ("encoder.0",), architecture_for(plan), 2).eval()
    with torch.no_grad():
        found = _features_at(frozen, torch.ones(1, 3, 4, 5), np.array([[0, 0, 0], [2, 3, 4]]), plan)
    assert found.shape[0] == 2
    assert np.isfinite(found).all()


def test_voxels_stand_for_all_that_are_annotated():
    labels = np.zeros((4, 5, 6), np.int16)
    labels[0], labels[1, 0], labels[3] = 1, 2, IGNORED
    places, weights = _voxels(labels, TABLE, 10, np.random.default_rng(0))
    chosen = labels[tuple(places.T)]
    assert len(np.unique(places, axis=0)) == len(places)
    for value, there in ((0, 54), (1, 30), (2, 6)):
        assert (chosen == value).sum() == min(10, there)
        assert weights[chosen == value].sum() == pytest.approx(there)
    assert not (chosen == IGNORED).any()


def test_a_regression_finds_what_is_linear_and_a_class_without_voxels_is_never_chosen():
    rng = np.random.default_rng(0)
    features = rng.normal(5, [1, 10, 0], (400, 3)).astype(np.float32)
    truths = (features[:, 0] > 5).astype(int) * 2
    weight, bias = _regression(features, truths, np.ones(400), TABLE, ProbeConfig(strength=100))
    logits = features @ weight.T + bias
    assert weight.shape == (3, 3)
    assert (logits.argmax(axis=1) == truths).mean() > 0.97
    assert (logits[:, 1] < -1000).all()


def test_overlapping_classes_have_an_answer_each():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 2)).astype(np.float32)
    truths = (features > 0).astype(int)
    table = LabelTable(kind="overlapping", values=(0, 1, 2))
    weight, bias = _regression(features, truths, np.ones(400), table, ProbeConfig(strength=100))
    assert (((features @ weight.T + bias) > 0) == truths).mean() > 0.97


def test_a_single_class_is_refused():
    with pytest.raises(UserError, match=r"a single class \(1\)"):
        _regression(np.zeros((4, 2), np.float32), np.ones(4, int), np.ones(4), TABLE, CONFIG)


@pytest.mark.parametrize(
    ("labelled", "test", "told"),
    [
        (["c00"], ["c00"], "c00 is among both"),
        ([], ["c00"], "none of one kind"),
        (["c00"], [], "none of one"),
    ],
)
def test_fit_and_score_need_cases_of_their_own(tiny_store, plan, network, labelled, test, told):
    with pytest.raises(UserError, match=told):
        probe(network, architecture_for(plan), plan, tiny_store, labelled, test)


def test_parts_are_the_encoder_and_the_whole_network(plan):
    architecture = architecture_for(plan)
    encoder, network = (part_blocks(architecture, part) for part in ("encoder", "network"))
    assert all(name.startswith("encoder.") for name in encoder)
    assert set(network) == set(feature_widths(architecture))
    assert set(encoder) < set(network)
