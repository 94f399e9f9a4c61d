"""Heads on the coarser levels of the decoder."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fewvox.data.labels import IGNORED, LabelTable
from fewvox.data.loader import PatchBatch
from fewvox.seg.deep_supervision import Heads, labels_at
from fewvox.seg.losses import segmentation_loss
from fewvox.seg.networks.registry import NETWORKS, architecture_for, build
from fewvox.seg.supervised import Supervised

PATCH = (8, 32, 32)
STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2))


@pytest.fixture
def network_of(make_plan):
    """A network of three poolings by name, with the weights of seed 0."""

    def make(name="unet", labels=None, strides=STRIDES):
        plan = make_plan(labels=labels or LabelTable(values=(0, 1, 2)), patch=PATCH, strides=strides, width=4)
        return build(architecture_for(plan, name), 0)

    return make


def random_images(seed=0):
    return torch.randn(2, 1, *PATCH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_heads_for_all_levels_but_the_finest_and_the_coarsest(network_of, name):
    network = network_of(name)
    heads = Heads(network, 1, PATCH, 0)
    decoded = network.decode(network.encode(random_images()))
    logits = heads(decoded)
    asked = [tuple(features.shape[2:]) for features in reversed(decoded)][1:-1]
    assert [tuple(level.shape[2:]) for level in logits] == asked
    assert {level.shape[1] for level in logits} == {3}
    assert len(heads.weights) == 1 + len(logits)


@pytest.mark.parametrize("poolings", [1, 2, 3])
def test_weights_are_those_of_nnunet(network_of, poolings):
    """1, 1/2, 1/4, ..., of which the last is 0 (but for the only one), divided by their sum."""
    theirs = np.array([0.5**level for level in range(poolings)])
    if poolings > 1:
        theirs[-1] = 0
    theirs /= theirs.sum()
    heads = Heads(network_of(strides=STRIDES[:poolings]), 1, PATCH, 0)
    assert heads.weights == pytest.approx([weight for weight in theirs if weight])


@pytest.mark.parametrize("extent", [(8, 32, 32), (8, 16, 16), (4, 8, 8), (1, 4, 2)])
@pytest.mark.parametrize("channels", [0, 2])
def test_labels_are_those_nearest_to_the_middle_of_a_coarse_voxel(extent, channels):
    shape = (2, channels, *PATCH) if channels else (2, *PATCH)
    labels = torch.randint(-1, 3, shape, generator=torch.Generator().manual_seed(0))
    with_channels = labels if channels else labels[:, None]
    expected = F.interpolate(with_channels.float(), extent, mode="nearest-exact").long()
    found = labels_at(labels, torch.empty(2, 3, *extent))
    assert torch.equal(found if channels else found[:, None], expected)


def test_an_extent_that_does_not_divide_the_labels_is_refused():
    with pytest.raises(ValueError, match=r"labels of \(8, 32, 32\) for features of \(3, 4, 4\)"):
        labels_at(torch.zeros(2, *PATCH), torch.empty(2, 3, 3, 4, 4))


def random_labels(kind, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 2, *PATCH) if kind == "overlapping" else (2, *PATCH)
    labels = torch.randint(0, 2 if kind == "overlapping" else 3, shape, generator=generator)
    unannotated = torch.rand(2, *PATCH, generator=generator) < 0.4
    return labels.masked_fill(unannotated[:, None] if kind == "overlapping" else unannotated, IGNORED)


@pytest.mark.parametrize("kind", ["classes", "overlapping"])
def test_the_loss_is_the_weighted_sum_over_levels(network_of, kind):
    network = network_of(labels=LabelTable(kind=kind, values=(0, 1, 2)))
    heads = Heads(network, 1, PATCH, 0)
    batch = PatchBatch(images=random_images(), labels=random_labels(kind), cases=("a", "b"))
    result = Supervised(network, kind, heads=heads)(batch, 0)
    decoded = network.decode(network.encode(batch.images))
    expected = 0.0
    for weight, logits in zip(heads.weights, [network.output(decoded[-1]), *heads(decoded)], strict=True):
        labels = labels_at(batch.labels, logits)
        loss, _ = segmentation_loss(logits, labels, overlapping=kind == "overlapping")
        expected += weight * loss.item()
    assert result.loss.item() == pytest.approx(expected, rel=1e-6)
    result.loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in heads.parameters() if p.ndim > 1)


@pytest.mark.parametrize("kind", ["classes", "overlapping"])
def test_a_batch_that_nobody_annotated_moves_nothing(network_of, kind):
    network = network_of(labels=LabelTable(kind=kind, values=(0, 1, 2)))
    task = Supervised(network, kind, heads=Heads(network, 1, PATCH, 0))
    labels = torch.full_like(random_labels(kind), IGNORED)
    result = task(PatchBatch(images=random_images(), labels=labels, cases=("a", "b")), 0)
    result.loss.backward()
    assert result.loss.item() == 0
    assert not any(p.grad.any() for p in task.parameters() if p.grad is not None)


def test_heads_follow_from_the_seed_and_leave_everything_else_as_it_was(network_of):
    network = network_of()
    before, state = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    one, same, other = (Heads(network, 1, PATCH, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["heads.0.weight"], other["heads.0.weight"])


def test_without_heads_a_network_predicts_the_same(network_of):
    network = network_of()
    names = set(network.state_dict())
    Supervised(network, heads=Heads(network, 1, PATCH, 0))
    assert set(network.state_dict()) == names
