"""Dice and cross-entropy against plain loops."""

import math

import pytest
import torch
from fewvox.seg.losses import dice_cross_entropy, dice_loss


def random_batch(classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 2, 3, 4, generator=generator, requires_grad=True)
    return logits, torch.randint(0, classes, (2, 2, 3, 4), generator=generator)


def certain(labels, classes, strength=50.0):
    """Logits that are sure of `labels`."""
    return strength * torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).float()


def dice_by_loops(logits, labels, smooth):
    """The formula by voxel: 1 - mean over foreground classes of (2 sum pg + s) / (sum p + sum g + s)."""
    classes = logits.shape[1]
    scores = []
    for c in range(1, classes):
        overlap = total = 0.0
        for b, z, y, x in torch.cartesian_prod(*(torch.arange(n) for n in labels.shape)).tolist():
            exponentials = [math.exp(v) for v in logits[b, :, z, y, x].tolist()]
            p, g = exponentials[c] / sum(exponentials), float(labels[b, z, y, x] == c)
            overlap += p * g
            total += p + g
        scores.append((2 * overlap + smooth) / (total + smooth))
    return 1 - sum(scores) / len(scores)


@pytest.mark.parametrize("classes", [2, 4])
def test_dice_is_that_of_plain_loops(classes):
    logits, labels = random_batch(classes)
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


def test_cross_entropy_is_added():
    logits, labels = random_batch()
    loss, logs = dice_cross_entropy(logits, labels)
    entropy = 0.0
    for b, z, y, x in torch.cartesian_prod(*(torch.arange(n) for n in labels.shape)).tolist():
        values = logits[b, :, z, y, x].tolist()
        entropy -= values[labels[b, z, y, x]] - math.log(sum(math.exp(v) for v in values))
    assert float(logs["loss/cross_entropy"]) == pytest.approx(entropy / labels.numel(), rel=1e-5)
    assert float(logs["loss/dice"]) == pytest.approx(dice_loss(logits, labels).item(), rel=1e-6)
    assert loss.item() == pytest.approx(sum(float(v) for v in logs.values()), rel=1e-6)
    assert not any(v.requires_grad for v in logs.values())


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
