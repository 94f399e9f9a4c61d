"""Every pretext method, entered in the table by being imported here."""

from ..method import METHODS, Registered, find_method
from . import (
    augmentation,
    cpc,
    genesis,
    jigsaw,
    mae,
    relative_location,
    rotation,
    sum,
    triplet,
    volume_fusion,
)

__all__ = [
    "METHODS",
    "Registered",
    "augmentation",
    "cpc",
    "find_method",
    "genesis",
    "jigsaw",
    "mae",
    "relative_location",
    "rotation",
    "sum",
    "triplet",
    "volume_fusion",
]
