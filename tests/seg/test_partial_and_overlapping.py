"""Labels that are partial, or whose classes overlap, from the store to the scores."""

import numpy as np
import pytest
from fewvox.data.augment.chain import preset
from fewvox.data.formats import tiff
from fewvox.data.formats.files import read_volume
from fewvox.data.labels import IGNORED, LabelTable
from fewvox.data.loader import PatchConfig
from fewvox.data.splits import Split
from fewvox.seg import checkpoint
from fewvox.seg.batch_predict import predict
from fewvox.seg.engine.optimisers import OptimiserConfig
from fewvox.seg.evaluate import evaluate
from fewvox.seg.finetune import FinetuneConfig, finetune
from fewvox.seg.validation import Validator

SHAPE, CASES = (8, 16, 16), ("a", "b", "c", "d")
SPLIT = Split(train=("a", "b"), validation=("c",), test=("d",))
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


@pytest.fixture(scope="module", params=[PARTIAL, OVERLAPPING], ids=lambda table: table.kind)
def trained(request, data, tmp_path_factory):
    """The table, a run on it, and the folders of its masks and probabilities of case d and of the labels."""
    (folder, store), out = data(request.param), tmp_path_factory.mktemp("trained")
    # a whole volume a patch: only beside the other can a ball be told to be the brighter; in so few steps,
    # half of the seeds find but one of the two
    config = FinetuneConfig(
        steps=60,
        seed=2,
        batch=2,
        patch=SHAPE,
        device="cpu",
        patches=PatchConfig(augment=preset("none")),
        optimizer=OptimiserConfig(lr=0.02),
    )
    run = finetune(store, SPLIT, out / "run", config)
    images, masks = folder / "images", out / "masks"
    predicted = predict(run.path, images, masks, only=["d"], probabilities=True, postprocess="none")
    assert predicted.problems == ()
    return request.param, run, masks, folder / "labels"


def test_a_run_knows_its_labels_and_writes_masks_and_probabilities_of_them(trained):
    table, run, masks, _ = trained
    info = checkpoint.load(run.path).info
    assert (info.architecture.classes, info.plan.labels) == (table.outputs, table)
    told = {"classes": "label values (0, 1, 2)", "overlapping": "2 classes that may overlap"}[table.kind]
    assert f"- Output: {told}" in (run.path / "README.md").read_text()
    mask, maps = (read_volume(masks / name).array for name in ("d.tif", "d_probabilities.tif"))
    assert (maps.dtype, maps.shape) == (np.float32, (table.outputs, *SHAPE))
    expected = maps > 0.5 if table.kind == "overlapping" else maps.argmax(axis=0)[None]
    np.testing.assert_array_equal(mask, expected)


def test_two_annotated_slices_are_enough_to_find_what_nobody_showed(trained):
    """Were unannotated voxels learned as background, nothing would be found in the other slices."""
    table, _, masks, _ = trained
    mask, true = read_volume(masks / "d.tif").array, balls(CASES.index("d"))[1]
    if table.kind == "classes":
        mask, true = np.concatenate([mask == 1, mask == 2]), np.stack([true[0] & ~true[1], true[1]])
    unseen = [0, 1, 3, 5, 6, 7]
    found = [(m & t).sum() / t.sum() for m, t in zip(mask[:, unseen] > 0, true[:, unseen], strict=True)]
    assert min(found) > 0.7


def test_scores_are_those_of_the_two_slices(trained):
    _, run, masks, labels = trained
    found = evaluate(masks, labels)
    assert (found.problems, {s.value for s in found.scores}) == ((), {1, 2})
    mean = found.mean()
    assert mean is not None
    assert mean > 0.8
    assert run.scores["score"] > 0.8


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
