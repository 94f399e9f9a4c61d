"""Voxel spacings as files tell them: in float32, as rationals, in text."""

from collections.abc import Iterable

from ..volume import Triple


def tidy(lengths: Iterable[float]) -> Triple:
    """Three lengths rounded to the seven significant digits that float32 and TIFF rationals can tell.

    So 0.8 um reads 0.8 whichever format it came through, and equal spacings compare equal.
    """
    z, y, x = (float(f"{float(length):.7g}") for length in lengths)
    return z, y, x
