"""The files that a volume of the user lies in, and whether they are what they were."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from .formats.payload import files_beside
from .hashing import file_hash

# headers whose voxels are in files of their own, and the line that names these
_DETACHED = {
    ".mhd": re.compile(rb"^ElementDataFile\s*=\s*(.+?)\s*$", re.MULTILINE),
    ".nhdr": re.compile(rb"^data ?file:\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE),
}
_HEADER_BYTES = 2**16


def source_files(path: Path) -> list[Path]:
    """The file itself, with those of its voxels where it is a header alone; all files of a folder, sorted."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    line = _DETACHED.get(path.suffix.lower())
    if line is None:
        return [path]
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    named = line.search(head)
    if named is None or named[1].upper() == b"LOCAL":
        return [path]
    following = head[named.end() :].decode(errors="replace").splitlines()
    return [path, *files_beside(path, named[1].decode(errors="replace"), following)]


def source_hash(paths: Path | Sequence[Path]) -> str:
    """SHA-256 of the bytes of a volume: of its file, or of the names and hashes of its several files."""
    given = [paths] if isinstance(paths, Path) else list(paths)
    found = [(path, part) for path in given for part in source_files(path)]
    if len(found) == 1 and not given[0].is_dir():
        return file_hash(given[0])
    digest = hashlib.sha256()
    for path, part in found:
        name = part.relative_to(path).as_posix() if path.is_dir() else part.name
        digest.update(f"{name}:{file_hash(part)}\n".encode())
    return digest.hexdigest()


def source_state(path: Path) -> tuple[int, int]:
    """Bytes of all files of a volume, and when the latest was changed, in ns."""
    found = [part.stat() for part in source_files(path)]
    return sum(s.st_size for s in found), max((s.st_mtime_ns for s in found), default=0)
