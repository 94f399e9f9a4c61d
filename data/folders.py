"""The volumes below a folder: files, and folders that are one volume each."""

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

from .errors import DatasetError
from .formats.files import SUFFIXES, is_volume, strip_suffix
from .problems import Problem

# what lies beside volumes and is meant to
_TEXTS = {".txt", ".md", ".json", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".py"}
# whose voxels lie in a file beside them
_HEADERS = {".mhd", ".nhdr"}


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The volumes below `root`, sorted, and what else is there but texts and hidden files."""

    root: Path
    volumes: tuple[Path, ...]
    others: tuple[Path, ...] = ()

    def without(self, *apart: "Folder") -> "Folder":
        """The same without the volumes of other folders."""
        real = cache(Path.resolve)  # of folders: they are few, files may be tens of thousands
        taken = {(real(path.parent), path.name) for folder in apart for path in folder.volumes}
        left = tuple(path for path in self.volumes if (real(path.parent), path.name) not in taken)
        return Folder(root=self.root, volumes=left, others=self.others)

    def by_id(self) -> tuple[dict[str, Path], list[Problem]]:
        """Its volumes by their path below `root` without suffix, and an error for each name met twice."""
        # macOS writes an accent as a letter of its own: what looks alike is one name
        names = [
            unicodedata.normalize("NFC", path.relative_to(self.root).as_posix()) for path in self.volumes
        ]
        ids = [strip_suffix(name) for name in names]
        # on a file system that ignores case, `Case01` and `case01` would share a folder of the store
        twice = {folded for folded, n in Counter(case.casefold() for case in ids).items() if n > 1}
        problems = [
            _name_met_twice(case, path)
            for case, path in zip(ids, self.volumes, strict=True)
            if case.casefold() in twice
        ]
        return dict(zip(ids, self.volumes, strict=True)), problems

    @property
    def unread_kinds(self) -> str:
        """How many files there are of each kind that is no volume: "3 x .png"."""
        headed = {path.with_suffix("") for path in self.volumes if path.suffix.lower() in _HEADERS}
        others = (path for path in self.others if path.with_suffix("") not in headed)
        kinds = Counter(path.suffix or path.name for path in others)
        return ", ".join(f"{n} x {kind}" for kind, n in sorted(kinds.items()))

    def unread(self) -> list[Problem]:
        """A warning of the files that are no volume, where there are any."""
        kinds = self.unread_kinds
        if not kinds:
            return []
        return [
            Problem(
                severity="warning",
                case="",
                where=str(self.root),
                found=f"not read: {kinds}",
                rule=f"Volumes are {', '.join(SUFFIXES)}; links to folders are not followed",
                remedy="Save them as one of these, if they are volumes",
            )
        ]


def look(where: str | Path, root: Path | None = None) -> Folder:
    """The volumes of a folder, a glob or one volume; ids of a glob's are below `root` where that holds all.

    Hidden files and folders, links to folders, and what is inside a volume that is a folder are not seen.
    Raises DatasetError when there is none.
    """
    path = Path(where)
    if path.is_file() or (path.is_dir() and is_volume(path)):
        return Folder(root=path.parent, volumes=(path,))
    found = walk(path) if path.is_dir() else _globbed(str(where), root)
    if not found.volumes:
        absent = not path.exists() and not glob.has_magic(str(where))
        raise DatasetError(
            where,
            found="no such file or folder"
            if absent
            else "no volume found" + (f" (not read: {found.unread_kinds})" if found.others else ""),
            rule=f"Volumes are {', '.join(SUFFIXES)} files",
            remedy="Check the path, or give a glob in quotes such as 'scans/**/*.nii.gz'",
        )
    return found


def walk(root: Path, without: Collection[str] = ()) -> Folder:
    """The same for a folder that may hold none; folders right below it named in `without` are not entered."""
    volumes: list[Path] = []
    others: list[Path] = []
    for folder, inner, names in os.walk(root, onerror=_refuse_unreadable):
        apart = without if Path(folder) == root else ()
        inner[:] = [name for name in inner if not name.startswith(".") and name not in apart]
        paths = {name: Path(folder, name) for name in (*inner, *names) if not name.startswith(".")}
        found = {name for name, path in paths.items() if is_volume(path)}
        volumes += [paths[name] for name in found]
        inner[:] = [name for name in inner if name not in found]
        others += [
            path
            for name, path in paths.items()
            if name not in found
            and path.suffix.lower() not in _TEXTS
            and (name not in inner or path.is_symlink())
        ]
    return Folder(root=root, volumes=tuple(sorted(volumes)), others=tuple(sorted(others)))


def _refuse_unreadable(error: OSError) -> NoReturn:
    raise DatasetError(
        error.filename,
        found=f"the folder cannot be read ({error.strerror})",
        rule="Every folder of a data set is read, or cases would be missing unsaid",
        remedy="Ask for the right to read it, or move it away",
    ) from error


def _globbed(pattern: str, root: Path | None) -> Folder:
    matches = {path for path in map(Path, glob.glob(pattern, recursive=True)) if is_volume(path)}
    found = sorted(path for path in matches if not matches & set(path.parents))
    if root is None or not all(root in path.parents for path in found):
        root = Path(os.path.commonpath([path.parent for path in found])) if found else Path()
    return Folder(root=root, volumes=tuple(found))


def _name_met_twice(case: str, path: Path) -> Problem:
    return Problem(
        severity="error",
        case=case,
        where=str(path),
        found=f"its name without suffix, '{case}', is that of another volume too",
        rule="The path without suffix names a case and must be unique, whether in upper or lower case",
        remedy="Rename one of them or move it away",
    )
