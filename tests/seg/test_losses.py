"""Losses against plain loops and MONAI's."""

import math

import pytest
import torch
from fewvox.data.labels import IGNORED
from fewvox.data.settings import SettingsError, parse
from fewvox.seg import losses
from fewvox.seg.losses import LossConfig, segmentation_loss
from monai.losses.focal_loss import FocalLoss
from monai.losses.tversky import TverskyLoss

NAMES = ("dice_ce", "tversky", "tversky_ce", "focal", "dice_focal")


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


def dice_of(logits, labels, *, overlapping=False):
    return float(segmentation_loss(logits, labels, overlapping=overlapping)[1]["loss/dice"])


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("classes", [2, 4])
def test_dice_is_that_of_plain_loops(classes, share, monkeypatch):
    monkeypatch.setattr(losses, "_SMOOTH", 0.1)
    logits, labels = random_batch(classes)
    labels = labels.masked_fill(open_voxels(labels, share), IGNORED)
    assert dice_of(logits, labels) == pytest.approx(dice_by_loops(logits, labels, 0.1), abs=1e-6)


def test_a_perfect_prediction_costs_nothing():
    _, labels = random_batch()
    loss, _ = segmentation_loss(certain(labels, 3), labels)
    assert float(loss) == pytest.approx(0, abs=1e-5)


def test_a_prediction_that_misses_everything_costs_one():
    _, labels = random_batch(2)
    assert dice_of(certain(1 - labels, 2), labels) == pytest.approx(1, abs=1e-5)


def test_a_class_that_is_absent_and_not_predicted_costs_nothing():
    labels = torch.zeros(1, 2, 3, 4, dtype=torch.long)
    labels[0, 0] = 1
    assert dice_of(certain(labels, 3), labels) == pytest.approx(0, abs=1e-4)


def test_a_class_that_is_absent_but_predicted_costs_its_share():
    labels = torch.zeros(1, 2, 3, 4, dtype=torch.long)
    labels[0, 0] = 1
    predicted = labels.clone()
    predicted[0, 1, 0, 0] = 2
    assert dice_of(certain(predicted, 3), labels) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_cross_entropy_is_added(share):
    logits, labels = random_batch()
    labels = labels.masked_fill(open_voxels(labels, share), IGNORED)
    loss, logs = segmentation_loss(logits, labels)
    assert float(logs["loss/cross_entropy"]) == pytest.approx(entropy_by_loops(logits, labels), rel=1e-5)
    assert loss.item() == pytest.approx(sum(float(v) for v in logs.values()), rel=1e-6)
    assert not any(v.requires_grad for v in logs.values())


