"""Finds the packages: a list by hand would drop a forgotten subpackage in silence."""

from setuptools import find_namespace_packages, setup

FLOORS = ("data", "seg", "ssl", "experiments")

setup(
    packages=[
        f"fewvox.{name}"
        for name in find_namespace_packages(include=[p for floor in FLOORS for p in (floor, f"{floor}.*")])
        if "__pycache__" not in name
    ]
)
