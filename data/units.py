"""Units of length, under one name each, and how they convert."""

_METRES = {"angstrom": 1e-10, "nm": 1e-9, "um": 1e-6, "mm": 1e-3, "cm": 1e-2, "m": 1.0, "inch": 0.0254}
_NAMES = {
    "nanometer": "nm",
    "nanometre": "nm",
    "µm": "um",
    "μm": "um",
    "\\u00b5m": "um",
    "micron": "um",
    "microns": "um",
    "micrometer": "um",
    "micrometre": "um",
    "millimeter": "mm",
    "millimetre": "mm",
    "centimeter": "cm",
    "centimetre": "cm",
    "meter": "m",
    "metre": "m",
    "in": "inch",
    "inches": "inch",
    "å": "angstrom",
}


def canonical(name: str | None) -> str | None:
    """The one name used here for a unit a file names ("µm", "micron" -> "um"); None when it is no length."""
    if name is None:
        return None
    key = name.strip().lower()
    key = _NAMES.get(key, key)
    return key if key in _METRES else None


def factor(source: str, target: str) -> float:
    """How many `target` units make one `source` unit."""
    return _METRES[source] / _METRES[target]


def known() -> list[str]:
    """The units that a spacing can be given in."""
    return sorted(_METRES)
