"""Mirrored windows are averaged over all eight flips."""

import torch
from fewvox.seg.mirroring import mirrored


def test_the_mean_is_over_the_eight_flips_turned_back():
    seen = []
    place = torch.arange(24.0).reshape(1, 1, 2, 3, 4)

    def predict(images):
        seen.append(images.clone())
        return images * place

    images = torch.randn(1, 1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    found = mirrored(predict)(images)
    # each voxel is weighed by the mean of the places it is turned to, 11.5 for all
    torch.testing.assert_close(found, images * 11.5)
    assert len(seen) == 8
    assert len({tuple(one.ravel().tolist()) for one in seen}) == 8


def test_what_the_network_gave_is_not_written_over():
    fixed = torch.ones(1, 1, 2, 2, 2)
    mirrored(lambda _: fixed)(torch.zeros(1, 1, 2, 2, 2))
    assert fixed.eq(1).all()
