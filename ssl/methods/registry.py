"""Every pretext method, entered in the table by being imported here."""

from ..method import METHODS, Registered, find_method
from . import (
    augmentation,
    byol,
    cpc,
    dino,
    genesis,
    jigsaw,
    mae,
    relative_location,
    rotation,
    simclr,
    sum,
    swinunetr,
    triplet,
    vicreg,
    volume_fusion,
)

__all__ = [
    "METHODS",
    "Registered",
    "augmentation",
    "byol",
    "cpc",
    "dino",
    "find_method",
    "genesis",
    "jigsaw",
    "mae",
    "relative_location",
    "rotation",
    "simclr",
    "sum",
    "swinunetr",
    "triplet",
    "vicreg",
    "volume_fusion",
]
