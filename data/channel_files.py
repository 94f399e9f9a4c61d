"""Channels that are a file each, told apart by the number their names end in (nnU-Net's CASE_0000)."""

import re
from collections.abc import Mapping
from pathlib import Path

from .problems import Problem

_NUMBERED = re.compile(r"(.*[^/])_(\d{4})$")


def by_channel(files: Mapping[str, Path]) -> dict[str, dict[int, Path]]:
    """The files of each case by channel number; those whose name ends in no number are left out."""
    found: dict[str, dict[int, Path]] = {}
    for name, path in files.items():
        if match := _NUMBERED.match(name):
            found.setdefault(match[1], {})[int(match[2])] = path
    return found


def are_channels(files: Mapping[str, Path], *, several: bool) -> bool:
    """Whether all files are numbered and every case has a channel 0; `several`: some case has more."""
    cases = by_channel(files)
    numbered = sum(len(channels) for channels in cases.values()) == len(files)
    return (
        numbered
        and all(0 in channels for channels in cases.values())
        and (not several or len(files) > len(cases))
    )


def complete(
    cases: Mapping[str, Mapping[int, Path]], names: tuple[str, ...]
) -> tuple[dict[str, tuple[Path, ...]], list[Problem]]:
    """The files of every case that has each of the channels `names`, and an error for every other."""
    wanted = dict(enumerate(names))
    whole = {
        case: tuple(files[n] for n in wanted)
        for case, files in cases.items()
        if files.keys() == wanted.keys()
    }
    problems = [
        _wrong_channels(case, files, wanted) for case, files in cases.items() if files.keys() != wanted.keys()
    ]
    return whole, problems


def _wrong_channels(case: str, files: Mapping[int, Path], wanted: dict[int, str]) -> Problem:
    missing = ", ".join(f"{n:04} ({wanted[n]})" for n in wanted.keys() - files.keys())
    extra = ", ".join(f"{n:04}" for n in sorted(files.keys() - wanted.keys()))
    told = [f"no channel {missing}"] if missing else []
    told += [f"a channel {extra} too many"] if extra else []
    return Problem(
        severity="error",
        case=case,
        where=str(next(iter(files.values()))),
        found=f"'{case}' has {' and '.join(told)}",
        rule="Every case has the channels " + ", ".join(f"{n:04} ({name})" for n, name in wanted.items()),
        remedy="Add or remove the file, or take the case away",
    )
