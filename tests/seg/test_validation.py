"""Scores while a network learns."""

import numpy as np
import pytest
import torch
from fewvox.data.labels import IGNORED, LabelTable
from fewvox.seg.engine.memory import OutOfMemory
from fewvox.seg.validation import PatchValidator, Validator, classes_of, fullest_slice
from torch import nn

SHAPE = (6, 16, 16)
PARTIAL = LabelTable(values=(0, 1, 2), ignore=255)
OVERLAPPING = LabelTable(kind="overlapping", values=(0, 1, 2), ignore=255)


class Known(nn.Module):
    """A network that finds class 1 where the image is above 1 and class 2 above 2."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.weight = kind, nn.Parameter(torch.zeros(1))

    def forward(self, images):
        if self.kind == "overlapping":
            return torch.cat([images - 1, images - 2], dim=1)
        return torch.cat([images * 0, images - 1, 2 * images - 3], dim=1)


@pytest.fixture(params=[PARTIAL, OVERLAPPING], ids=lambda table: table.kind)
def stored(request, write_store, tmp_path):
    """A store of two cases whose labels are what `Known` finds, but for voxels that nobody annotated."""
    table, cases = request.param, {}
    for index, name in enumerate("ab"):
        image = np.random.default_rng(index).uniform(0, 3, SHAPE).astype(np.float16).astype(np.float32)
        levels = np.stack([image > 1, image > 2])
        numbers = (levels if table.kind == "overlapping" else levels.sum(axis=0)).astype(np.int8)
        numbers[..., 0, :, :] = IGNORED
        cases[name] = image, numbers
    return write_store(tmp_path / "store", table, cases)


def test_what_is_right_where_somebody_annotated_scores_one(stored):
    network = Known(stored.plan.labels.kind)
    cases = tuple(stored.cases)
    assert Validator(stored, cases, stored.plan, network)() == {"score": 1, "dice/1": 1, "dice/2": 1}
    assert PatchValidator(stored, cases, stored.plan, network, 0)() == {"dice": 1, "dice/1": 1, "dice/2": 1}


def test_the_patches_are_the_same_each_time(stored):
    network, seen = Known(stored.plan.labels.kind), []
    validator = PatchValidator(stored, ("a", "b"), stored.plan, network, 0)
    network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert validator() == validator()
    first, again = torch.cat(seen).chunk(2)
    assert torch.equal(first, again)
    assert len(first) == 16


def test_the_voxels_of_all_patches_are_counted_together(stored):
    """Dice of class 2, found where the image is above 2.2 and not above 2."""
    overlapping = stored.plan.labels.kind == "overlapping"
    network = Known(stored.plan.labels.kind)
    validator = PatchValidator(stored, ("a", "b"), stored.plan, network, 0)
    batches = [validator.sampler.batch(index) for index in range(validator.batches)]
    images = torch.cat([batch.images[:, 0] for batch in batches])
    labels = torch.cat([batch.labels[:, 1] if overlapping else batch.labels for batch in batches])
    true, found = labels == (1 if overlapping else 2), (images > 2.2) & (labels != IGNORED)
    network.register_forward_pre_hook(lambda _, args: args[0] - 0.2)
    expected = 2 * (true & found).sum() / (true.sum() + found.sum())
    assert validator()["dice/2"] == pytest.approx(expected.item())
    assert expected < 0.95


def test_glancing_leaves_the_random_state_and_needs_no_gradient(stored):
    network = Known(stored.plan.labels.kind)
    state = torch.get_rng_state()
    PatchValidator(stored, ("a",), stored.plan, network, 0)()
    assert torch.equal(torch.get_rng_state(), state)
    assert network.weight.grad is None


def test_a_class_that_is_neither_there_nor_found_has_no_score(write_store, tmp_path):
    image = np.linspace(0, 2, 6 * 16 * 16, dtype=np.float32).reshape(SHAPE)
    store = write_store(tmp_path / "store", PARTIAL, {"a": (image, (image > 1).astype(np.int8))})
    network = Known("classes")
    assert set(Validator(store, ("a",), store.plan, network)()) == {"score", "dice/1"}
    assert set(PatchValidator(store, ("a",), store.plan, network, 0)()) == {"dice", "dice/1"}


def test_the_slice_that_is_kept_has_most_foreground():
    image = np.arange(4.0)[:, None, None] * np.ones((4, 3, 3))
    true = np.zeros((4, 3, 3), np.int8)
    true[1, 0], true[2, :2], true[3] = 1, 2, IGNORED
    kept = fullest_slice("a", image, true, true)
    assert (kept.image.shape, kept.image.mean(), kept.true.sum()) == ((1, 3, 3), 2, 12)
    assert kept.image.base is None  # the volume can be forgotten
    overlapping = fullest_slice("a", image, np.stack([true * 0, true]), np.stack([true, true]))
    assert (overlapping.image.mean(), overlapping.true.shape) == (2, (2, 1, 3, 3))


def test_classes_are_the_likeliest_or_all_that_are_likelier_than_not():
    logits = torch.tensor([[3.0, -1.0], [5.0, -2.0], [100.0, -3.0]]).view(3, 1, 1, 2)
    assert classes_of(logits, LabelTable(values=(0, 1, 2))).ravel().tolist() == [2, 0]
    of_each = classes_of(logits, LabelTable(kind="overlapping", values=(0, 1, 2, 3)))
    assert of_each.reshape(3, 2).tolist() == [[1, 0]] * 3


def test_lack_of_memory_names_the_case_and_not_the_step(stored):
    class Large(Known):
        def forward(self, images):
            raise MemoryError

    with pytest.raises(OutOfMemory, match=r"validation case a.*predicted whole"):
        Validator(stored, ("a",), stored.plan, Large(stored.plan.labels.kind))()
