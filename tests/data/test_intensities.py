"""Grey values are measured over all voxels, whatever the pieces, and percentiles over all columns."""

import numpy as np
import pytest
from fewvox.data import intensities
from fewvox.data.intensities import measure


@pytest.mark.parametrize("edge", [32, 64])
def test_percentiles_of_a_large_volume_come_from_every_column(monkeypatch, edge):
    """Of 2048 columns the first alone was once read."""
    monkeypatch.setattr(intensities, "_SAMPLE", edge**2)
    volume = np.random.default_rng(0).integers(0, 1000, (1, edge, edge, edge)).astype(np.uint16)
    volume[..., :3] = 0
    found = measure(volume)
    expected = np.percentile(volume, (0.5, 50, 99.5))
    assert found.median == pytest.approx(expected[1], rel=0.1)
    assert found.percentile_99_5 == pytest.approx(expected[2], rel=0.02)
