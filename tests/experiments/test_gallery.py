"""A picture of every augmentation, of which each shows a change."""

import numpy as np
import pytest
import torch
from fewvox.experiments.gallery import Subject, changes, picture, write_gallery

RNG = np.random.default_rng(0)
VOXELS = RNG.normal(size=(1, 12, 16, 18)).astype(np.float32)
SUBJECT = Subject(name="MRI", image=torch.from_numpy(VOXELS), spacing=(1.0, 1.0, 1.0))
CHANGES = changes()


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_shows_and_leaves_the_subject_as_it_was(name):
    after = CHANGES[name](SUBJECT)
    assert after.shape == SUBJECT.image.shape
    assert (after != SUBJECT.image).float().mean() > 0.05
    np.testing.assert_array_equal(SUBJECT.image, VOXELS)


def test_the_same_change_gives_the_same_picture():
    one, two = (picture("elastic", CHANGES["elastic"], (SUBJECT, SUBJECT)) for _ in range(2))
    assert one == two
    assert one.startswith(b"\x89PNG")


def test_a_gallery_has_a_file_for_each_change(tmp_path, monkeypatch):
    np.save(tmp_path / "mri.npy", VOXELS[0])
    monkeypatch.setattr("fewvox.experiments.gallery.changes", lambda: {"flip": CHANGES["flip"]})
    written = write_gallery(tmp_path, tmp_path / "mri.npy")
    assert written == [tmp_path / "flip.png"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
