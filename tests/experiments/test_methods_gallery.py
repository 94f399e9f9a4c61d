"""What a method shows its network is what the picture shows."""

import io

import numpy as np
import pytest
import torch
from fewvox.experiments.methods_gallery import picture, seen
from fewvox.ssl.methods.registry import METHODS
from PIL import Image


@pytest.mark.parametrize(("name", "images"), [("mae", 2), ("triplet", 4)])
def test_all_that_the_network_is_shown_is_noted(tiny_store, name, images):
    batch, shown = seen(METHODS[name], name, tiny_store)
    assert len(shown) == images
    views = torch.cat(batch.views)
    alike = [any(torch.equal(image, view) for view in views) for image in shown]
    # of a masked view something is missing
    assert alike == [name == "triplet"] * images
    if name == "mae":
        assert all((image == 0).float().mean() > 0.4 for image in shown)


def test_a_picture_has_views_and_what_is_shown(tiny_store):
    batch, shown = seen(METHODS["mae"], "mae", tiny_store)
    drawn = np.asarray(Image.open(io.BytesIO(picture(batch, shown))).convert("L"))
    assert drawn.shape[0] > 100
    assert drawn.std() > 10
