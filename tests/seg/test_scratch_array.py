"""Arrays that are too large for memory stand in a file that nobody sees."""

import numpy as np
from fewvox.seg.scratch_array import scratch_array


def test_a_small_array_is_in_memory_and_a_large_one_in_a_file_without_name(tmp_path):
    small = scratch_array((2, 3), np.dtype(np.uint8), folder=tmp_path, most=6)
    large = scratch_array((2, 3), np.dtype(np.float32), folder=tmp_path, most=6)
    assert not isinstance(small, np.memmap)
    assert isinstance(large, np.memmap)
    large[:] = 7
    assert (large.shape, large.dtype, float(large.sum())) == ((2, 3), np.float32, 42.0)
    assert list(tmp_path.iterdir()) == []
