"""What predicting a volume takes in memory, and into how many regions it is cut to fit."""

# Shapes: C = channels, K = classes.

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from ..data.errors import UserError
from ..data.resample import needed
from ..data.slabs import boxes, thin
from ..data.volume import Shape
from .tiles import Tiles

# of what is free: the rest is for what is not counted here
_USED = 0.8
_FLOAT = 4


def usable_bytes() -> int:
    """Memory that a prediction may take where nobody says: of the machine, of its control group or limit."""
    return int(_USED * min(psutil.virtual_memory().available, _free_in_group(), _free_of_limit()))


def _free_in_group(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """What the control group (version 2) of a container leaves; inf where there is none."""
    try:
        limit, used = (folder / "memory.max").read_text(), (folder / "memory.current").read_text()
    except OSError:
        return math.inf
    return math.inf if limit.strip() == "max" else max(0, int(limit) - int(used))


def _free_of_limit() -> float:
    """What `ulimit -v` leaves; inf where there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return math.inf
    return max(0, limit - psutil.Process().memory_info().vms)


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one network takes for a volume of `shape`.

    `voxel_bytes` are those of a voxel as stored, `passing` those of a forward pass (`activation_bytes`).
    """

    tiles: Tiles
    shape: Shape
    channels: int
    classes: int
    voxel_bytes: int
    passing: int

    def of(self, rows: slice) -> int:
        """Bytes in memory while a region, these rows of the volume, is predicted."""
        depth, width = self.tiles.patch[0], self.tiles.padded[2]
        plane = self._height(rows) * width * _FLOAT
        kept = (self.channels + self.classes) * depth * plane
        weights = math.prod(self.tiles.patch) * _FLOAT
        # means, probabilities, and what resampling makes of them
        slab = next(thin(slice(0, self.shape[0]), (1, *self.shape)))
        passed_on = 4 * self.classes * (slab.stop * (rows.stop - rows.start) * self.shape[2] * _FLOAT + plane)
        read = self.voxel_bytes * math.prod(self._read(rows)) * self.shape[2]
        return kept + read + weights + self.passing + passed_on

    def _read(self, rows: slice) -> tuple[int, int]:
        """Slices and rows of the volume that the windows at one start are made of."""
        (depth, height, _), seen = self.tiles.shape, min(self._height(rows), self.tiles.shape[1])
        z = needed(self.shape[0], depth, slice(0, min(depth, self.tiles.patch[0])))
        y = needed(self.shape[1], height, slice(0, seen))
        return z.stop - z.start, y.stop - y.start

    def _height(self, rows: slice) -> int:
        """Rows of the padded image that the windows of a region see."""
        top, reads = self.tiles.before[1], needed(self.tiles.shape[1], self.shape[1], rows)
        starts = self.tiles.touching(slice(reads.start + top, reads.stop + top))
        return starts[-1] - starts[0] + self.tiles.patch[1]


def activation_bytes(network: nn.Module, batch: int, channels: int, patch: Shape) -> int:
    """Bytes of a forward pass: six of its largest activation, which is what a U-Net's finest level holds.

    Computed on torch's meta device, which knows shapes and no values.
    """
    sizes: list[int] = []

    def note(_: nn.Module, __: object, made: object) -> None:
        if isinstance(made, Tensor):
            sizes.append(made.numel() * _FLOAT)

    copied = copy.deepcopy(network).to("meta").eval()
    for module in copied.modules():
        module.register_forward_hook(note)
    with torch.no_grad():
        copied(torch.empty((batch, channels, *patch), device="meta"))
    return 6 * max(sizes)


def regions(needs: Sequence[Need], beside: int, limit: int, where: object) -> list[slice]:
    """The fewest regions in which a volume is predicted within `limit` bytes, of which `beside` go elsewhere.

    Raises UserError where even the smallest take more.
    """
    shape, least = needs[0].shape, math.inf
    smallest = max(1, min(need.tiles.patch[1] for need in needs) // 4)
    for edge in sorted({-(-shape[1] // n) for n in range(1, -(-shape[1] // smallest) + 1)}, reverse=True):
        rows = [y for _, y, _ in boxes((1, shape[1], 1), (1, edge, 1))]
        taken = beside + sum(max(map(need.of, rows)) for need in needs)
        if taken <= limit:
            return rows
        least = min(least, taken)
    raise UserError(
        where,
        found=f"a volume of {shape} voxels, whose prediction takes {least / 2**30:.3g} GiB or more",
        rule=f"It may take {limit / 2**30:.3g} GiB of memory",
        remedy="Free memory, or allow more with --memory (memory= in Python); fewer models take less",
    )
