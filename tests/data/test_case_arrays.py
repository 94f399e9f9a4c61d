"""Arrays of a case are written in the type they need, with positions drawn evenly from all of a class."""

import numpy as np
import pytest
from fewvox.data import case_arrays as module
from fewvox.data.case_arrays import write_foreground, write_image, write_labels
from fewvox.data.intensities import measure
from fewvox.data.label_voxels import ClassNumbers, LabelVoxels
from fewvox.data.labels import IGNORED, LabelTable
from fewvox.data.plan import Preprocessing, Window
from fewvox.data.preprocess import normalised
from fewvox.data.store import open_array, write_array

SEED = "0123456789abcdef0000"


def how(*schemes, windows=()) -> Preprocessing:
    return Preprocessing(
        unit=None,
        spacing=None,
        orientation="stored",
        channels=tuple(f"c{n}" for n in range(len(schemes))),
        normalisation=schemes,
        windows=windows,
    )


def stored(folder, array: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    measured = [measure(array[c : c + 1]) for c in range(len(array))]
    write_image(folder, array, array.shape[1:], preprocessing, measured)
    found = open_array(folder / "image_0.b2nd")[:]
    np.testing.assert_array_equal(found, normalised(array, preprocessing, measured).astype(found.dtype))
    return found


NOISE = np.random.default_rng(0).normal(size=(1, 6, 7, 8)).astype(np.float32)
SPIKE = NOISE * 1e-3
SPIKE[0, 0, 0, 0] = 1e4
CT = Window(low=-100, high=100, mean=0, std=2)


@pytest.mark.parametrize(
    ("array", "preprocessing", "dtype"),
    [
        (NOISE * 1000, how("zscore"), np.float16),
        (np.concatenate([SPIKE, NOISE]), how("percentile", "zscore"), np.float32),
        (np.concatenate([NOISE, SPIKE]), how("zscore", "percentile"), np.float32),
        (NOISE * 20, how("ct", windows=(CT,)), np.float32),
        (NOISE, how("ct", windows=(CT,)), np.float16),
        (NOISE * 1e-7, how("none"), np.float32),
        (NOISE, how("zscore"), np.float16),
    ],
)
def test_float16_is_for_what_it_holds_well(tmp_path, array, preprocessing, dtype):
    """Values of 1e-7 left as they are once became 0 and multiples of 6e-8."""
    assert stored(tmp_path, array, preprocessing).dtype == dtype


def foreground(folder, labels: np.ndarray, seed=SEED) -> tuple[dict[int, int], dict[int, np.ndarray]]:
    write_array(folder / "label_0.b2nd", labels)
    counts = write_foreground(folder, seed)
    with np.load(folder / "foreground.npz") as file:
        return counts, {int(name): file[name] for name in file.files}


def test_counts_are_of_all_voxels_and_positions_at_most_so_many(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_POSITIONS", 20)
    monkeypatch.setattr(module, "BOX", (2, 3, 5))
    labels = np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(np.int8)
    labels[labels == 3] = 0
    labels[0, 0, 0] = 3
    counts, positions = foreground(tmp_path, labels)
    assert counts == {c: int((labels == c).sum()) for c in (1, 2, 3)}
    assert {c: len(places) for c, places in positions.items()} == {1: 20, 2: 20, 3: 1}
    for c, places in positions.items():
        assert (labels[tuple(places.T)] == c).all()
        assert len({tuple(p) for p in places}) == len(places)
    again = foreground(tmp_path, labels)[1]
    other = foreground(tmp_path, labels, SEED[::-1])[1]
    assert all((again[c] == positions[c]).all() for c in positions)
    assert not np.array_equal(other[1], positions[1])


def test_each_voxel_of_a_class_is_drawn_as_often(tmp_path, monkeypatch):
    """200 draws of 30 of 120 voxels: 50 a voxel, give or take 6."""
    monkeypatch.setattr(module, "MAX_POSITIONS", 30)
    monkeypatch.setattr(module, "BOX", (2, 4, 3))
    drawn = np.zeros((4, 5, 6))
    for n in range(200):
        places = foreground(tmp_path, np.ones((4, 5, 6), np.int8), f"{n * 7919:016x}")[1][1]
        drawn[tuple(places.T)] += 1
    assert drawn.sum() == 200 * 30
    assert np.abs(drawn - 50).max() < 6 * 4.5
    assert np.abs(drawn.reshape(2, 2, -1).mean(axis=(1, 2)) - 50).max() < 4


def test_where_some_is_unannotated_background_has_positions(tmp_path):
    labels = np.zeros((2, 3, 4), np.int8)
    labels[0, 0] = [IGNORED, IGNORED, 1, 0]
    counts, positions = foreground(tmp_path, labels)
    assert (counts, set(positions)) == ({0: 21, 1: 1}, {0, 1})
    assert (labels[tuple(positions[0].T)] == 0).all()
    labels[labels == 0] = 1
    counts, positions = foreground(tmp_path, labels)
    assert (counts, positions[0].shape) == ({0: 0, 1: 22}, (0, 3))
    assert foreground(tmp_path, np.maximum(labels, 0))[0].keys() == {1}


def test_positions_of_overlapping_classes_are_of_each_channel_and_of_none(tmp_path):
    labels = np.zeros((2, 2, 3, 4), np.int8)
    labels[:, 0, 0, 0] = IGNORED
    labels[0, 1], labels[1, 1, 1] = 1, 1
    counts, positions = foreground(tmp_path, labels)
    assert counts == {0: 11, 1: 12, 2: 4}
    for c in (1, 2):
        assert (labels[c - 1][tuple(positions[c].T)] == 1).all()
    assert (labels[:, *positions[0].T] == 0).all()
    assert foreground(tmp_path, np.maximum(labels, 0))[0] == {1: 12, 2: 4}


@pytest.mark.parametrize("kind", ["classes", "overlapping"])
def test_labels_are_stored_with_a_channel_a_class_only_where_they_overlap(tmp_path, kind):
    values = np.random.default_rng(0).integers(0, 2, (2 if kind == "overlapping" else 1, 20, 24, 18))
    region = np.ones((1, 20, 24, 18), np.uint8)
    region[0, :4] = 0
    table = LabelTable(kind=kind, values=(0, 1, 2) if kind == "overlapping" else (0, 1))
    numbers = ClassNumbers(
        labels=LabelVoxels(where="a", array=values.astype(np.uint8)), table=table, region=region
    )
    write_labels(tmp_path, numbers, (20, 24, 18))
    expected = np.where(region > 0, values, IGNORED)
    found = open_array(tmp_path / "label_0.b2nd")[:]
    np.testing.assert_array_equal(found, expected if kind == "overlapping" else expected[0])
    assert found.dtype == np.int8
