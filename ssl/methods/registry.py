"""Every pretext method, entered in the table by being imported here."""

from ..method import METHODS, Registered, find_method
from . import augmentation, genesis, mae, sum, triplet, volume_fusion

__all__ = [
    "METHODS",
    "Registered",
    "augmentation",
    "find_method",
    "genesis",
    "mae",
    "sum",
    "triplet",
    "volume_fusion",
]
