"""Every pretext method, entered in the table by being imported here."""

from ..method import METHODS, Registered, find_method
from . import augmentation, mae, sum, triplet

__all__ = ["METHODS", "Registered", "augmentation", "find_method", "mae", "sum", "triplet"]
