"""Weighted sums of windows over some slices of a volume, which end as means."""

# Shapes: K = classes; D = slices that are held.

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..data.volume import Shape
from .sums_compiled import add, divide
from .tiles import Starts, Tiles
from .weights import gaussian


class Sums(Protocol):
    """Sums of windows that are added from the first slice to the last; rows count from the first window's."""

    def add(self, window: Tensor, z: int, y: int, x: int) -> None:
        """Adds a window (K, z, y, x) whose first voxel is here."""
        ...

    def means(self, z: slice) -> Tensor:
        """Means (K, z, Y, X) of slices that no further window touches; what was held of them is given up."""
        ...


class HostSums:
    """Sums in the memory of the processor, of the slices that windows at one start touch."""

    def __init__(self, tiles: Tiles, rows: Starts) -> None:
        self._weight, self._total = gaussian(tiles.patch).numpy(), np.empty(0)
        self._shape = _held_shape(tiles, rows)
        self._starts = np.asarray(tiles.starts[0]), np.asarray(rows) - rows[0], np.asarray(tiles.starts[2])
        self._threads = ThreadPoolExecutor(torch.get_num_threads())

    def add(self, window: Tensor, z: int, y: int, x: int) -> None:
        """Adds a window (K, z, y, x) whose first voxel is here."""
        if not self._total.size:
            self._total = np.zeros((len(window), *self._shape), np.float32)
        values = window.float().contiguous().numpy()
        self._each(values.shape[1], lambda some: add(some, self._total, values, self._weight, z, y, x))

    def means(self, z: slice) -> Tensor:
        """Means (K, z, Y, X) of slices that no further window touches."""
        _, height, width = self._shape
        out = np.empty((len(self._total), z.stop - z.start, height, width), np.float32)
        sums, weight, starts = self._total, self._weight, self._starts
        self._each(out.shape[1], lambda some: divide(some, sums, weight, *starts, z.start, out))
        return torch.from_numpy(out)

    def _each(self, slices: int, work: Callable[[tuple[int, int]], None]) -> None:
        """Does the work on all slices, in as many threads as torch has."""
        ends = np.linspace(0, slices, torch.get_num_threads() + 1).astype(int).tolist()
        if len(ends) == 2:
            work((0, slices))
            return
        for _ in self._threads.map(work, pairwise(ends)):
            pass


class DeviceSums:
    """The same in the memory of an accelerator, where windows need not leave it."""

    def __init__(self, tiles: Tiles, rows: Starts, device: torch.device) -> None:
        self._weight, self._total = gaussian(tiles.patch).to(device), torch.empty(0)
        self._weights, self._depth = torch.zeros(_held_shape(tiles, rows), device=device), tiles.patch[0]

    def add(self, window: Tensor, z: int, y: int, x: int) -> None:
        """Adds a window (K, z, y, x) whose first voxel is here."""
        if not self._total.numel():
            self._total = torch.zeros((len(window), *self._weights.shape), device=window.device)
        _, nz, ny, nx = window.shape
        plane = slice(y, y + ny), slice(x, x + nx)
        for ring, part in self._pieces(slice(z, z + nz)):
            self._total[(slice(None), ring, *plane)].addcmul_(window[:, part].float(), self._weight[part])
            self._weights[(ring, *plane)] += self._weight[part]

    def means(self, z: slice) -> Tensor:
        """Means (K, z, Y, X) of slices that no further window touches."""
        parts = []
        for ring, _ in self._pieces(z):
            parts.append((self._total[:, ring] / self._weights[ring]).cpu())
            self._total[:, ring] = 0
            self._weights[ring] = 0
        return torch.cat(parts, dim=1)

    def _pieces(self, z: slice) -> list[tuple[slice, slice]]:
        """Where slices stand in the ring, in up to two pieces, and which part of the slices each is."""
        first, length = z.start % self._depth, z.stop - z.start
        fitting = min(length, self._depth - first)
        pieces = [(slice(first, first + fitting), slice(0, fitting))]
        return (
            pieces if fitting == length else [*pieces, (slice(0, length - fitting), slice(fitting, length))]
        )


def _held_shape(tiles: Tiles, rows: Starts) -> Shape:
    return tiles.patch[0], rows[-1] - rows[0] + tiles.patch[1], tiles.padded[2]
