"""Whether two volumes are the same piece of space."""

import numpy as np

from .formats.alike import is_turned
from .volume import OpenVolume, Triple

# ITK and nnU-Net compare geometries at about this tolerance; float32 headers differ in the 7th digit
_TOLERANCE = 1e-3


def differences(label: OpenVolume, image: OpenVolume) -> list[tuple[str, object, object]]:
    """The fields in which a label does not lie as its image does, with the values of both.

    A label without spacing has the image's, as masks are often saved without any; but where one of the two
    knows no orientation, the axes of the other were not turned.
    """
    found: list[tuple[str, object, object]] = []
    if label.orientation != image.orientation and (is_turned(label) or is_turned(image)):
        found.append(("orientation", _oriented(label), _oriented(image)))
    if label.shape != image.shape:
        return [*found, ("shape (z, y, x)", label.shape, image.shape)]
    label = label.in_unit(image.unit)
    if image.spacing is None or label.spacing is None:
        return found
    if not np.allclose(label.spacing, image.spacing, rtol=_TOLERANCE):
        found.append(("spacing (z, y, x)", short(label.spacing), short(image.spacing)))
    if np.abs(np.subtract(label.origin, image.origin)).max() > 0.1 * min(image.spacing):
        found.append(("origin (z, y, x)", short(label.origin), short(image.origin)))
    if np.abs(np.subtract(label.direction, image.direction)).max() > _TOLERANCE:
        found.append(("direction", label.direction, image.direction))
    return found


def _oriented(volume: OpenVolume) -> str:
    return "unknown" if volume.orientation == "stored" else "turned to RAS"


def short(vector: Triple) -> str:
    """Three numbers as a person reads them."""
    return "(" + ", ".join(f"{v:.6g}" for v in vector) + ")"
