"""Stored axes turned to the closest RAS orientation, and results turned back."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from ..volume import Shape, Triple
from .spacing import tidy

_RAS = np.array([[0, 1], [1, 1], [2, 1]])
# a position in one of these frames times the signs (x, y, z) is the position in RAS
SIGNS = {"RAS": (1, 1, 1), "LAS": (-1, 1, 1), "LPS": (-1, -1, 1)}


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Where each stored axis (x, y, z) stands in RAS, and in which direction it runs, 1 or -1."""

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[int, int, int] = (1, 1, 1)

    @classmethod
    def of(cls, affine: np.ndarray) -> Self:
        """The turn that brings voxels of this affine closest to RAS."""
        (x, x_flip), (y, y_flip), (z, z_flip) = io_orientation(affine).astype(int).tolist()
        return cls(axes=(x, y, z), flips=(x_flip, y_flip, z_flip))

    @property
    def orientation(self) -> np.ndarray:
        """nibabel's orientation array, (3, 2): from the stored axes to RAS."""
        return np.column_stack([self.axes, self.flips])

    @property
    def flipped(self) -> str:
        """Letters of the turned axes that run backwards in the file."""
        return "".join("XYZ"[axis] for axis, flip in zip(self.axes, self.flips, strict=True) if flip < 0)

    def letters(self, axes: str) -> str:
        """`axes` with X, Y and Z, the first to third stored axis, renamed to what they are after the turn."""
        return axes.translate({ord("XYZ"[n]): "XYZ"[axis] for n, axis in enumerate(self.axes)})

    def affine(self, affine: np.ndarray, shape: Shape) -> np.ndarray:
        """The affine of the turned voxels, for a stored shape (x, y, z)."""
        return affine @ inv_ornt_aff(self.orientation, shape)

    def back(self, channel: np.ndarray) -> np.ndarray:
        """One turned channel (Z, Y, X) in the order of the file, (x, y, z)."""
        return apply_orientation(channel.transpose(2, 1, 0), ornt_transform(_RAS, self.orientation))


def geometry(affine: np.ndarray) -> tuple[Triple, Triple, tuple[Triple, Triple, Triple]]:
    """Spacing, origin and direction in z, y, x order of an affine in x, y, z order."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    z, y, x = (affine[:3, :3] / lengths)[::-1, ::-1].tolist()
    return tidy(lengths[::-1]), tuple(affine[2::-1, 3].tolist()), (tuple(z), tuple(y), tuple(x))
