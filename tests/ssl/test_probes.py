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
    PARTS,
    DenseProbe,
    Fit,
    ProbeConfig,
    _features_at,
    _fitted,
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
    fit = Fit(labelled=("c00", "c01"))
    (found,) = probe(network, architecture_for(plan), plan, tiny_store, [fit], ["c08", "c09"], config=CONFIG)
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
    fit = Fit(labelled=("c00",))
    (found,) = probe(network, architecture_for(plan), plan, tiny_store, [fit], ["c08"], config=CONFIG)
    assert found.dice < 0.3


def test_only_the_cases_it_is_given_are_read(tiny_store, plan, network, monkeypatch):
    read = []
    image = type(tiny_store).image
    monkeypatch.setattr(
        type(tiny_store),
        "image",
        lambda self, case, level=0: (read.append(case), image(self, case, level))[1],
    )
    fit = Fit(labelled=("c00",), part="encoder")
    probe(network, architecture_for(plan), plan, tiny_store, [fit], ["c08"], config=CONFIG)
    assert set(read) == {"c00", "c08"}


def test_the_same_seed_gives_the_same_probe_whatever_stands_beside_it(tiny_store, plan, network):
    fits = [Fit(labelled=("c00",), seed=seed, part=part) for seed in (0, 0, 1) for part in PARTS]

    def scores(*chosen: Fit) -> list[float]:
        found = probe(network, architecture_for(plan), plan, tiny_store, chosen, ["c08"], config=CONFIG)
        return [each.dice for each in found]

    together = scores(*fits)
    assert together[:2] == together[2:4]
    assert len(set(together)) == 4
    assert [score for fit in fits for score in scores(fit)] == pytest.approx(together, abs=1e-6)


def test_the_network_sees_a_volume_once_for_all_parts(tiny_store, plan, network, monkeypatch):
    seen: list[int] = []
    features = DenseProbe.features
    monkeypatch.setattr(
        DenseProbe, "features", lambda self, images: (seen.append(len(images)), features(self, images))[1]
    )

    def windows(*parts: str) -> int:
        seen.clear()
        fits = [Fit(labelled=("c00",), part=part) for part in parts]
        probe(network, architecture_for(plan), plan, tiny_store, fits, ["c08"], config=CONFIG)
        return sum(seen)

    assert windows(*PARTS) == windows("network") > 0


def test_layers_are_linear_in_the_features_above_a_voxel(plan, network):
    frozen = DenseProbe(network, architecture_for(plan), 3)
    width = sum(frozen.widths.values())
    weight_RKF = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(0))
    bias_RK = torch.tensor([[0.1, 0.2, 0.3], [-1.0, 0.0, 1.0]])
    for weight_KF, bias_K in zip(weight_RKF, bias_RK, strict=True):
        frozen.add(weight_KF, bias_K)
    images = torch.randn(2, 1, *plan.training.patch, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = read_features(network.eval(), images, tuple(feature_widths(architecture_for(plan))))
        columns = torch.cat(
            [F.interpolate(f, images.shape[2:], mode="trilinear", align_corners=False) for f in features],
            dim=1,
        )
        expected = (
            torch.einsum("rkf,bfzyx->brkzyx", weight_RKF, columns) + bias_RK[None, ..., None, None, None]
        )
        torch.testing.assert_close(frozen(images), expected.flatten(1, 2), atol=1e-4, rtol=1e-4)


def test_a_probe_of_the_encoder_reads_nothing_else(tiny_store, plan, network):
    """Its layer is 0 on all other features."""
    frozen, architecture = DenseProbe(network, architecture_for(plan), 3), architecture_for(plan)
    encoder_F = frozen.columns(part_blocks(architecture, "encoder"))
    ((weight_KF, _),) = _fitted(frozen, tiny_store, Fit(labelled=("c00",)), [encoder_F], plan, CONFIG)
    assert 0 < int(encoder_F.sum()) < len(encoder_F)
    assert (weight_KF[:, encoder_F] != 0).all()
    assert (weight_KF[:, ~encoder_F] == 0).all()


def test_layers_follow_the_network_to_its_device(plan, network):
    """Nothing but the network has a device of its own; "meta" stands for a GPU."""
    frozen = DenseProbe(network.to("meta"), architecture_for(plan), 3)
    frozen.add(torch.zeros(3, sum(frozen.widths.values())), torch.zeros(3))
    assert frozen(torch.zeros(1, 1, *plan.training.patch, device="meta")).device.type == "meta"


def test_features_of_voxels_are_those_of_the_window_they_are_most_central_in(plan, network):
    frozen = DenseProbe(network, architecture_for(plan), 2)
    width = frozen.widths["encoder.0"]
    z, y, x = plan.training.patch
    image = torch.randn(1, z, y, x + 4, generator=torch.Generator().manual_seed(0))
    places = np.array([[0, 0, 0], [1, 2, 3], [z - 1, y - 1, x + 3]])
    with torch.no_grad():
        found = _features_at(frozen, image, places, plan, CONFIG)
        left = frozen.features(image[None, ..., :x])[0][0].numpy()
        right = frozen.features(image[None, ..., 4:])[0][0].numpy()
    np.testing.assert_allclose(found[0, :width], left[:, 0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(found[1, :width], left[:, 1, 2, 3], atol=1e-5)
    np.testing.assert_allclose(found[2, :width], right[:, z - 1, y - 1, x - 1], atol=1e-5)


def test_a_volume_smaller_than_the_window_is_padded(plan, network):
    frozen = DenseProbe(network, architecture_for(plan), 2)
    with torch.no_grad():
        found = _features_at(frozen, torch.ones(1, 3, 4, 5), np.array([[0, 0, 0], [2, 3, 4]]), plan, CONFIG)
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
        (("c00",), ["c00"], "c00 is among both"),
        ((), ["c00"], "none of one kind"),
        (("c00",), [], "none of one"),
    ],
)
def test_fit_and_score_need_cases_of_their_own(tiny_store, plan, network, labelled, test, told):
    with pytest.raises(UserError, match=told):
        probe(network, architecture_for(plan), plan, tiny_store, [Fit(labelled=labelled)], test)


def test_parts_are_the_encoder_and_the_whole_network(plan):
    architecture = architecture_for(plan)
    encoder, network = (part_blocks(architecture, part) for part in ("encoder", "network"))
    assert all(name.startswith("encoder.") for name in encoder)
    assert set(network) == set(feature_widths(architecture))
    assert set(encoder) < set(network)
