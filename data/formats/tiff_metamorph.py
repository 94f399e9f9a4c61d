"""Voxel spacing as MetaMorph writes it: MetaSeries XML in each page, and the UIC tags of older STK files."""

from typing import Any
from xml.etree import ElementTree

import numpy as np
from tifffile import TiffFile, TiffFrame, TiffPage

# stages do not stop at exactly the same distance each time
_JITTER = 0.01


def lengths(tif: TiffFile, slices: int) -> tuple[dict[str, float | None], str] | None:
    """The voxel's length along z, y, x (None where unknown) and the unit as written; None for other files."""
    if tif.is_stk:
        return _of_stk(tif.stk_metadata or {})
    first = _properties(tif.pages.first)
    if not first:
        return None
    on = first.get("spatial-calibration-state", "on").lower() in ("on", "true", "1")
    y, x = (_number(first.get(f"spatial-calibration-{axis}")) if on else None for axis in "yx")
    return {"z": _depth(tif, slices), "y": y, "x": x}, first.get("spatial-calibration-units", "")


def _properties(page: TiffPage | TiffFrame) -> dict[str, str]:
    """All `<prop id= value=>` of a page's MetaSeries XML; none where it has no such XML."""
    text = page.aspage().description.strip("\0 \r\n\t")
    if not text.startswith("<MetaData>"):
        return {}
    found = ElementTree.fromstring(text).iterfind(".//prop")
    return {prop.get("id", ""): prop.get("value", "") for prop in found}


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _depth(tif: TiffFile, slices: int) -> float | None:
    """The distance of slices, where the pages tell as many heights as there are slices, evenly apart."""
    told = [_number(_properties(page).get("z-position")) for page in tif.pages]
    heights = np.unique([height for height in told if height is not None])
    return _common(np.diff(heights)) if len(heights) == slices else None


def _of_stk(meta: dict[str, Any]) -> tuple[dict[str, float | None], str]:
    y, x = (meta.get(f"{axis}Calibration") for axis in "YX")
    depth = _common(np.abs(np.atleast_1d(meta.get("ZDistance", ()))))
    return {"z": depth, "y": y, "x": x}, str(meta.get("CalibrationUnits", ""))


def _common(distances: np.ndarray) -> float | None:
    """What all distances are, within the jitter of a stage; None where they differ or there is none."""
    if not distances.size or np.ptp(distances) > _JITTER * distances.mean():
        return None
    return float(f"{distances.mean():.7g}")
