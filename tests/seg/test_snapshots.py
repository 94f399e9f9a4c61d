"""Pictures of a training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fewvox.data.labels import IGNORED, LabelTable
from fewvox.seg.networks.registry import architecture_for, build
from fewvox.seg.snapshots import Snapshots, seen_in_training, write_picture
from fewvox.seg.validation import Slice, Validator
from PIL import Image


class Told:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.all = []

    def step(self, *args):
        self.all.append(("step", *args))

    def validated(self, *args):
        self.all.append(("validated", *args))


def validator_of(store, cases=("c03", "c04")):
    plan = replace(store.plan, training=replace(store.plan.training, width=4))
    return Validator(store, cases, plan, build(architecture_for(plan), 0))


def test_each_validation_leaves_a_picture_and_is_told_on(tiny_store, tmp_path):
    validator, told = validator_of(tiny_store), Told()
    snapshots = Snapshots(tmp_path, tiny_store.plan, validator, told)
    snapshots.step(1, 8, 0.5)
    for done in (4, 8):
        scores = validator()
        snapshots.validated(done, scores)
    assert told.all == [("step", 1, 8, 0.5), ("validated", 4, scores), ("validated", 8, scores)]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["step_4.png", "step_8.png"]
    with Image.open(tmp_path / "pictures/step_8.png") as picture:
        assert min(picture.size) > 200


def test_the_picture_is_of_the_first_case(tiny_store):
    validator = validator_of(tiny_store)
    validator()
    assert validator.seen is not None
    assert validator.seen.case == "c03"
    true = tiny_store.label("c03")[:]
    assert (validator.seen.true > 0).sum() == (true > 0).sum(axis=(1, 2)).max()
    assert (true == validator.seen.true).all(axis=(1, 2)).any()


def test_without_validation_a_training_case_is_seen_around_its_foreground(tiny_store):
    plan = replace(tiny_store.plan, training=replace(tiny_store.plan.training, width=4))
    network = build(architecture_for(plan), 0)
    state = torch.get_rng_state()
    seen = seen_in_training(tiny_store, ("c01",), plan, network, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert (seen.case, seen.image.shape) == ("c01", (1, *plan.training.patch[1:]))
    assert (seen.true > 0).any()


@pytest.mark.parametrize("kind", ["classes", "overlapping"])
def test_what_nobody_annotated_is_outlined_nowhere(write_store, tmp_path, kind):
    table = LabelTable(kind=kind, values=(0, 1, 2), ignore=255)
    numbers = np.full((2, 4, 8, 8) if kind == "overlapping" else (4, 8, 8), IGNORED, np.int8)
    numbers[..., 2, 2:6, 2:6] = 1
    image = np.random.default_rng(0).normal(size=(4, 8, 8)).astype(np.float32)
    store = write_store(tmp_path / "store", table, {"a": (image, numbers)})
    network = build(architecture_for(store.plan), 0)
    seen = seen_in_training(store, ("a",), store.plan, network, 0)
    assert not seen.predicted[seen.true == IGNORED].any()
    write_picture(tmp_path, store.plan, seen, "training case", 3)
    assert (tmp_path / "pictures/step_3.png").stat().st_size > 1000


def test_a_picture_that_is_there_is_drawn_anew(tmp_path, make_plan):
    """A resumed training makes its last steps again."""
    nothing = np.zeros((1, 8, 8))
    seen = Slice(case="a", image=nothing, true=nothing, predicted=nothing)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/step_3.png").write_bytes(b"half a pic")
    write_picture(tmp_path, make_plan(), seen, "validation case", 3)
    with Image.open(tmp_path / "pictures/step_3.png") as picture:
        assert picture.format == "PNG"
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["step_3.png"]
