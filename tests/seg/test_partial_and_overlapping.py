"""Labels that are partial, or whose classes overlap, from the store to the scores."""

from dataclasses import replace

import numpy as np
import pytest
from fewvox.data.formats import tiff
from fewvox.data.formats.files import read_volume
from fewvox.data.labels import IGNORED, LabelTable
from fewvox.data.loader import PatchConfig
from fewvox.data.splits import Split
from fewvox.seg import checkpoint
from fewvox.seg.batch_predict import predict
from fewvox.seg.engine.optimisers import OptimiserConfig
from fewvox.seg.engine.tracking import read_metrics
from fewvox.seg.evaluate import evaluate
from fewvox.seg.finetune import FinetuneConfig, Validator, finetune

SHAPE, CASES = (8, 16, 16), ("a", "b", "c", "d")
SPLIT = Split(train=("a", "b"), validation=("c",), test=("d",))
CONFIG = FinetuneConfig(
    steps=5, batch=2, device="cpu", patches=PatchConfig(intensity=None), optimizer=OptimiserConfig(lr=0.02)
)
PARTIAL = LabelTable(values=(0, 1, 2), ignore=255)
OVERLAPPING = LabelTable(kind="overlapping", values=(0, 1, 2), ignore=255)


def balls(index):
    """An image (Z, Y, X) of a bright ball that a brighter one cuts into, and the two balls (2, Z, Y, X)."""
    rng = np.random.default_rng(index)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    centres = np.array([[4, 7, 6], [4, 8, 11]]) + rng.uniform(-1, 1, (2, 3))
    both = np.stack([np.linalg.norm((places - c) * (1.5, 1, 1), axis=-1) < 4.5 for c in centres])
    image = 100 + 100 * both[0] + 250 * both[1] + rng.normal(0, 5, SHAPE)
    return image.astype(np.float32), both


def values_of(both, table):
    """The label file: the third slice and the fifth are annotated, every other voxel is 255."""
    label = (
        both.astype(np.uint8)
        if table.kind == "overlapping"
        else np.where(both[1], 2, both[0]).astype(np.uint8)
    )
    unannotated = ~np.isin(np.arange(SHAPE[0]), (2, 4))[:, None, None]
    return np.where(unannotated, np.uint8(255), label)


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_store):
    """Folders of images and of labels, and a store of them, for a table of labels; each made once."""
    made = {}

    def make(table):
        if table.kind in made:
            return made[table.kind]
        folder, stored = tmp_path_factory.mktemp(table.kind), {}
        for index, case in enumerate(CASES):
            image, both = balls(index)
            label = values_of(both, table)
            for name, array in (("images", image), ("labels", label)):
                (folder / name).mkdir(exist_ok=True)
                tiff.write_new(folder / name / f"{case}.tif", array, (1.0, 1.0, 1.0), "um")
            stored[case] = ((image - image.mean()) / image.std(), table.encode(label))
        made[table.kind] = folder, write_store(folder / "store", table, stored)
        return made[table.kind]

    return make


@pytest.mark.parametrize("table", [PARTIAL, OVERLAPPING], ids=lambda t: t.kind)
def test_a_few_steps_give_masks_and_scores(data, tmp_path, table):
    folder, store = data(table)
    made = finetune(store, SPLIT, tmp_path / "run", CONFIG)
    info = checkpoint.load(made.path).info
    assert (info.architecture.classes, info.plan.labels) == (table.outputs, table)
    assert all(np.isfinite(line["loss"]) for line in read_metrics(made.path) if "loss" in line)
    predicted = predict(made.path, folder / "images", tmp_path / "out", only=["d"], probabilities=True)
    assert predicted.problems == ()
    mask = read_volume(tmp_path / "out/d.tif").array
    maps = read_volume(tmp_path / "out/d_probabilities.tif").array
    assert (maps.dtype, maps.shape) == (np.float32, (table.outputs, *SHAPE))
    assert mask.shape == ((2 if table.kind == "overlapping" else 1), *SHAPE)
    assert set(np.unique(mask)) <= {0, 1, 2}
    found = evaluate(tmp_path / "out", folder / "labels")
    assert (found.problems, {s.value for s in found.scores}) == ((), {1, 2})
    assert found.mean() is not None


@pytest.mark.parametrize("table", [PARTIAL, OVERLAPPING], ids=lambda t: t.kind)
def test_two_annotated_slices_are_enough_to_find_what_nobody_showed(data, tmp_path, table):
    """Were the unannotated voxels learned as background, nearly all of every mask would be empty."""
    folder, store = data(table)
    made = finetune(store, SPLIT, tmp_path / "run", replace(CONFIG, steps=60))
    assert made.scores["score"] > 0.8
    predict(made.path, folder / "images", tmp_path / "out", only=["d"])
    mask, both = read_volume(tmp_path / "out/d.tif").array, balls(CASES.index("d"))[1]
    masks = mask > 0 if table.kind == "overlapping" else np.stack([mask[0] == 1, mask[0] == 2])
    true = both if table.kind == "overlapping" else np.stack([both[0] & ~both[1], both[1]])
    unseen = [0, 1, 3, 5, 6, 7]
    overlaps = [
        2 * (a & b).sum() / (a.sum() + b.sum())
        for a, b in zip(masks[:, unseen], true[:, unseen], strict=True)
    ]
    assert min(overlaps) > 0.7
    if table.kind == "overlapping":
        assert (masks[0] & masks[1]).sum() > 0.5 * (both[0] & both[1]).sum()
    assert evaluate(tmp_path / "out", folder / "labels").mean() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("table", [PARTIAL, OVERLAPPING], ids=lambda t: t.kind)
def test_validation_scores_what_is_annotated_alone(data, table, monkeypatch):
    """A prediction that is right there and wrong everywhere else."""
    _, store = data(table)
    validator = Validator(store, ("c",), store.plan, None)  # type: ignore[arg-type]
    numbers = store.label("c")[:]
    for wrong in (0, 1):
        right = np.where(numbers == IGNORED, wrong, numbers).astype(np.uint8)
        monkeypatch.setattr("fewvox.seg.predict.Predictor.classes", lambda *_, right=right: right.copy())
        assert validator() == {"score": 1, "dice/1": 1, "dice/2": 1}


def test_a_validation_case_without_any_annotation_has_no_score(write_store, tmp_path, monkeypatch):
    image, _ = balls(0)
    nothing = np.full(SHAPE, IGNORED, np.int8)
    store = write_store(tmp_path / "store", PARTIAL, {"a": (image, nothing)})
    monkeypatch.setattr("fewvox.seg.predict.Predictor.classes", lambda *_: np.ones(SHAPE, np.uint8))
    assert Validator(store, ("a",), store.plan, None)() == {}  # type: ignore[arg-type]
