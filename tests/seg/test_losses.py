"""Dice and cross-entropy against plain loops."""

import math

import pytest
import torch
from fewvox.data.labels import IGNORED
from fewvox.seg.losses import (
    dice_cross_entropy,
    dice_loss,
    overlapping_dice_cross_entropy,
    overlapping_dice_loss,
)


def random_batch(classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 2, 3, 4, generator=generator, requires_grad=True)
    return logits, torch.randint(0, classes, (2, 2, 3, 4), generator=generator)


def certain(labels, classes, strength=50.0):
    """Logits that are sure of `labels`."""
    return strength * torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).float()


def open_voxels(labels, share=0.4, seed=1):
    """Which voxels (B, Z, Y, X) nobody annotated."""
    return (
        torch.rand(labels.shape[:1] + labels.shape[-3:], generator=torch.Generator().manual_seed(seed))
        < share
    )


def random_overlapping(channels=3, seed=0):
    """Logits and labels of classes that may overlap, some voxels unannotated."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, channels, 2, 3, 4, generator=generator, requires_grad=True)
    labels = torch.randint(0, 2, logits.shape, generator=generator)
    return logits, labels.masked_fill(open_voxels(labels)[:, None], IGNORED)


def places(tensor):
    return torch.cartesian_prod(*(torch.arange(n) for n in tensor.shape)).tolist()


def dice_by_loops(logits, labels, smooth):
    """The formula by voxel: 1 - mean over foreground classes of (2 sum pg + s) / (sum p + sum g + s)."""
    classes = logits.shape[1]
    scores = []
    for c in range(1, classes):
        overlap = total = 0.0
        for b, z, y, x in places(labels):
            if labels[b, z, y, x] == IGNORED:
                continue
            exponentials = [math.exp(v) for v in logits[b, :, z, y, x].tolist()]
            p, g = exponentials[c] / sum(exponentials), float(labels[b, z, y, x] == c)
            overlap += p * g
            total += p + g
        scores.append((2 * overlap + smooth) / (total + smooth))
    return 1 - sum(scores) / len(scores)


def entropy_by_loops(logits, labels):
    """Mean of -log p of the true class, over annotated voxels."""
    each = []
    for b, z, y, x in places(labels):
        if labels[b, z, y, x] != IGNORED:
            values = logits[b, :, z, y, x].tolist()
            each.append(math.log(sum(math.exp(v) for v in values)) - values[labels[b, z, y, x]])
    return sum(each) / len(each)


def overlapping_by_loops(logits, labels, smooth):
    """Dice loss and cross-entropy by voxel and channel: every channel counts, and p is a sigmoid."""
    scores, entropies = [], []
    for c in range(labels.shape[1]):
        overlap = total = 0.0
        for b, z, y, x in places(labels[:, c]):
            g = float(labels[b, c, z, y, x])
            if g == IGNORED:
                continue
            p = 1 / (1 + math.exp(-logits[b, c, z, y, x].item()))
            overlap += p * g
            total += p + g
            entropies.append(-math.log(p if g else 1 - p))
        scores.append((2 * overlap + smooth) / (total + smooth))
    return 1 - sum(scores) / len(scores), sum(entropies) / len(entropies)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("classes", [2, 4])
def test_dice_is_that_of_plain_loops(classes, share):
    logits, labels = random_batch(classes)
    labels = labels.masked_fill(open_voxels(labels, share), IGNORED)
    expected = dice_by_loops(logits, labels, 0.1)
    assert dice_loss(logits, labels, smooth=0.1).item() == pytest.approx(expected, abs=1e-6)


def test_a_perfect_prediction_costs_nothing():
    _, labels = random_batch()
    loss, _ = dice_cross_entropy(certain(labels, 3), labels)
    assert float(loss) == pytest.approx(0, abs=1e-5)


def test_a_prediction_that_misses_everything_costs_one():
    _, labels = random_batch(2)
    assert float(dice_loss(certain(1 - labels, 2), labels)) == pytest.approx(1, abs=1e-5)


def test_a_class_that_is_absent_and_not_predicted_costs_nothing():
    labels = torch.zeros(1, 2, 3, 4, dtype=torch.long)
    labels[0, 0] = 1
    assert float(dice_loss(certain(labels, 3), labels)) == pytest.approx(0, abs=1e-4)


def test_a_class_that_is_absent_but_predicted_costs_its_share():
    labels = torch.zeros(1, 2, 3, 4, dtype=torch.long)
    labels[0, 0] = 1
    predicted = labels.clone()
    predicted[0, 1, 0, 0] = 2
    assert float(dice_loss(certain(predicted, 3), labels)) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_cross_entropy_is_added(share):
    logits, labels = random_batch()
    labels = labels.masked_fill(open_voxels(labels, share), IGNORED)
    loss, logs = dice_cross_entropy(logits, labels)
    assert float(logs["loss/cross_entropy"]) == pytest.approx(entropy_by_loops(logits, labels), rel=1e-5)
    assert float(logs["loss/dice"]) == pytest.approx(dice_loss(logits, labels).item(), rel=1e-6)
    assert loss.item() == pytest.approx(sum(float(v) for v in logs.values()), rel=1e-6)
    assert not any(v.requires_grad for v in logs.values())


def test_a_whole_annotation_costs_what_it_always_did():
    """Recorded before voxels could be unannotated."""
    logits, labels = random_batch()
    loss, _ = dice_cross_entropy(logits, labels)
    loss.backward()
    assert loss.item() == pytest.approx(1.9678064585, abs=1e-6)
    assert logits.grad is not None
    assert logits.grad[0, 1, 0, 0].tolist() == pytest.approx(
        [0.0157587156, -0.0217975825, 0.0043875719, 0.0134500945], abs=1e-7
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_overlapping_classes_cost_what_plain_loops_say(channels):
    logits, labels = random_overlapping(channels)
    dice, entropy = overlapping_by_loops(logits, labels, 0.1)
    assert overlapping_dice_loss(logits, labels, smooth=0.1).item() == pytest.approx(dice, abs=1e-6)
    loss, logs = overlapping_dice_cross_entropy(logits, labels)
    assert float(logs["loss/cross_entropy"]) == pytest.approx(entropy, rel=1e-5)
    assert loss.item() == pytest.approx(overlapping_by_loops(logits, labels, 1e-5)[0] + entropy, rel=1e-5)


def test_two_sides_of_a_sigmoid_cost_what_a_softmax_of_two_classes_does():
    logits, labels = random_batch(2)
    alone = (logits[:, 1:] - logits[:, :1]).detach()
    expected, _ = dice_cross_entropy(logits, labels)
    assert overlapping_dice_cross_entropy(alone, labels[:, None])[0].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("overlapping", [False, True])
def test_voxels_that_nobody_annotated_have_no_gradient_and_no_say(overlapping):
    logits, labels = random_overlapping() if overlapping else random_batch()
    loss_of = overlapping_dice_cross_entropy if overlapping else dice_cross_entropy
    unannotated = open_voxels(labels)
    labels = labels.masked_fill(unannotated[:, None] if overlapping else unannotated, IGNORED)
    loss, _ = loss_of(logits, labels)
    loss.backward()
    assert logits.grad is not None
    moved = logits.grad.abs().sum(dim=1) > 0
    assert torch.equal(moved, ~unannotated)
    changed = torch.where(unannotated[:, None], 99.0, logits.detach())
    assert torch.equal(loss_of(changed, labels)[0], loss)


@pytest.mark.parametrize("loss_of", [dice_cross_entropy, overlapping_dice_cross_entropy])
def test_a_batch_that_nobody_annotated_costs_nothing_and_moves_nothing(loss_of):
    logits, labels = random_overlapping() if loss_of is overlapping_dice_cross_entropy else random_batch()
    loss, logs = loss_of(logits, torch.full_like(labels, IGNORED))
    loss.backward()
    assert (loss.item(), [float(v) for v in logs.values()]) == (0, [0, 0])
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("only_background", [False, True])
def test_the_gradient_is_finite_and_there(scale, only_background):
    logits, labels = random_batch()
    if only_background:
        labels = torch.zeros_like(labels)
    loss, _ = dice_cross_entropy(logits * scale, labels)
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.any()


def test_half_precision_logits_are_summed_in_float32():
    # half precision ends at 65,504: the sum of this many probabilities would be infinite
    logits, labels = torch.zeros(1, 2, 1, 400, 400), torch.ones(1, 1, 400, 400, dtype=torch.long)
    assert float(dice_loss(logits.half(), labels)) == pytest.approx(float(dice_loss(logits, labels)))
    loss, _ = dice_cross_entropy(logits.half(), labels)
    assert loss.dtype == torch.float32
