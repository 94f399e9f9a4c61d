"""A volume is scanned and prepared in slabs: what it takes does not grow with its depth."""

import json
import subprocess
import sys

import numpy as np
import pytest
import zarr

SHAPE = (280, 1024, 1024)
# the program alone, then what scanning and preparing added at most, in bytes (Linux counts in KiB)
MEASURED = """
import json, resource, sys
from fewvox.data.plan import make_plan
from fewvox.data.prepare import prepare
from fewvox.data.scan import scan

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak()
found = scan(sys.argv[1])
scanned = peak()
store = prepare(found, make_plan(found.fingerprint, budget="cpu"), sys.argv[2])
print(json.dumps([scanned - before, peak() - before, [p.found for p in found.problems]]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems count resident memory otherwise")
def test_a_volume_beyond_the_limit_is_never_in_memory_whole(tmp_path):
    group = zarr.open_group(tmp_path / "data" / "a.ome.zarr", mode="w", zarr_format=2)
    array = group.create_array("0", shape=SHAPE, chunks=(64, 128, 128), dtype="u1", fill_value=0)
    rng = np.random.default_rng(0)
    for start in (0, 128, 216):
        array[start : start + 64, 256:384, 512:640] = rng.integers(0, 255, (64, 128, 128), dtype=np.uint8)
    scale = [{"type": "scale", "scale": [2.0, 1.0, 1.0]}]
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    image = {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group.attrs["multiscales"] = [image]
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "data"), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    scanned, prepared, problems = json.loads(done.stdout.splitlines()[-1])
    assert problems == []
    voxels = int(np.prod(SHAPE))
    # whole, it would be four bytes a voxel as float32
    assert scanned < 2 * voxels
    assert prepared < 2.5 * voxels
