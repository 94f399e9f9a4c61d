"""Every pretext method, entered in the table by being imported here."""

from ..method import METHODS, Registered, find_method
from . import mae, triplet

__all__ = ["METHODS", "Registered", "find_method", "mae", "triplet"]
