"""The pictures of SmartPatch."""

import numpy as np
from fewvox.experiments.smartpatch_gallery import coverage, write_smartpatch_pictures
from PIL import Image


def test_every_picture_of_the_page_is_drawn(tmp_path):
    write_smartpatch_pictures(tmp_path / "pictures")
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {f"smartpatch_{name}.png" for name in ("boxes", "schedule", "coverage")}
    for path in (tmp_path / "pictures").iterdir():
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 10


def test_coverage_counts_the_boxes_over_each_voxel():
    size = np.array([8.0, 96.0, 48.0])
    found = coverage([np.zeros(3), np.array([0, 0, 24.0]), np.array([0, 0, 48.0])], size)
    np.testing.assert_allclose(found[0, [0, 30, 40, 60, 90]], [0.5, 1, 1, 1, 0.5])