def test_a_whole_annotation_costs_what_it_always_did():
    """Recorded before voxels could be unannotated."""
    logits, labels = random_batch()
    loss, _ = segmentation_loss(logits, labels)
    loss.backward()
    assert loss.item() == pytest.approx(1.9678064585, abs=1e-6)
    assert logits.grad is not None
    assert logits.grad[0, 1, 0, 0].tolist() == pytest.approx(
        [0.0157587156, -0.0217975825, 0.0043875719, 0.0134500945], abs=1e-7
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_overlapping_classes_cost_what_plain_loops_say(channels):
    logits, labels = random_overlapping(channels)
    loss, logs = segmentation_loss(logits, labels, overlapping=True)
    dice, entropy = overlapping_by_loops(logits, labels, 1e-5)
    assert float(logs["loss/dice"]) == pytest.approx(dice, abs=1e-6)
    assert float(logs["loss/cross_entropy"]) == pytest.approx(entropy, rel=1e-5)
    assert loss.item() == pytest.approx(dice + entropy, rel=1e-5)


@pytest.mark.parametrize("name", ["dice_ce", "tversky_ce", "dice_focal"])
def test_two_sides_of_a_sigmoid_cost_what_a_softmax_of_two_classes_does(name):
    logits, labels = random_batch(2)
    alone = (logits[:, 1:] - logits[:, :1]).detach()
    expected, _ = segmentation_loss(logits, labels, LossConfig(name=name))
    found, _ = segmentation_loss(alone, labels[:, None], LossConfig(name=name), overlapping=True)
    assert found.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("overlapping", [False, True])
def test_overlap_is_that_of_monai(overlapping, batch):
    logits, labels = random_batch(4)
    if overlapping:
        labels = torch.randint(0, 2, logits.shape, generator=torch.Generator().manual_seed(3))
    theirs = TverskyLoss(
        include_background=overlapping,
        sigmoid=overlapping,
        softmax=not overlapping,
        to_onehot_y=not overlapping,
        alpha=0.2,
        beta=0.9,
        batch=batch,
    )
    config = LossConfig(name="tversky", alpha=0.2, beta=0.9, batch_dice=batch)
    expected = theirs(logits, labels if overlapping else labels[:, None]).item()
    found, logs = segmentation_loss(logits, labels, config, overlapping=overlapping)
    assert (found.item(), list(logs)) == (pytest.approx(expected, abs=1e-5), ["loss/tversky"])


@pytest.mark.parametrize("gamma", [1.0, 2.5])
@pytest.mark.parametrize("overlapping", [False, True])
def test_focal_is_that_of_monai(overlapping, gamma):
    logits, labels = random_batch(4)
    if overlapping:
        labels = torch.randint(0, 2, logits.shape, generator=torch.Generator().manual_seed(3))
    theirs = FocalLoss(
        include_background=True, gamma=gamma, use_softmax=not overlapping, to_onehot_y=not overlapping
    )
    expected = theirs(logits, labels if overlapping else labels[:, None]).item()
    # its mean is over the channels too, of which but one is not 0
    expected *= 1 if overlapping else 4
    found, _ = segmentation_loss(
        logits, labels, LossConfig(name="focal", gamma=gamma), overlapping=overlapping
    )
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_of_each_item_dice_is_the_mean_over_the_annotated_ones():
    logits, labels = random_batch()
    config = LossConfig(batch_dice=False)
    each = [segmentation_loss(logits[i : i + 1], labels[i : i + 1], config)[1]["loss/dice"] for i in range(2)]
    both = segmentation_loss(logits, labels, config)[1]["loss/dice"]
    assert float(both) == pytest.approx(float(sum(each)) / 2, rel=1e-6)
    assert float(both) != pytest.approx(dice_of(logits, labels), rel=1e-4)
    labels[1] = IGNORED
    assert segmentation_loss(logits, labels, config)[1]["loss/dice"] == pytest.approx(float(each[0]))


def test_terms_are_weighted():
    logits, labels = random_batch()
    loss, logs = segmentation_loss(logits, labels, LossConfig(weights=(0.5, 3.0)))
    dice, entropy = (float(value) for value in logs.values())
    assert loss.item() == pytest.approx(0.5 * dice + 3 * entropy)


def random_of(kind):
    """Logits, labels without a gap, and which voxels (B, Z, Y, X) are to be left open."""
    logits, labels = random_overlapping() if kind == "overlapping" else random_batch()
    labels = labels.clamp_min(0)
    return logits, labels, open_voxels(labels)


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["classes", "overlapping"])
def test_voxels_that_nobody_annotated_have_no_gradient_and_no_say(kind, name, batch):
    config, overlapping = LossConfig(name=name, batch_dice=batch), kind == "overlapping"
    logits, labels, unannotated = random_of(kind)
    labels = labels.masked_fill(unannotated[:, None] if overlapping else unannotated, IGNORED)
    loss, _ = segmentation_loss(logits, labels, config, overlapping=overlapping)
    loss.backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad.abs().sum(dim=1) > 0, ~unannotated)
    changed = torch.where(unannotated[:, None], 99.0, logits.detach())
    assert torch.equal(segmentation_loss(changed, labels, config, overlapping=overlapping)[0], loss)


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["classes", "overlapping"])
def test_a_batch_that_nobody_annotated_costs_nothing_and_moves_nothing(kind, name, batch):
    logits, labels, _ = random_of(kind)
    config = LossConfig(name=name, batch_dice=batch)
    nothing = torch.full_like(labels, IGNORED)
    loss, logs = segmentation_loss(logits, nothing, config, overlapping=kind == "overlapping")
    loss.backward()
    assert (loss.item(), {float(v) for v in logs.values()}) == (0, {0})
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["classes", "overlapping"])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("only_background", [False, True])
def test_the_gradient_is_finite_and_there(scale, only_background, kind, name):
    logits, labels, _ = random_of(kind)
    if only_background:
        labels = torch.zeros_like(labels)
    loss, _ = segmentation_loss(
        logits * scale, labels, LossConfig(name=name), overlapping=kind == "overlapping"
    )
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    # overlap alone is sure of the wrong: its gradient is lost in rounding
    assert logits.grad.any() or (name == "tversky" and scale > 1)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_logits_are_summed_in_float32(name):
    # half precision ends at 65,504: the sum of this many probabilities would be infinite
    logits, labels = torch.zeros(1, 2, 1, 400, 400), torch.ones(1, 1, 400, 400, dtype=torch.int8)
    expected, _ = segmentation_loss(logits, labels, LossConfig(name=name))
    found, _ = segmentation_loss(logits.half(), labels, LossConfig(name=name))
    assert (found.item(), found.dtype) == (pytest.approx(expected.item()), torch.float32)


def test_an_overlap_that_no_error_lowers_is_refused():
    with pytest.raises(SettingsError, match="one of alpha and beta"):
        parse(LossConfig, {"name": "tversky", "alpha": 0, "beta": 0}, "test")


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({"alpha": 0.5}, "alpha: no part of dice_ce"),
        ({"gamma": 3.0}, "gamma: no part of dice_ce"),
        ({"name": "tversky", "weights": (1.0, 2.0)}, "weights: no part of tversky"),
        ({"name": "dice_focal", "beta": 0.5}, "beta: no part of dice_focal"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings, idle):
    with pytest.raises(ValueError, match=idle):
        LossConfig(**settings)
